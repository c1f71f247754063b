"""Dagster's embedded event log, kept open while a run writes to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg


@contextmanager
def quick_events(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Let events reach SQLite without waiting for the disk each; anything but SQLite is left alone.

    Dagster opens and closes a connection per event. The close of the last one moves the write-ahead log into the
    database, and a commit waits for the disk: 20 to 100 ms, and a run with 60 checks has 250 events. So a connection is
    held open, and commits are asked to be consistent only (`synchronous = NORMAL`: after a loss of power the last
    events may be missing; the data and their accounts are in the lake).

    It also makes an engine for each connection, and a new engine compiles each statement anew: a third of the
    processor time of a small run. So there is one engine per database.
    """
    from dagster._core.storage.event_log import SqliteEventLogStorage

    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        yield
        return
    from sqlalchemy import Engine, event

    with ExitStack() as held, _one_engine_per_database():
        event.listen(Engine, "connect", _not_every_commit)
        held.callback(event.remove, Engine, "connect", _not_every_commit)
        with storage.run_connection(run_id):
            pass  # makes the file
        for shard in ("index", run_id):
            connection = held.enter_context(closing(sqlite3.connect(storage.path_for_shard(shard))))
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()  # until it reads, it is not attached
        yield


@contextmanager
def _one_engine_per_database() -> Iterator[None]:
    import sqlalchemy
    from dagster._core.storage.event_log.sqlite import sqlite_event_log
    from dagster._core.storage.runs.sqlite import sqlite_run_storage

    engines: dict[str, sqlalchemy.Engine] = {}

    def engine(url: str, **options: Any) -> sqlalchemy.Engine:
        # All ask for a `NullPool`: no connection is shared, and each database is opened with the same options.
        return engines.get(url) or engines.setdefault(url, sqlalchemy.create_engine(url, **options))

    with ExitStack() as held:
        for module in (sqlite_event_log, sqlite_run_storage):
            held.callback(vars(module).update, create_engine=module.create_engine)
            vars(module)["create_engine"] = engine
        yield


def _not_every_commit(connection: Any, _record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = NORMAL")
