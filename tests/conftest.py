"""Fixtures of the whole suite: servers start when the first test of a worker asks for them, and stop at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.postgres import PostgresServer, shared_postgres

SERVERS = ("kafka", "mongodb", "mysql", "rabbitmq", "snowflake", "sqlserver", "sqs")
"""Far ends that take seconds to start: their tests share one worker, as the conformance suite of that name does."""
PROJECTS = frozenset({"cli", "demo", "lab9"})
"""Folders whose modules make something large for all of their tests."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep tests together that share what is expensive to make."""
    group = group_of(item.path)
    if group is not None and item.get_closest_marker("xdist_group") is None:
        item.add_marker(pytest.mark.xdist_group(group))


def group_of(path: Path) -> str | None:
    """Return what the tests of a module share; None: nothing."""
    server = next((name for name in SERVERS if path.stem.startswith(f"test_{name}")), None)
    return server or (f"{path.parent.name}/{path.stem}" if path.parent.name in PROJECTS else None)


@pytest.fixture(scope="session")
def postgres_server() -> PostgresServer:
    """A private PostgreSQL of this worker (one each is cheaper than a lock: it starts in about a second)."""
    return shared_postgres()


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> str:
    """A database with nothing in it."""
    return postgres_server.emptied_database()
