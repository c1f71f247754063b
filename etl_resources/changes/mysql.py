"""MySQL's and MariaDB's record of changes: the row binlog, as replicas read it."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from etl_resources.change_log import Boundary, ChangeLog, Changes, Finding, Lag, LogState, LogTable
from etl_resources.exceptions import ConfigurationError, LogLostError, NotFoundError
from etl_resources.source import Position

if TYPE_CHECKING:
    from etl_resources.changes.mysql_dump import Dump
    from etl_resources.changes.mysql_server import Server
    from etl_resources.changes.mysql_settings import MysqlLogCapture
    from etl_resources.changes.mysql_shapes import Definition
    from etl_resources.compared import ComparedTable
    from etl_resources.mysql_session import Session
    from etl_resources.sources.mysql import MysqlSource


class MysqlLog(ChangeLog):
    """The binlog of one server, for some tables. Nothing is kept at the server: the position says what is next."""

    def __init__(
        self, source: MysqlSource, pipeline: str, tables: Sequence[LogTable], capture: MysqlLogCapture
    ) -> None:
        self.source, self.pipeline, self.tables, self.capture = source, pipeline, tables, capture
        self.resilience, self.lasts = source.resilience, capture.time

    @property
    def server_id(self) -> int:
        """The number by which the server knows this reader."""
        return self.capture.server_id or 2**31 + zlib.crc32(self.pipeline.encode()) % (2**31 - 2)

    def dump(self) -> Dump:
        """Connect for the log."""
        from etl_resources.changes.mysql_dump import Dump

        return Dump(self.source, server_id=self.server_id, heartbeat=self.capture.heartbeat)

    def define(self, session: Session, table: LogTable) -> Definition:
        """Look up a table; raises as `mysql_shapes.define`."""
        from etl_resources.changes.mysql_shapes import define
        from etl_resources.sources.mysql import _options

        return define(session, table, _options(table.stream), self.source.database)

    def read(self, since: Mapping[str, Position | None]) -> Generator[Changes | Boundary, None, None]:
        """Yield what has come; see `ChangeLog.read`.

        A transaction's `_pos` is the place of the event that opens it, a snapshot row's the end of the last transaction
        that it holds: see `mysql_position`. `_seq` is twice the number of the row among those of its table and
        transaction, plus one; the delete of an old key has the even number before it.
        """
        from etl_resources.changes.mysql_reading import Reading
        from etl_resources.changes.mysql_server import Server

        with ExitStack() as stack:
            session = stack.enter_context(self.source.session())
            server = Server.of(session)
            definitions = [self.define(session, table) for table in self.tables if table.name in since]
            for finding in self._findings(server, definitions):
                if finding.level == "error":
                    where = f"stream {finding.stream}, {session.where}" if finding.stream else session.where
                    raise ConfigurationError(finding.what, where=where, fix=finding.fix)
            yield from Reading(self, server, definitions, since, stack).ticks()

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        """Do nothing: the server keeps its log by its own rules, and asks no reader."""

    def renewed(self, position: Position | None) -> Position | None:
        """Return the position that takes the snapshot again; it remembers how far `_pos` has come."""
        from etl_resources.changes.mysql_position import Cursor, Progress

        if position is None:
            return None
        return Cursor.from_position(position).with_snapshot(Progress()).to_position()

    def preflight(self) -> list[Finding]:
        """Look at settings, privileges and tables; see `mysql_preflight`."""
        from etl_resources.changes.mysql_preflight import privileges
        from etl_resources.changes.mysql_server import Server

        with self.source.session() as session:
            server, definitions, found = Server.of(session), [], []
            for table in self.tables:
                try:
                    definitions.append(self.define(session, table))
                except (ConfigurationError, NotFoundError) as error:
                    found.append(Finding("error", error.what, error.fix, table.name))
            missing = list(privileges(server))
            if any(finding.level == "error" for finding in missing):
                return [*missing, *found]
            return [*self._findings(server, definitions), *missing, *found]

    def _findings(self, server: Server, definitions: list[Definition]) -> Iterator[Finding]:
        from etl_resources.changes.mysql_preflight import filters, settings, table

        yield from settings(server)
        for definition in definitions:
            yield from filters(server, definition)
            yield from table(server, definition, allow_cascades=self.capture.allow_cascades)

    def state(self, since: Mapping[str, Position | None]) -> LogState:
        """Ask whether the log of the earliest position is still there, and how much has come since."""
        from etl_resources.changes.mysql_position import Cursor
        from etl_resources.changes.mysql_preflight import retention
        from etl_resources.changes.mysql_resume import resume
        from etl_resources.changes.mysql_server import Server

        cursors = {name: Cursor.from_position(position) for name, position in since.items() if position is not None}
        placed = {name: cursor for name, cursor in cursors.items() if not cursor.is_fresh}
        unfinished = len(cursors) < len(since) or any(cursor.snapshot for cursor in cursors.values())
        if not placed:
            return LogState("none", news=True)
        with self.source.session() as session:
            server = Server.of(session)
            notes = [f"{finding.what}; {finding.fix}" for finding in retention(server) if finding.level != "ok"]
            first = min(placed.values(), key=lambda cursor: cursor.pos)
            try:
                start = resume(server, placed, self.dump, wait=self.source.resilience.timeout)
                start.dump.close(session)
            except LogLostError as error:
                return LogState("lost", news=True, notes=[error.what, *notes])
            behind = server.behind(first.file, first.place) if first.server == server.identity else None
            news = bool(unfinished) or behind != 0
            lag = Lag(behind, 0.0 if behind == 0 else None)
            return LogState("warning" if notes else "ok", news, lag, notes)

    def compared(self, stream: str) -> AbstractContextManager[ComparedTable]:
        """Return a snapshot of a table with checksums of its rows."""
        from etl_resources.changes.mysql_compared import opened

        return opened(self, next(table for table in self.tables if table.name == stream))

    def remove(self) -> None:
        """Do nothing: nothing was set up at the server."""
