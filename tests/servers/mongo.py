"""A private MongoDB test server in a process of its own; `docs/connectors/mongodb.md` says what it is."""

from __future__ import annotations

import atexit
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pymongo

from tests.servers.proxy import free_port

ROOT = Path(__file__).parents[2]
USER, PASSWORD_VARIABLE = "etl", "TEST_MONGODB_PASSWORD"
PASSWORD = "the right wörd"
DATABASE = "shop"


class MongoServer:
    """`settings` are what a MongoSource needs to connect; `client()` is for the test itself."""

    def __init__(self, directory: Path, *, durable: bool = False, **options: Any) -> None:
        self.port, self.options, self._log = free_port(), options, directory / "log"
        if durable:
            self.options["journal"] = str(directory / "journal")
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def start(self) -> None:
        """Start, a durable one with what it had before, and wait until connections are taken."""
        given = {"user": USER, "password": PASSWORD, **self.options}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.servers.mongo_server", str(self.port), json.dumps(given)],
                cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no MongoDB test server: {self._log.read_text()[-2000:]}")
            time.sleep(0.03)

    def stop(self) -> None:
        """Kill it; a durable one has what it acknowledged in its journal."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def settings(self, **other: Any) -> dict[str, Any]:
        os.environ[PASSWORD_VARIABLE] = PASSWORD
        given = {
            "uri": f"mongodb://127.0.0.1:{other.pop('port', self.port)}/?directConnection=true", "database": DATABASE,
            "user": USER, "password": {"env": PASSWORD_VARIABLE}, "tls": False,
            "resilience": {"attempts": 3, "first_wait": 0.01, "timeout": 2, "silence": 20},
        }  # fmt: skip
        return {**given, **other}

    def client(self) -> pymongo.MongoClient[dict[str, Any]]:
        return pymongo.MongoClient(
            "127.0.0.1", self.port, username=USER, password=PASSWORD, directConnection=True, tz_aware=True,
            serverSelectionTimeoutMS=5000, uuidRepresentation="standard",
        )  # fmt: skip

    def database(self) -> str:
        """Return the name of a database that nobody has used."""
        self._databases += 1
        return f"test_{self._databases}"


@contextmanager
def running_mongo(**options: Any) -> Iterator[MongoServer]:
    """Give a fresh server: `durable`, `standalone=True`, `certificate=` (a PEM file with its key)."""
    with tempfile.TemporaryDirectory(prefix="etl-mongodb-") as directory:
        server = MongoServer(Path(directory), **options)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@functools.cache
def shared_mongo() -> MongoServer:
    """Return the one server of this process, for tests that do not break it."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running_mongo())


@contextmanager
def failing(client: pymongo.MongoClient[Any], mode: dict[str, int], **data: Any) -> Iterator[None]:
    """Let the server fail as its own `failCommand` says, e.g. `failCommands=["getMore"], errorCode=43`."""
    client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)
    try:
        yield
    finally:
        client.admin.command("configureFailPoint", "failCommand", mode="off")
