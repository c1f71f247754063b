"""Servers start once, are waited for, and end with the block."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.servers.process import running_process, shared
from tests.servers.proxy import free_port

LATE = """
import socket, sys, time
time.sleep(0.3)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(60)
"""


def test_a_process_is_waited_for_and_ends_with_the_block() -> None:
    port = free_port()
    with running_process([sys.executable, "-c", LATE, str(port)], port):
        socket.create_connection(("127.0.0.1", port), 1).close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 1)


def test_a_process_that_ends_or_never_listens_is_an_error() -> None:
    with (
        pytest.raises(AssertionError, match="ended with 3"),
        running_process([sys.executable, "-c", "raise SystemExit(3)"], free_port()),
    ):
        pass
    with (
        pytest.raises(AssertionError, match="did not start"),
        running_process([sys.executable, "-c", "import time; time.sleep(60)"], free_port(), seconds=0.3),
    ):
        pass


def test_what_is_shared_starts_once_per_setting() -> None:
    started: list[int] = []

    @contextmanager
    def running(*, size: int = 1) -> Iterator[int]:
        started.append(size)
        yield size

    get = shared(running)
    assert [get(), get(), get(size=2), get(size=2)] == [1, 1, 2, 2]
    assert started == [1, 2]
