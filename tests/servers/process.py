"""Servers of tests: started when they are first asked for, waited for until they answer, stopped with the tests."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


def shared(running: Callable[P, AbstractContextManager[T]]) -> Callable[P, T]:
    """Return a function that starts a server by `running` once per process, and stops it when the process ends.

    With other arguments it is another server. Tests take names of their own in it: buckets, tables, queues; those that
    stop or break a server use `running`.
    """

    @functools.cache
    def start(*args: Any, **settings: Any) -> T:
        stack = ExitStack()
        atexit.register(stack.close)
        return stack.enter_context(running(*args, **settings))

    return cast("Callable[P, T]", start)


def copies(
    directory: Callable[[], AbstractContextManager[Path]], server: Callable[[Path], Any]
) -> Callable[[Path], None]:
    """Return what fills the data directory of a server with a copy of one that is initialised once per process.

    `directory` gives an empty one that the server's user owns; `server` has `initialise()` and `data`.
    """

    @contextmanager
    def initialised() -> Iterator[Path]:
        with directory() as its:
            first = server(its)
            first.initialise()
            yield first.data

    template = shared(initialised)

    def fill(data: Path) -> None:
        subprocess.run(["cp", "-a", "--reflink=auto", template(), data], check=True)

    return fill


@contextmanager
def owned_directory(prefix: str, owner: tuple[int, int] | None) -> Iterator[Path]:
    """Give an empty directory of a user and group (None: our own), and remove it afterwards."""
    # Not under pytest's own temporary folder: that one is closed to other users.
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    if owner is not None:
        os.chown(directory, *owner)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def running_process(words: Sequence[str], port: int, *, seconds: float = 60, **settings: Any) -> Iterator[None]:
    """Run a program until the end of the block, which begins once something listens on 127.0.0.1:`port`.

    `settings` are those of Popen. What it prints is lost.
    """
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(words, **silent, **settings)
    try:
        _wait(words[0], port, server, time.monotonic() + seconds)
        yield
    finally:
        server.terminate()
        server.wait(10)


def _wait(name: str, port: int, server: subprocess.Popen[bytes], until: float) -> None:
    while time.monotonic() < until:
        assert server.poll() is None, f"{name} ended with {server.returncode}"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"{name} did not start")
