"""Redshift tables, views and queries as a source: whole, or what has come since the last read."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from etl_resources.exceptions import ConfigurationError, NotFoundError, SchemaConflictError
from etl_resources.hints import nearest
from etl_resources.read_ahead import read_ahead
from etl_resources.redshift import RedshiftConnection
from etl_resources.redshift_sql import quote
from etl_resources.source import (
    Batch,
    Capabilities,
    Estimate,
    Incremental,
    Position,
    Source,
    Stream,
    StreamOptions,
)
from etl_resources.tables import TableOptions, TablePlan, column_named, positioned, split_name
from etl_resources.unloaded import Unload

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.redshift_session import Session
    from etl_resources.sources.cursor_increment import Increment
    from etl_resources.sources.redshift_columns import Column
    from etl_resources.tables import Records

    Plan = TablePlan[Column]


class RedshiftStreamOptions(TableOptions):
    """A table or a query, and how to read it."""

    type: Literal["redshift"] = "redshift"
    late_by: int | None = Field(
        default=None, ge=0,
        description="Incremental reads, which need it: how long a transaction may take, in seconds (steps, of an"
        " integer). Younger rows wait for a later read. It is a promise: a row that is committed later is lost.",
    )  # fmt: skip
    unload: Unload | None = Field(
        default=None, description="`{to: s3://bucket/prefix}`: the result is written there by UNLOAD, read and removed."
    )
    read_ahead: int = Field(default=2, ge=0, le=64, description="Batches fetched while earlier ones are worked on.")


class RedshiftSource(RedshiftConnection, Source):
    """Reads results over the wire into Arrow, or by way of S3 where the stream says `unload`, in bounded memory.

    Streams carry no `_op` and no `_seq`: a table tells neither what was done to a row, nor in which order.
    """

    options_type: ClassVar[type[StreamOptions]] = RedshiftStreamOptions
    capabilities: ClassVar[Capabilities] = Capabilities(captures=frozenset({"snapshot", "incremental"}), windows=True)

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the Arrow schema, as `redshift_columns` has it."""
        with self.session() as session:
            return self._plan(stream, session).schema()

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield the rows of one query, which sees one moment; only the last batch carries a position.

        A snapshot of an empty table is one batch without rows: the table is known to be empty.

        Raises:
            SchemaConflictError: the table changed while it was read.
            RowsNotConservedError: fewer or more rows came out of S3 than the server says it wrote.
        """
        yield from read_ahead(self._read(stream, since, batch_rows), _options(stream).read_ahead)

    def latest(self, stream: Stream) -> Position | None:
        """Return where an incremental read would end now; None for snapshots."""
        with self.session() as session:
            increment = _increment(stream, self._plan(stream, session), session, None)
            return increment.position() if increment else None

    def estimate(self, stream: Stream, since: Position | None) -> Estimate:
        """Return what the server's planner expects the query of `read` to give."""
        with self.session() as session:
            plan = self._plan(stream, session)
            increment = _increment(stream, plan, session, since)
            if plan.cursor is not None and (increment is None or increment.is_empty):
                return Estimate(0)
            selected = ", ".join(c.select for c in plan.columns)
            rows = session.rows("EXPLAIN " + plan.query(selected, plan.conditions + _in_increment(increment)))
        expected = re.search(r"rows=(\d+) width=(\d+)", rows[0][0] or "")
        return Estimate(*(int(expected[1]), int(expected[1]) * int(expected[2])) if expected else ())

    def _read(self, stream: Stream, since: Position | None, batch_rows: int) -> Generator[Batch, None, None]:
        with self.session() as session:
            plan = self._plan(stream, session)
            increment = _increment(stream, plan, session, since)
            if plan.cursor is not None and (increment is None or increment.is_empty):
                return
            position = increment.position() if increment else None
            if plan.cursor is None and stream.window is None:
                position = {"read_at": session.rows("SELECT GETDATE()")[0][0]}
            conditions = plan.conditions + _in_increment(increment)
            records = self._records(session, plan, conditions, _options(stream).unload, batch_rows)
            yield from positioned(records, position, plan.schema(), keep_empty=plan.cursor is None)

    def _records(
        self, session: Session, plan: Plan, conditions: list[str], unload: Unload | None, batch_rows: int
    ) -> Iterator[Records]:
        from etl_resources.sources.redshift_unload import unloaded
        from etl_resources.sources.redshift_values import from_files

        if unload is None:
            yield from _over_the_wire(session, plan, conditions, batch_rows)
            return
        query = plan.query(", ".join(f"{c.unload} AS {quote(c.name)}" for c in plan.columns), conditions)
        for table in unloaded(
            session, query, unload, self.store, self.iam_role, where=plan.where, batch_rows=batch_rows
        ):
            yield from_files(table, plan.columns, plan.where)

    def _plan(self, stream: Stream, session: Session) -> Plan:
        from etl_resources.sources.redshift_columns import columns_of

        options, where = _options(stream), f"stream {stream.name}, {self.address}"
        if options.table is not None:
            schema, table = split_name(options.table)
            relation = quote(schema, table) if schema else quote(table)
        else:
            relation = "(\n" + (options.query or "").strip().rstrip(";") + "\n)"
        try:
            found = columns_of(session.fields(f"SELECT * FROM {relation} AS t LIMIT 0"), where)  # noqa: S608 - quoted
        except NotFoundError as error:
            raise (_no_table(options.table, session, where) if options.table else error) from None
        by_cursor = isinstance(stream.capture, Incremental) and not stream.window
        cursor = column_named(stream.capture.cursor, found, where) if by_cursor else None  # type: ignore[union-attr]
        columns = found if options.columns is None else [column_named(n, found, where) for n in options.columns]
        return TablePlan(relation, columns, _in_window(stream, found, where), cursor, where)


