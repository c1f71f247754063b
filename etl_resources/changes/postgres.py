"""The change log of PostgreSQL: a replication slot, read by SQL, never consumed before the lake holds what it gave.

`pg_logical_slot_peek_binary_changes` gives whole transactions in the order of their commit records, and gives them
again until the slot is advanced. The slot follows the lake and may fall back behind it (after a crash of the server it
does): what a stream has already is known by the place of the commit record, and dropped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from etl_resources.change_log import Boundary, ChangeLog, Changes, Finding, Lag, LogState, LogTable
from etl_resources.changes.postgres_link import RESNAPSHOT, Link
from etl_resources.changes.postgres_position import Cursor
from etl_resources.changes.postgres_slot import default_name
from etl_resources.exceptions import ConfigurationError, LogLostError, UnavailableError

if TYPE_CHECKING:
    from etl_resources.changes.postgres_settings import PostgresLogCapture
    from etl_resources.changes.postgres_slot import Status
    from etl_resources.postgres import PostgresConnection
    from etl_resources.source import Position


class PostgresLog(ChangeLog):
    """One slot and one publication for some tables of one database. At most one reader at a time: the server sees to
    it."""

    def __init__(
        self, connection: PostgresConnection, pipeline: str, tables: Sequence[LogTable], capture: PostgresLogCapture
    ) -> None:
        self.connection, self.tables, self.capture = connection, tables, capture
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
        lost, notes = self._alarms(now, cursors)
        return LogState("lost" if lost else "warning" if notes else "ok", news=news, lag=lag, notes=notes)

    def _alarms(self, now: Status, cursors: Sequence[Cursor]) -> tuple[bool, list[str]]:
        slot = now.slot
        assert slot is not None  # noqa: S101 - the caller has looked
        notes = []
        lost = slot.wal_status == "lost"
        if lost:
            notes.append(f"slot {self.slot} is lost: it held back more log than the server may keep; {RESNAPSHOT}")
        elif slot.wal_status == "unreserved":
            notes.append(
                f"slot {self.slot} is about to be lost, at the next checkpoint of the server: this is the last warning;"
                " run the capture now"
            )
        elif slot.wal_status == "extended":
            left = "" if slot.safe_size is None else f", {slot.safe_size:,} bytes before it is lost"
            notes.append(f"slot {self.slot} holds back {now.retained or 0:,} bytes of log{left}: run the capture")
        if self.capture.max_retained is not None and (now.retained or 0) > self.capture.max_retained:
            notes.append(f"slot {self.slot} holds back {now.retained:,} bytes, more than `max_retained`")
        for cursor in cursors:
            other = (cursor.server.system, cursor.server.database) != (now.server.system, now.server.database)
            if not cursor.renewed and (other or (slot.confirmed or 0) > cursor.end):
                lost = True
                notes.append(f"slot {self.slot} is not where the lake is: it was made anew, or read by others")
                break
        return lost, notes

    def protect(self, link: Link, now: Status) -> None:
        """Drop the slot where it holds back more than it may, if the user wants that.

        Raises:
            LogLostError: it was dropped.
        """
        from etl_resources.changes.postgres_slot import drop

        most, retained = self.capture.max_retained, now.retained
        if not self.capture.drop_beyond_cap or most is None or retained is None or retained <= most:
            return
        drop(link, self.slot)
        raise LogLostError(
            f"slot {self.slot} was dropped: it held back {retained:,} bytes, more than `max_retained` ({most:,})",
            where=link.where, fix=RESNAPSHOT,
        )  # fmt: skip

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
