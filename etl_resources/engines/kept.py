"""In-memory databases of DuckDB, emptied and kept for the next session: to open one takes 30 ms, to empty one 3."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etl_resources.scratch import Scratch

if TYPE_CHECKING:
    import duckdb

_MOST = 2
"""Databases that wait at the same time; a step rarely has more sessions than two, one in the other."""
_OWN = "_etl_session"
_GROWTH = 64 << 20
"""Bytes by which the process may have grown since a database was opened: DuckDB gives memory back when it is closed."""


@dataclass
class _Database:
    settings: tuple[tuple[str, Any], ...]
    folder: str | None
    spill: Scratch
    connection: duckdb.DuckDBPyConnection
    began: int | None
    """Bytes that the process had in memory when it was opened, where that is known."""

    def empty(self) -> None:
        """Remove what the session made; its temporary tables went with its cursor."""
        made = "SELECT database_name FROM duckdb_databases() WHERE NOT internal AND database_name <> 'memory'"
        for (name,) in self.connection.execute(made).fetchall():
            self.connection.execute(f'DETACH "{name}"')
        # What files held would count as the memory of whoever waits.
        self.connection.execute("SET enable_external_file_cache = false; SET enable_external_file_cache = true")

    def close(self) -> None:
        self.connection.close()
        self.spill.close()


_waiting: list[_Database] = []
_lock = threading.Lock()


@contextmanager
def database(folder: str | None, settings: Mapping[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection to an empty database of its own, which spills into a new folder under `folder`.

    After an error, or once the process has grown, the database is closed and not kept.
    """
    wanted = tuple(sorted(settings.items()))
    used = _take(wanted, folder) or _open(wanted, folder)
    try:
        # A cursor has temporary tables of its own; whatever else is made goes into a database that is detached.
        cursor = used.connection.cursor()
        cursor.execute(f"ATTACH ':memory:' AS {_OWN}; USE {_OWN}")
        yield cursor
        cursor.close()
        used.empty()
    except BaseException:
        used.close()
        raise
    now = _resident()
    if used.began is None or now is None or now - used.began > _GROWTH:
        used.close()
    else:
        _keep(used)


def close_waiting() -> None:
    """Close the databases that wait for a session."""
    while _waiting:
        _waiting.pop().close()


# A process that is forked has none of their threads.
os.register_at_fork(before=close_waiting)


def _take(settings: tuple[tuple[str, Any], ...], folder: str | None) -> _Database | None:
    with _lock:
        for found in _waiting:
            if (found.settings, found.folder) == (settings, folder) and Path(found.spill.name).is_dir():
                _waiting.remove(found)
                return found
    return None


def _open(settings: tuple[tuple[str, Any], ...], folder: str | None) -> _Database:
    import duckdb

    spill = Scratch(folder)
    try:
        connection = duckdb.connect(config={**dict(settings), "temp_directory": spill.name})
        # As a setting of the connection DuckDB 2.0 would try to download the zone data that it already has.
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
    except BaseException:
        spill.close()
        raise
    return _Database(settings, folder, spill, connection, _resident())


def _resident() -> int | None:
    """Return how many bytes the process has in memory."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123 - read for every session, and pathlib takes thrice as long
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _keep(used: _Database) -> None:
    with _lock:
        _waiting.insert(0, used)
        surplus = _waiting[_MOST:]
        del _waiting[_MOST:]
    for database_ in surplus:
        database_.close()