def _over_the_wire(session: Session, plan: Plan, conditions: list[str], batch_rows: int) -> Iterator[Records]:
    from etl_resources.redshift_wire import Block
    from etl_resources.sources.redshift_columns import columns_of
    from etl_resources.sources.redshift_values import from_wire

    selected = ", ".join(f"{c.select} AS {quote(c.name)}" for c in plan.columns)
    for part in session.stream(plan.query(selected, conditions), rows=batch_rows):
        if isinstance(part, Block):
            yield from_wire(part.columns(len(plan.columns), plan.where), plan.columns, plan.where)
            continue
        kinds = [c.kind for c in columns_of(part, plan.where)]
        if kinds != [c.kind if c.kind != "real" else "double precision" for c in plan.columns]:
            raise SchemaConflictError("the columns changed while they were read", where=plan.where, fix="run again")


def _options(stream: Stream) -> RedshiftStreamOptions:
    if not isinstance(stream.options, RedshiftStreamOptions):
        raise ConfigurationError(f"stream {stream.name} is not a redshift stream", where=str(stream.options))
    return stream.options


def _no_table(name: str, session: Session, where: str) -> NotFoundError:
    """Return the error to raise for a table that is not there, with the names that are near."""
    rows = session.rows(
        "SELECT table_schema, table_name FROM information_schema.tables"
        " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
    )
    there = [n for schema, table in rows for n in (table or "", f"{schema}.{table}")]
    hint = nearest(name, there) or "check the name, and what the user may see"
    return NotFoundError(f"there is no table {name}, or the user may not see it", where=where, fix=hint)


def _increment(stream: Stream, plan: Plan, session: Session, since: Position | None) -> Increment | None:
    from etl_resources.sources.cursor_increment import take
    from etl_resources.sources.redshift_increment import bounds

    if plan.cursor is None:
        return None
    asked = partial(bounds, session, plan.relation, plan.cursor)
    return take(asked, plan.cursor, _options(stream).late_by, since, plan.where)


def _in_increment(increment: Increment | None) -> list[str]:
    from etl_resources.sources.redshift_increment import as_sql

    if increment is None:
        return []
    cursor = increment.cursor
    return increment.conditions(f"t.{quote(cursor.name)}", partial(as_sql, kind=cursor.kind))


def _in_window(stream: Stream, columns: list[Column], where: str) -> list[str]:
    """Return the conditions for rows in the window; times without a zone are taken for UTC."""
    from dataclasses import replace

    import pyarrow as pa

    from etl_resources.sources.cursor_increment import in_kind, is_time
    from etl_resources.sources.redshift_increment import as_sql

    if (window := stream.window) is None:
        return []
    column = column_named(window.column, columns, where)
    if not is_time(column):
        raise ConfigurationError(
            f"column {column.name} is of type {column.kind}", where=where, fix="partition by a time"
        )
    if column.kind == "date":  # compared as its first moment, so that windows shorter than a day do not all contain it
        column = replace(column, kind="timestamp", arrow=pa.timestamp("us"))
    start, end = (as_sql(in_kind(moment, column), column.kind) for moment in (window.start, window.end))
    return [f"t.{quote(column.name)} >= {start}", f"t.{quote(column.name)} < {end}"]


SOURCE = RedshiftSource
