"""Fixtures of the whole suite: servers start when the first test of a worker asks for them, and stop at its end."""

from __future__ import annotations

from typing import Any

import pytest

from tests import scheduling
from tests.servers.postgres import PostgresServer, shared_postgres


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    scheduling.longest_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return scheduling.Dealing(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def postgres_server() -> PostgresServer:
    """A private PostgreSQL of this worker (one each is cheaper than a lock: it starts in about a second)."""
    return shared_postgres()


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> str:
    """A database with nothing in it."""
    return postgres_server.emptied_database()
