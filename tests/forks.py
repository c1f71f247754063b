"""Functions in processes of their own, at the price of a fork: a server that has imported everything forks for each.

It has used neither DuckDB nor Delta before, so its children start with none of their threads and locks.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.process import shared

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
KILLED = -signal.SIGKILL


@dataclass
class Fork:
    """One process: `wait` for its exit code, or its `result`."""

    pid: int
    folder: Path

    def wait(self, timeout: float = 60) -> int:
        """Return the exit code; negative: the signal that killed it."""
        deadline = time.monotonic() + timeout
        code = self.folder / "code"
        while not code.exists():
            assert time.monotonic() < deadline, "the process does not end"
            time.sleep(0.002)
        return int(code.read_text())

    def result(self) -> Any:
        """Return what the function returned."""
        code = self.wait()
        assert code == 0, (self.folder / "error").read_text() if (self.folder / "error").exists() else code
        return json.loads((self.folder / "result").read_text())

    def kill(self) -> None:
        """Kill it as `kill -9` does, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class Forks:
    """The server and its children."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        root = Path(__file__).parent.parent
        self._server = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import sys; sys.path.insert(0, {str(root)!r}); import tests.forks as f; f.serve()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, function: Callable[..., Any], *, env: Mapping[str, str] | None = None, **arguments: Any) -> Fork:
        """Run a function of a test module (arguments and result are JSON) in a process of its own."""
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        order = {
            "module": function.__module__,
            "function": function.__name__,
            "arguments": arguments,
            "env": dict(env or {}),
            "folder": str(folder),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return Fork(int(self._server.stdout.readline()), folder)

    def stop(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(20)


@contextmanager
def running_forks() -> Iterator[Forks]:
    """Give a server, and stop it afterwards. Its imports take seconds."""
    with tempfile.TemporaryDirectory(prefix="etl-forks-") as folder:
        server = Forks(Path(folder))
        try:
            yield server
        finally:
            server.stop()


# A fixture of session scope is one per module that imports it: the server is one per process all the same.
shared_forks = shared(running_forks)


@pytest.fixture(scope="session", name="forks")
def forking() -> Forks:
    """A server for functions in processes of their own."""
    return shared_forks()


def wait_for(gate: str) -> None:
    """Wait until a file is there."""
    while not Path(gate).exists():
        time.sleep(0.001)


def serve() -> None:
    """Fork for every order on standard input, and write down how each child ended."""
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        importlib.import_module(order["module"])
        # A parent of its own for each child, so that the server need not wait for any.
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(read)
            _oversee(order, write)
        os.close(write)
        with os.fdopen(read) as pipe:
            pid = pipe.readline()
        print(pid, end="", flush=True)


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
    # What is printed here would come between the server and whoever gives it orders.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ.update(order["env"])
    try:
        function = getattr(importlib.import_module(order["module"]), order["function"])
        (folder / "result").write_text(json.dumps(function(**order["arguments"])))
    except BaseException:  # noqa: BLE001 - told to the parent
        (folder / "error").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)
