"""Functions in processes of their own, at the price of a fork: a server that has imported everything forks for each."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pytest

from tests.servers.process import shared

KILLED = -signal.SIGKILL
ROOT = Path(__file__).parent.parent


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
    """A connection to the server; functions are run in `folder`."""

    def __init__(self, folder: Path, server: TextIO) -> None:
        self._folder, self._server, self._count = folder, server, 0

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
        self._server.write(json.dumps(order) + "\n")
        self._server.flush()
        return Fork(int(self._server.readline()), folder)


@contextmanager
def connected_forks() -> Iterator[Forks]:
    """Connect to the server of this run of the tests, which starts with the first connection and ends with the last.

    Its imports take seconds, so the workers share it.
    """
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    address = Path(tempfile.gettempdir()) / f"etl-forks-{run}"
    with socket.socket(socket.AF_UNIX) as connection, tempfile.TemporaryDirectory(prefix="etl-forks-") as folder:
        with _alone():
            if connection.connect_ex(str(address)):
                _serve(address)
                connection.connect(str(address))
        with connection.makefile("rw") as server:
            yield Forks(Path(folder), server)


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time into the block."""
    project = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(project, fcntl.LOCK_EX)
        yield
    finally:
        os.close(project)


def _serve(address: Path) -> None:
    words = [sys.executable, "-m", "tests.fork_server", str(address)]
    server = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline(), "the server of forks did not start"


# A fixture of session scope is one per module that imports it: the connection is one per process all the same.
shared_forks = shared(connected_forks)


@pytest.fixture(scope="session", name="forks")
def forking() -> Forks:
    """A server for functions in processes of their own."""
    return shared_forks()


def wait_for(gate: str) -> None:
    """Wait until a file is there."""
    while not Path(gate).exists():
        time.sleep(0.001)
