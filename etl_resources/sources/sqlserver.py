"""SQL Server tables and queries as a source: whole, or what has changed since the last read."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from etl_resources.exceptions import ConfigurationError
from etl_resources.read_ahead import read_ahead
from etl_resources.source import Batch, Capabilities, Incremental, Position, Source, Stream, StreamOptions
from etl_resources.sqlserver import SqlServerConnection
from etl_resources.tables import TableOptions

if TYPE_CHECKING:
    import pyarrow as pa


class SqlServerStreamOptions(TableOptions):
    """A table or a query, and how to read it."""

    query: str | None = Field(
        default=None, description="A SELECT without ORDER BY; for whatever a table or view does not give."
    )
    late_by: int | None = Field(
        default=None, ge=0, lt=2**31,
        description="For a cursor that is no rowversion: how far behind the newest value a row may appear (seconds, or"
        " steps of a number). It is a promise: a row that is committed later than that is lost.",
    )  # fmt: skip
    parallel: int = Field(default=1, ge=1, le=32, description="Connections that read at the same time.")
    split_by: str | None = Field(
        default=None, description="With `parallel`: column of whole numbers whose ranges are read apart, e.g. the key."
    )
    replaced_text: str = Field(
        default="reject", pattern="^(reject|keep)$",
        description="reject or keep: records with U+FFFD, which may stand for text that is not valid UTF-16.",
    )  # fmt: skip
    read_ahead: int = Field(default=2, ge=0, le=64, description="Batches fetched while earlier ones are worked on.")

    @model_validator(mode="after")
    def _parallel(self) -> SqlServerStreamOptions:
        if (self.parallel > 1) != (self.split_by is not None):
            raise ValueError("`parallel` and `split_by` go together")
        return self


class SqlServerSource(SqlServerConnection, Source):
    """Reads over Microsoft's driver into Arrow, one statement per read, in bounded memory.

    A snapshot is of one moment where the database allows SNAPSHOT isolation. Incremental capture by a rowversion column
    reads every row that was written since the last read (`sqlserver_bounds`); deletes leave nothing to read. Streams
    carry no `_op` and no `_seq`: a table tells neither what was done to a row, nor in which order.
    """

    options_type: ClassVar[type[StreamOptions]] = SqlServerStreamOptions
    capabilities: ClassVar[Capabilities] = Capabilities(captures=frozenset({"snapshot", "incremental"}), windows=True)

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the Arrow schema, as `sqlserver_columns` has it."""
        from etl_resources.sources.sqlserver_plan import make_plan

        with self.session() as session:
            return make_plan(session, stream, _options(stream), self.address).schema()

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield the rows; only the last batch carries a position, except for a window, which has none.

        A snapshot of an empty table is one batch without rows: the table is known to be empty.

        Raises:
            NotFoundError: also where the position belongs to another database or another history of it.
            SchemaConflictError: the table changed while it was read.
        """
        yield from read_ahead(self._read(stream, since, batch_rows), _options(stream).read_ahead)

    def latest(self, stream: Stream) -> Position | None:
        """Return a position that differs from an earlier one if rows were written since; None for a snapshot.

        By a rowversion it also differs when other tables of the database were written.
        """
        from etl_resources.sources.sqlserver_bounds import newest_value, take_mark
        from etl_resources.sources.sqlserver_plan import make_plan

        if not isinstance(stream.capture, Incremental):
            return None
        with self.session() as session:
            plan = make_plan(session, stream, _options(stream), self.address)
            if plan.cursor is None or plan.cursor.is_version:
                return take_mark(session).to_position(plan.cursor)
            return {"cursor": plan.cursor.name, "newest": newest_value(session, plan.relation, plan.cursor)}

    def _read(self, stream: Stream, since: Position | None, batch_rows: int) -> Generator[Batch, None, None]:
        from etl_resources.sources.sqlserver_plan import make_plan
        from etl_resources.sources.sqlserver_reading import Reading

        options = _options(stream)
        with self.session() as session:
            plan = make_plan(session, stream, options, self.address)
            reading = Reading(session, self.session, plan, options, batch_rows)
            if stream.window is not None or plan.cursor is None:
                yield from reading.whole(with_position=stream.window is None)
            elif plan.cursor.is_version:
                yield from reading.by_version(plan.cursor, since)
            else:
                yield from reading.by_cursor(plan.cursor, since)


def _options(stream: Stream) -> SqlServerStreamOptions:
    if not isinstance(stream.options, SqlServerStreamOptions):
        raise ConfigurationError(f"stream {stream.name} is not a sqlserver stream", where=str(stream.options))
    return stream.options


SOURCE = SqlServerSource
