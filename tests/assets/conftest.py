"""What Dagster does again and again though it comes out the same is done once per process of tests."""

from __future__ import annotations

import functools

import pytest


@pytest.fixture(scope="session", autouse=True)
def migrations_are_read_once() -> None:
    """Dagster runs the files of all its migrations for each database that it opens: three to six times per instance."""
    import alembic.command
    from alembic.script import ScriptDirectory
    from dagster._core.storage import sql

    class Kept(ScriptDirectory):
        @classmethod
        @functools.cache
        def from_config(cls, config: object) -> ScriptDirectory:
            return ScriptDirectory.from_config(config)  # type: ignore[arg-type]

    for module in (alembic.command, sql):
        module.ScriptDirectory = Kept  # type: ignore[attr-defined]
