"""The server of `tests.forks`: forks for every order, and writes down how each child ended.

It has used neither DuckDB nor Delta before, so its children start with none of their threads and locks.
"""

from __future__ import annotations

import importlib
import json
import os
import selectors
import socket
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

PRELOADED = (
    "adbc_driver_postgresql.dbapi",
    "deltalake",
    "duckdb",
    "ibis",
    "ibis.backends.sql.compilers.duckdb",
    "pyarrow.compute",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "stamina",
    "tests.assets.doubles",
    "tests.assets.shop",
)


class Server:
    """Listens at a Unix socket until the last of those that give orders has gone."""

    def __init__(self, address: Path) -> None:
        self._address = address
        self._waiting = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._orders: dict[socket.socket, bytes] = {}
        address.unlink(missing_ok=True)
        self._listener.bind(str(address))
        self._listener.listen()
        self._waiting.register(self._listener, selectors.EVENT_READ)

    def run(self) -> None:
        self._serve_all()
        self._address.unlink()
        self._listener.setblocking(False)
        with suppress(BlockingIOError):  # somebody may have come at the last moment
            self._accept()
            self._serve_all()

    def _serve_all(self) -> None:
        while True:
            for key, _ in self._waiting.select():
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._serve(cast("socket.socket", key.fileobj))
            if not self._orders:
                return

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self._orders[client] = b""
        self._waiting.register(client, selectors.EVENT_READ)

    def _serve(self, client: socket.socket) -> None:
        received = client.recv(1 << 16)
        *lines, self._orders[client] = (self._orders[client] + received).split(b"\n")
        for line in lines:
            client.sendall(_forked(json.loads(line), [self._listener, *self._orders]))
        if not received:
            self._waiting.unregister(client)
            del self._orders[client]
            client.close()


def _forked(order: Mapping[str, Any], sockets: list[socket.socket]) -> bytes:
    """Return the process that carries out the order, as a line."""
    importlib.import_module(order["module"])
    # A parent of its own for each child, so that the server need not wait for any.
    read, write = os.pipe()
    if os.fork() == 0:
        for its in sockets:
            its.close()
        os.close(read)
        _oversee(order, write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        return pipe.readline()


def _oversee(order: Mapping[str, Any], write: int) -> None:
    folder = Path(order["folder"])
    pid = os.fork()
    if pid == 0:
        os.close(write)
        _run(order, folder)
    os.write(write, f"{pid}\n".encode())
    os.close(write)
    _, status = os.waitpid(pid, 0)
    (folder / "code.part").write_text(str(os.waitstatus_to_exitcode(status)))
    (folder / "code.part").rename(folder / "code")
    os._exit(0)


def _run(order: Mapping[str, Any], folder: Path) -> None:
    os.environ.update(order["env"])
    try:
        function = getattr(importlib.import_module(order["module"]), order["function"])
        (folder / "result").write_text(json.dumps(function(**order["arguments"])))
    except BaseException:  # noqa: BLE001 - told to the parent
        (folder / "error").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    server = Server(Path(sys.argv[1]))
    print("ready", flush=True)
    # What a child prints goes nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    server.run()
