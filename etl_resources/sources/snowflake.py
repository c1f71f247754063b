"""Source `snowflake`: tables, views and queries, whole or what has come since the last read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from etl_resources.exceptions import ConfigurationError, NotFoundError, RowsNotConservedError
from etl_resources.hints import nearest
from etl_resources.read_ahead import read_ahead
from etl_resources.snowflake import SnowflakeConnection
from etl_resources.snowflake_sql import quote, resolved
from etl_resources.source import (
    Batch,
    Capabilities,
    Estimate,
    Incremental,
    Position,
    Source,
    Stream,
    StreamOptions,
    Window,
)
from etl_resources.sources.cursor_increment import in_kind, is_time, take
from etl_resources.tables import TableOptions, TablePlan, column_named, positioned
from etl_resources.unloaded import ObjectStore, Unload

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.sources.cursor_increment import Increment
    from etl_resources.sources.snowflake_columns import Column

    Plan = TablePlan[Column]


class SnowflakeStreamOptions(TableOptions):
    """A table or a query, and how to read it."""

    type: Literal["snowflake"] = "snowflake"
    table: str | None = Field(
        default=None, description="`table`, `schema.table` or `database.schema.table`, in quotes where SQL needs them."
    )
    columns: tuple[str, ...] | None = Field(
        default=None, description="Only these columns, in this order; in any case if there is but one of that name."
    )
    late_by: int | None = Field(
        default=None, ge=0,
        description="Incremental reads, which need it: how long a transaction may take, in seconds (steps, of an"
        " integer). Younger rows wait for a later read. It is a promise: a row that is committed later is lost.",
    )  # fmt: skip
    integers: Literal["exact", "int64"] = Field(
        default="exact",
        description="NUMBER of more than 18 digits and no scale, as INT and BIGINT are: decimals, or 64 bits.",
    )
    unload: Unload | None = Field(
        default=None,
        description="`{to: s3://bucket/prefix}`: the result is written there by COPY INTO, read and removed.",
    )
    read_ahead: int = Field(default=2, ge=1, le=10, description="Parts fetched while earlier ones are worked on.")


class SnowflakeSource(SnowflakeConnection, Source):
    """Reads results in the parts that Snowflake makes of them, as Arrow, a few parts at a time in memory.

    Streams carry no `_op` and no `_seq`: a table tells neither what was done to a row, nor in which order.
    """

    storage_integration: str | None = Field(
        default=None, description="For `unload`: the integration by which Snowflake writes to S3."
    )
    store: ObjectStore = Field(default=ObjectStore(), description="For `unload`: how this machine reaches the objects.")

    options_type: ClassVar[type[StreamOptions]] = SnowflakeStreamOptions
    capabilities: ClassVar[Capabilities] = Capabilities(captures=frozenset({"snapshot", "incremental"}), windows=True)

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the Arrow schema, as `snowflake_columns` has it."""
        with self._opened(stream) as cursor:
            return self._plan(stream, cursor).schema()

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield the rows of one query, which sees one moment; only the last batch carries a position.

        A snapshot of an empty table is one batch without rows: the table is known to be empty.

        Raises:
            SchemaConflictError: the table changed while it was read, or a number does not fit into 64 bits.
            RowsNotConservedError: fewer or more rows came than the server said there are.
        """
        with self._opened(stream) as cursor:
            plan = self._plan(stream, cursor)
            increment = self._increment(stream, plan, cursor, since)
            if plan.cursor is not None and (increment is None or increment.is_empty):
                return
            conditions = plan.conditions + _in_increment(increment)
            parts = self._parts(stream, plan, conditions, cursor, batch_rows)
            position = increment.position() if increment else None if stream.window else {"query_id": cursor.sfqid}
            parted = ((part, None) for part in parts)
            yield from positioned(parted, position, plan.schema(), keep_empty=plan.cursor is None)

    def latest(self, stream: Stream) -> Position | None:
        """Return where an incremental read would end now; None for snapshots."""
        with self._opened(stream) as cursor:
            plan = self._plan(stream, cursor)
            increment = self._increment(stream, plan, cursor, None)
            return increment.position() if increment else None

    def estimate(self, stream: Stream, since: Position | None) -> Estimate:
        """Return how many rows `read` would give, which Snowflake mostly knows without a scan."""
        with self._opened(stream) as cursor:
            plan = self._plan(stream, cursor)
            increment = self._increment(stream, plan, cursor, since)
            if plan.cursor is not None and (increment is None or increment.is_empty):
                return Estimate(0)
            conditions = plan.conditions + _in_increment(increment)
            return Estimate(int(_ask(cursor, plan.query("COUNT(*)", conditions))[0]))

    def _parts(
        self, stream: Stream, plan: Plan, conditions: list[str], cursor: Any, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        from etl_resources.sources.snowflake_unload import selected, unloaded

        options = _options(stream)
        if options.unload is None:
            cursor.execute(plan.query(", ".join(f"t.{quote(c.name)}" for c in plan.columns), conditions))
            return _parts(plan, cursor, batch_rows)
        query = plan.query(selected(plan.columns, plan.where), conditions)
        parts = unloaded(
            cursor, query, options.unload, self.store, self.storage_integration, plan.columns, where=plan.where,
            batch_rows=batch_rows,
        )  # fmt: skip
        return read_ahead(parts, options.read_ahead)

    @contextmanager
    def _opened(self, stream: Stream) -> Iterator[Any]:
        """Give a cursor of a connection of its own; what it raises is translated."""
        from etl_resources.snowflake_errors import translated

        ahead, where = _options(stream).read_ahead, f"stream {stream.name}, {self.address}"
        with self.client(fetches=ahead) as connection, connection.cursor() as cursor, translated(where):
            yield cursor

    def _plan(self, stream: Stream, cursor: Any) -> Plan:
        from etl_resources.snowflake_errors import translated
        from etl_resources.sources.snowflake_columns import describe

        options, where = _options(stream), f"stream {stream.name}, {self.address}"
        if options.table is not None:
            names = resolved(options.table)
            relation = quote(*(self.database, self.default_schema)[: 3 - len(names)], *names)
        else:
            relation = "(\n" + (options.query or "").strip().rstrip(";") + "\n)"
        try:
            with translated(where):
                found = describe(cursor, f"SELECT * FROM {relation} AS t", options.integers)  # noqa: S608 - quoted
        except NotFoundError as error:
            raise (_no_table(options.table, cursor, where) if options.table else error) from None
        by_cursor = isinstance(stream.capture, Incremental) and not stream.window
        cursor_column = column_named(stream.capture.cursor, found, where) if by_cursor else None  # type: ignore[union-attr]
        conditions = _in_window(stream.window, found, where) if stream.window else []
        columns = found if options.columns is None else [column_named(n, found, where) for n in options.columns]
        return TablePlan(relation, columns, conditions, cursor_column, where)

    def _increment(self, stream: Stream, plan: Plan, cursor: Any, since: Position | None) -> Increment | None:
        from etl_resources.sources.snowflake_increment import bounds

        if plan.cursor is None:
            return None
        asked = partial(bounds, partial(_ask, cursor), plan.relation, plan.cursor)
        return take(asked, plan.cursor, _options(stream).late_by, since, plan.where)


def _ask(cursor: Any, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = cursor.execute(query).fetchone()
    return row


def _options(stream: Stream) -> SnowflakeStreamOptions:
    if not isinstance(stream.options, SnowflakeStreamOptions):
        raise ConfigurationError(f"stream {stream.name} is not a snowflake stream", where=str(stream.options))
    return stream.options


def _no_table(name: str, cursor: Any, where: str) -> NotFoundError:
    """Return the error to raise for a table that is not there, with the names that are near."""
    cursor.execute("SELECT table_schema, table_name FROM information_schema.tables")
    there = [name for schema, table in cursor.fetchall() for name in (table, f"{schema}.{table}")]
    hint = nearest(".".join(resolved(name)), there) or "check the name, and what the role may see"
    return NotFoundError(f"there is no table {name}, or the role may not see it", where=where, fix=hint)


def _in_window(window: Window, columns: list[Column], where: str) -> list[str]:
    """Return the conditions for rows in the window; times without a zone are taken for UTC."""
    from etl_resources.sources.snowflake_columns import as_time
    from etl_resources.sources.snowflake_increment import as_sql

    column = column_named(window.column, columns, where)
    if not is_time(column):
        raise ConfigurationError(
            f"column {column.name} is of type {column.kind}", where=where, fix="partition by a time"
        )
    # A date is compared as its first moment, so that windows shorter than a day do not all contain it.
    timed = as_time(column)
    own = f"t.{quote(column.name)}" + ("" if timed is column else f"::{timed.kind}")
    start, end = (as_sql(in_kind(moment, timed), timed.kind) for moment in (window.start, window.end))
    return [f"{own} >= {start}", f"{own} < {end}"]


def _in_increment(increment: Increment | None) -> list[str]:
    from etl_resources.sources.snowflake_increment import as_sql

    if increment is None:
        return []
    cursor = increment.cursor
    return increment.conditions(f"t.{quote(cursor.name)}", partial(as_sql, kind=cursor.kind))


def _parts(plan: Plan, cursor: Any, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the query that was run; the server's own count of them has to agree."""
    from etl_resources.sources.snowflake_columns import conformed

    expected, rows = cursor.rowcount, 0
    for table in cursor.fetch_arrow_batches(force_microsecond_precision=True):
        rows += table.num_rows
        yield from conformed(table, plan.columns, plan.where).to_batches(max_chunksize=batch_rows)
    if rows != expected:
        raise RowsNotConservedError(
            f"Snowflake said that there are {expected} rows, and {rows} came", where=plan.where, fix="run again"
        )


SOURCE = SnowflakeSource
