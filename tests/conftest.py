"""Fixtures of the whole suite: servers start when the first test of a worker asks for them, and stop at its end."""

from __future__ import annotations

import pytest

from tests.servers.postgres import PostgresServer, shared_postgres


@pytest.fixture(scope="session")
def postgres_server() -> PostgresServer:
    """A private PostgreSQL of this worker (one each is cheaper than a lock: it starts in about a second)."""
    return shared_postgres()


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> str:
    """A database with nothing in it."""
    return postgres_server.emptied_database()
