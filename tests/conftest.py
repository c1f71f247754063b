"""Fixtures of the whole suite: servers start when the first test of a worker asks for them, and stop at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.postgres import PostgresServer, running_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A private PostgreSQL of this worker (one each is cheaper than a lock: it starts in under a second)."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> str:
    """An empty database of this test."""
    return postgres_server.database()
