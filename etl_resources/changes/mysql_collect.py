"""Sorts the rows of the log by stream, keeps them until there are enough, and has them decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from etl_resources.change_log import Changes
from etl_resources.changes.mysql_changes import Streamed
from etl_resources.changes.mysql_events import HEADER_SIZE, Event
from etl_resources.changes.mysql_pending import Rows, Transaction, images
from etl_resources.changes.mysql_shapes import Definition, Shape, shape
from etl_resources.changes.mysql_statements import meaning
from etl_resources.changes.mysql_types import identity, parse
from etl_resources.exceptions import EngineError, LogLostError, NotFoundError

if TYPE_CHECKING:
    from etl_resources.changes.mysql_types import TableMap

Define = Callable[[Definition], Definition]


class Stream:
    """A captured table: its definition, its versions in the log, and the rows that wait."""

    def __init__(self, definition: Definition, streamed: Streamed, joined: int) -> None:
        self.definition, self.streamed, self.joined = definition, streamed, joined
        """Transactions up to `joined` are before the stream's beginning, and none of its business."""
        self.rows: Rows | None = None
        self.versions: dict[bytes, tuple[TableMap, Shape]] = {}
        self.yielded: Transaction | None = None
        """The last transaction of which rows have been decoded."""


class Collector:
    """The streams of a log. `ready` holds what is decoded, in the order of the log of each stream."""

    def __init__(self, streams: list[Stream], define: Define, *, mariadb: bool, folded: bool, where: str) -> None:
        self.streams, self._define, self._folded, self.where = streams, define, folded, where
        self._mariadb = mariadb
        self._by_table = {self._name(s.definition.database, s.definition.table): s for s in streams}
        self._tables: dict[int, tuple[Stream, TableMap, Shape] | None] = {}
        self._last: tuple[Stream, TableMap, Shape] | None = None
        self.ready: list[Changes] = []
        self.skipped = False
        """Rows are of a transaction whose fate is not known: they are not taken, only noticed."""
        self._was_skipped = False

    def _name(self, database: str, table: str) -> tuple[str, str]:
        return (database.lower(), table.lower()) if self._folded else (database, table)

    @property
    def waiting(self) -> int:
        """Row events that wait to be decoded."""
        return sum(len(stream.rows.starts) for stream in self.streams if stream.rows is not None)

    @property
    def rows_read(self) -> int:
        """Events of all streams that have been decoded."""
        return sum(stream.streamed.rows_read for stream in self.streams)

    def forget_tables(self) -> None:
        """Numbers of tables mean something else from here on."""
        self._tables.clear()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Read another part of the log, with its own numbers of tables."""
        tables, self._tables = self._tables, {}
        try:
            yield
        finally:
            self._tables = tables

    def concerns_last_table(self) -> bool:
        """Return whether the table named last is followed."""
        return self._last is not None

    def was_skipped(self) -> bool:
        """Return whether rows of followed tables were noticed and not taken."""
        noticed, self._was_skipped = self._was_skipped, False
        return noticed

    def table(self, event: Event) -> None:
        """Take in the description of a table."""
        body = event.body
        number, database, name = identity(body)
        stream = self._by_table.get(self._name(database, name))
        if stream is None:
            self._tables[number] = self._last = None
            return
        key = body[6:]
        if (version := stream.versions.get(key)) is None:
            version = self._version(stream, parse(body, self.where, mariadb=self._mariadb))
            stream.versions[key] = version
        self._tables[number] = self._last = (stream, *version)

    def _version(self, stream: Stream, table: TableMap) -> tuple[TableMap, Shape]:
        definition = stream.definition
        if stream.versions or {column.name for column in table.columns} != set(definition.sql_types):
            # Where it is dropped or renamed since, a statement further on in the log says so.
            with suppress(NotFoundError):
                stream.definition = definition = self._define(definition)
        return table, shape(table, definition)

    def rows(self, event: Event, transaction: Transaction) -> None:
        """Take in rows."""
        data = event.data
        number = int.from_bytes(data[HEADER_SIZE : HEADER_SIZE + 6], "little")
        known = self._tables.get(number)
        if known is None:
            if number not in self._tables:
                raise EngineError("rows of the binlog come without a description of their table", where=self.where)
            return
        stream, table, version = known
        if transaction.pos <= stream.joined:
            return
        if self.skipped:
            self._was_skipped = True
            return
        kind, present, found = images(event, len(table.columns), self.where)
        pending = stream.rows
        if pending is not None and (
            pending.shape is not version or pending.present != present or pending.full
            or len(pending.data) + len(found) > 1 << 30 or (len(present) > 1 and pending.kinds[0] != kind)
        ):  # fmt: skip
            self.decode(stream)
            pending = None
        if pending is None:
            pending = stream.rows = Rows(version, present)
        pending.add(kind, found, transaction)

    def decode(self, stream: Stream) -> None:
        """Decode what waits of one stream."""
        if (pending := stream.rows) is not None and pending.starts:
            stream.rows, stream.yielded = None, pending.transactions[-1]
            self.ready.append(stream.streamed.changes(pending))

    def flush(self) -> None:
        """Decode all that waits."""
        for stream in self.streams:
            self.decode(stream)

    def take(self) -> list[Changes]:
        """Return what is decoded, and keep it no longer."""
        taken, self.ready = self.ready, []
        return taken

    def undo(self, transaction: Transaction) -> None:
        """Forget the rows of a transaction that was not committed.

        Raises:
            EngineError: some of them have been given away.
        """
        for stream in self.streams:
            if stream.yielded is transaction:
                raise EngineError(
                    f"the transaction at {transaction.pos} was taken back after rows of it had been read",
                    where=f"stream {stream.definition.name}, {self.where}",
                    fix="read the stream anew: etl capture resnapshot",
                )
            if stream.rows is not None and stream.rows.drop(transaction):
                stream.rows = None

    def statement(self, text: str, database: str, transaction: Transaction) -> None:
        """Take in a statement that is logged as text.

        Raises:
            LogLostError: it has changed a followed table in a way that the log does not tell.
        """
        for stream in self.streams:
            definition = stream.definition
            if transaction.pos <= stream.joined or stream.streamed.repeats(transaction):
                continue
            means = meaning(text, database, (definition.database, definition.table), folded=self._folded)
            if means == "truncate":
                self.decode(stream)
                self.ready.append(stream.streamed.truncated(definition, transaction))
            elif means == "broken":
                raise LogLostError(
                    f"a statement changed table {definition.database}.{definition.table} as a whole, and the log does"
                    f" not tell what is in it now: {' '.join(text.split())[:200]}",
                    where=f"stream {definition.name}, {transaction.xid}, {self.where}",
                    fix="read the stream anew: etl capture resnapshot; statements that change rows have to be logged"
                    " as rows (binlog_format=ROW)",
                )
