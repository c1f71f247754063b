"""The change log of PostgreSQL: a replication slot, read by SQL, never consumed before the lake holds what it gave.

`pg_logical_slot_peek_binary_changes` gives whole transactions in the order of their commit records, and gives them
again until the slot is advanced. The slot follows the lake and may fall back behind it (after a crash of the server it
does): what a stream has already is known by the place of the commit record, and dropped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from etl_resources.change_log import Boundary, ChangeLog, Changes, Finding, Lag, LogState, LogTable
from etl_resources.changes.postgres_link import RESNAPSHOT, Link
from etl_resources.changes.postgres_position import Cursor
from etl_resources.changes.postgres_slot import default_name
from etl_resources.exceptions import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from etl_resources.changes.postgres_settings import PostgresLogCapture
    from etl_resources.compared import ComparedTable
    from etl_resources.postgres import PostgresConnection
    from etl_resources.source import Position


class PostgresLog(ChangeLog):
    """One slot and one publication for some tables of one database. At most one reader at a time: the server sees to
    it."""

    def __init__(
        self, connection: PostgresConnection, pipeline: str, tables: Sequence[LogTable], capture: PostgresLogCapture
    ) -> None:
        self.connection, self.tables, self.capture = connection, tables, capture
        self.resilience = connection.resilience
        self.lasts = capture.time
        self.slot = capture.slot or default_name(pipeline)
        self.publication = capture.publication or self.slot
        self._link: Link | None = None
        self._kept = False
        self._advanced = 0
        named = [getattr(table.stream.options, "table", None) for table in tables]
        if len(set(named)) < len(named):
            raise ConfigurationError(
                "two streams capture the same table", where=f"pipeline {pipeline}", fix="capture each table once"
            )

    def read(self, since: Mapping[str, Position | None]) -> Generator[Changes | Boundary]:
        """Yield events, and rows of snapshots, up to what was there at the beginning (batch) or until the time is up.

        Raises:
            UnavailableError: also while another run reads from the slot.
            LogLostError, ConfigurationError: as `ChangeLog.read` says.
        """
        from etl_resources.changes.postgres_reading import Reading

        self._kept = True
        try:
            yield from Reading(self, since).ticks()
        finally:
            self._kept = False
            self._hang_up()

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        """Advance the slot to the oldest of the positions, each the end of a transaction that the lake holds."""
        from etl_resources.changes.postgres_slot import advance

        end = min((Cursor.from_position(position).end for position in positions.values()), default=0)
        if end <= self._advanced:
            return

        def attempt() -> None:
            with self.linked() as link:
                advance(link, self.slot, end)

        self.connection.resilience.call(attempt)
        self._advanced = end

    def renewed(self, position: Position | None) -> Position | None:
        """Return the position that makes the next `read` take the snapshot again, with a new slot if need be."""
        return None if position is None else Cursor.from_position(position).anew().to_position()

    def preflight(self) -> list[Finding]:
        """Look whether the tables can be captured; errors would be raised by `read`."""
        from etl_resources.changes.postgres_setup import inspected

        with self.linked() as link:
            return inspected(link, self)[2]

    def state(self, since: Mapping[str, Position | None]) -> LogState:
        """Return what the server says about the slot."""
        from etl_resources.changes.postgres_guard import alarms
        from etl_resources.changes.postgres_reading import has_news
        from etl_resources.changes.postgres_slot import status

        cursors = [Cursor.from_position(position) for position in since.values() if position is not None]
        with self.linked() as link:
            now = status(link, self.slot)
        if now.slot is None:
            lost = any(not cursor.renewed for cursor in cursors)
            notes = [f"slot {self.slot} is gone: {RESNAPSHOT}"] if lost else [f"slot {self.slot} is not there yet"]
            return LogState("lost" if lost else "none", news=True, notes=notes)
        news = len(cursors) < len(since) or any(c.renewed for c in cursors) or has_news(now, cursors)
        behind = max(0, now.insert - min((c.end for c in cursors), default=now.slot.confirmed or now.insert))
        lag = Lag(behind if news else 0, None if news else 0.0, now.retained)
        lost, notes = alarms(self.slot, now, cursors, self.capture)
        return LogState("lost" if lost else "warning" if notes else "ok", news=news, lag=lag, notes=notes)

    def protect(self) -> str | None:
        """Drop the slot if it holds back more than `max_retained`, and the user wants that."""
        from etl_resources.changes.postgres_guard import spared
        from etl_resources.changes.postgres_slot import status

        if not self.capture.drop_beyond_cap:
            return None
        with self.linked() as link:
            return spared(link, self.slot, status(link, self.slot), self.capture)

    def compared(self, stream: str) -> AbstractContextManager[ComparedTable]:
        """Return a snapshot of a table with checksums of its rows, by connections of its own."""
        from etl_resources.changes.postgres_compared import opened

        return opened(self.connection, next(table for table in self.tables if table.name == stream))

    def remove(self) -> None:
        """Drop the slot, and the publication if we made it."""
        from etl_resources.changes import postgres_publication, postgres_slot

        with self.linked() as link:
            postgres_slot.drop(link, self.slot)
            postgres_publication.drop(link, self.publication)

    @contextmanager
    def linked(self) -> Iterator[Link]:
        """Give the connections of the read that is going on, or else some for this one purpose.

        After an error the next call gets new ones.
        """
        if self._link is None:
            self._link = Link(self.connection)
        try:
            yield self._link
        except UnavailableError:
            self._hang_up()
            raise
        finally:
            if not self._kept:
                self._hang_up()

    def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
