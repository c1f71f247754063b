"""A session that another thread closes: what was being read fails, and the process lives on."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from etl_resources.exceptions import UnavailableError
from etl_resources.read_ahead import read_ahead
from etl_resources.sources.postgres import PostgresSource
from tests.forks import Forks, forking
from tests.servers.postgres import PostgresServer

__all__ = ["forking"]

MANY = "SELECT repeat('x', 100) FROM generate_series(1, 300000)"


def close_while_reading(settings: dict[str, Any], times: int) -> list[str]:
    """Return how each of the reads ended."""
    return [_closed_after(PostgresSource(**settings), n) for n in range(times)]


def _closed_after(source: PostgresSource, batches: int) -> str:
    """Close the session after some batches, which a thread of its own reads."""
    with source.session() as session:
        begun = threading.Semaphore(0)
        ended = []

        def read() -> None:
            try:
                with session.stream(MANY, batch_bytes=2000) as found:
                    for _ in found:
                        begun.release()
            except UnavailableError as error:
                ended.append(str(error))

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(batches + 1):
            begun.acquire()
        session.close()
        reader.join()
    return ended[0]


def test_a_session_that_is_closed_while_a_thread_reads_ends_the_read(
    postgres_server: PostgresServer, forks: Forks
) -> None:
    # In a process of its own: what is tried here has crashed it.
    ends = forks.start(close_while_reading, settings=postgres_server.settings(), times=8).result()
    assert ["closed while it was in use" in end for end in ends] == [True] * 8


def test_a_read_ahead_of_a_closed_session_ends_as_well(postgres_server: PostgresServer) -> None:
    source = PostgresSource(**postgres_server.settings())
    with source.session() as session:

        def made() -> Any:
            with session.stream(MANY, batch_bytes=2000) as found:
                yield from found

        ahead = read_ahead(made(), 2)
        next(ahead)
        session.close()
        with pytest.raises(UnavailableError, match="closed while it was in use"):
            list(ahead)
    with pytest.raises(UnavailableError, match="closed while it was in use"):
        session.value("SELECT 1")


def test_of_two_that_close_at_once_neither_fails(postgres_server: PostgresServer) -> None:
    with PostgresSource(**postgres_server.settings()).session() as session, ThreadPoolExecutor(3) as pool:
        reading = pool.submit(session.value, "SELECT pg_sleep(0.3)::text")
        while not session._one_at_a_time.locked():
            time.sleep(0.01)
        closing = [pool.submit(session.close) for _ in range(2)]  # both wait for the read
        assert [close.result(10) for close in closing] == [None, None]
        assert reading.result(10) == ""
    assert session._closed
