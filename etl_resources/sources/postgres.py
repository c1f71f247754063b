"""PostgreSQL tables and queries as a source: whole, or what has changed since the last read."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from etl_resources.changes.postgres_settings import PostgresLogCapture
from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.hints import nearest
from etl_resources.postgres import PostgresConnection
from etl_resources.postgres_sql import quote
from etl_resources.read_ahead import read_ahead
from etl_resources.source import (
    Batch,
    Capabilities,
    Estimate,
    Incremental,
    LogCapture,
    Position,
    Source,
    Stream,
    StreamOptions,
)
from etl_resources.sources.postgres_bounds import in_window, is_time, not_later_than
from etl_resources.tables import TableOptions, positioned, split_name

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

    from etl_resources.change_log import ChangeLog, LogTable
    from etl_resources.hashed import HashedTable
    from etl_resources.postgres_session import Session
    from etl_resources.sources.postgres_columns import Column
    from etl_resources.sources.postgres_horizon import Horizon, View

_ROW_BYTES = 128  # what a row is taken to need when `batch_rows` is turned into bytes
_BATCH_BYTES = (1 << 18, 1 << 24)


class PostgresStreamOptions(TableOptions):
    """A table or a query, and how to read it."""

    table: str | None = Field(default=None, description="`table` or `schema.table`, upper and lower case as it is.")
    query: str | None = Field(default=None, description="A SELECT; for views and whatever a table does not give.")
    late_by: int | None = Field(
        default=None, ge=0,
        description="Incremental reads of huge tables: read only rows whose cursor is at most so far (seconds, or steps"
        " of an integer) behind the newest one seen. It is a promise: a row that is committed later than that is lost.",
    )  # fmt: skip
    read_ahead: int = Field(default=2, ge=0, le=64, description="Batches fetched while earlier ones are worked on.")


@dataclass(frozen=True)
class Plan:
    """What is known about a stream before it is read."""

    relation: str
    columns: list[Column]
    conditions: list[str]
    cursor: Column | None
    where: str

    def schema(self) -> pa.Schema:
        """Return the columns."""
        import pyarrow as pa

        return pa.schema([(column.name, column.arrow) for column in self.columns])


class PostgresSource(PostgresConnection, Source):
    """Reads over binary COPY into Arrow, in one consistent snapshot per read, in bounded memory.

    Incremental capture reads every row version written since the last read, whatever its cursor says (see
    `postgres_horizon`); deletes leave no row version and are not seen by it. Streams carry no `_op` and no `_seq`:
    a table tells neither what was done to a row, nor in which order.
    """

    options_type: ClassVar[type[StreamOptions]] = PostgresStreamOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        captures=frozenset({"snapshot", "incremental", "log"}), windows=True
    )
    log_type: ClassVar[type[LogCapture]] = PostgresLogCapture

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the Arrow schema; domains, enums and the like as `postgres_columns` has it."""
        return self._plan(stream).schema()

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield the rows of one snapshot; only the last batch carries a position, except for a window, which has none.

        A snapshot of an empty table is one batch without rows: the table is known to be empty.

        Raises:
            NotFoundError: also where the position belongs to another server or another history of it.
            SchemaConflictError: the table changed while it was read.
        """
        yield from read_ahead(self._read(stream, since, batch_rows), _options(stream).read_ahead)

    def change_log(self, pipeline: str, tables: Sequence[LogTable], capture: LogCapture) -> ChangeLog:
        """Return the log of some tables: a replication slot, see `changes/postgres.py`."""
        from etl_resources.changes.postgres import PostgresLog

        if not isinstance(capture, PostgresLogCapture):
            raise ConfigurationError(f"pipeline {pipeline}: these are not the settings of a PostgreSQL log")
        return PostgresLog(self, pipeline, tables, capture)

    def hashed(self, stream: Stream, key: Sequence[str]) -> AbstractContextManager[HashedTable]:
        """Return a snapshot of the stream whose rows the server hashes."""
        from etl_resources.sources.postgres_hashes import opened

        return opened(self, self._plan(stream), key, _BATCH_BYTES[1])

    def latest(self, stream: Stream) -> Position | None:
        """Return a position that differs from that of the last read if any transaction wrote anything since.

        Of a change log: one that differs whenever a transaction has ended that wrote; nothing is written to find out.
        """
        from etl_resources.sources.postgres_horizon import take

        if isinstance(stream.capture, LogCapture):
            with self.client() as client:
                (seen,) = client.execute("SELECT pg_current_snapshot()::text").fetchall()[0]
            return {"seen": seen}

        plan = self._plan(stream) if _options(stream).late_by is not None else None
        with self.session() as session:
            view = take(session, None)
            return _with_low(view, session, plan).to_position()

    def estimate(self, stream: Stream, since: Position | None) -> Estimate:
        """Return what the server's planner expects the query of `read` to give."""
        plan = self._plan(stream)
        with self.session() as session:
            _, conditions = _limits(stream, plan, session, since)
        with self.client() as client:
            rows = client.execute(f"EXPLAIN (FORMAT JSON) {_query(plan, conditions)}".encode()).fetchall()
        expected = rows[0][0][0]["Plan"]
        return Estimate(expected["Plan Rows"], expected["Plan Rows"] * expected["Plan Width"])

    def _plan(self, stream: Stream) -> Plan:
        from etl_resources.sources.postgres_columns import describe

        options, where = _options(stream), f"stream {stream.name}, {self.address}"
        cursor_name = stream.capture.cursor if isinstance(stream.capture, Incremental) and not stream.window else None
        with self.client() as client:
            if options.table is not None:
                schema, table = _find_table(client, options.table, where, rows_of_its_own=cursor_name is not None)
                relation = quote(schema, table)
            elif cursor_name is not None:
                raise ConfigurationError(
                    "a query cannot be captured incrementally: its rows do not say which transaction wrote them",
                    where=where, fix="give the `table`, or capture: {snapshot: {}}",
                )  # fmt: skip
            else:
                relation = "(\n" + (options.query or "").strip().rstrip(";") + "\n)"
            found = {column.name: column for column in describe(client, relation)}
            followed = isinstance(stream.capture, LogCapture) and options.table is not None
            hidden = _generated(client, relation) if followed else frozenset()
        needed = [*(options.columns or ()), cursor_name, stream.window.column if stream.window else None]
        for name in filter(None, needed):
            if name not in found:
                raise NotFoundError(f"there is no column {name}", where=where, fix=nearest(name, found))
        conditions = [in_window(stream.window, found[stream.window.column])] if stream.window else []
        columns = [found[name] for name in options.columns or found if name not in hidden]
        return Plan(relation, columns, conditions, found[cursor_name] if cursor_name else None, where)

    def _read(self, stream: Stream, since: Position | None, batch_rows: int) -> Generator[Batch, None, None]:
        plan = self._plan(stream)
        with self.session() as session:
            horizon, conditions = _limits(stream, plan, session, since)
            position = None if stream.window else horizon.to_position()
            batches = _batches(session, plan, conditions, batch_rows)
            yield from positioned(batches, position, plan.schema(), keep_empty=plan.cursor is None)


def _limits(stream: Stream, plan: Plan, session: Session, since: Position | None) -> tuple[Horizon, list[str]]:
    """Return how far a read that begins now comes, and the conditions for what it has to give."""
    from etl_resources.sources.postgres_horizon import Horizon, new_rows, take

    earlier = Horizon.from_position(since) if since is not None and plan.cursor is not None else None
    view = take(session, earlier)
    horizon = view.horizon
    conditions = list(plan.conditions)
    if earlier is not None:
        horizon.check_follows(earlier, in_recovery=view.in_recovery, where=plan.where)
    if plan.cursor is not None:
        horizon = _with_low(view, session, plan if _options(stream).late_by is not None else None)
        if condition := new_rows(earlier, view):
            conditions.append(condition)
        conditions += not_later_than(_options(stream).late_by, earlier, plan.cursor)
    return horizon, conditions


def _options(stream: Stream) -> PostgresStreamOptions:
    if not isinstance(stream.options, PostgresStreamOptions):
        raise ConfigurationError(f"stream {stream.name} is not a postgres stream", where=str(stream.options))
    return stream.options


def _find_table(client: psycopg.Connection[Any], name: str, where: str, *, rows_of_its_own: bool) -> tuple[str, str]:
    """Return schema and name of a table or view, and make sure that it has what incremental capture needs."""
    schema, table = split_name(name)
    rows = client.execute(
        "SELECT n.nspname, c.relname, c.relkind::text, pg_table_is_visible(c.oid) FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')"
        " AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
    ).fetchall()
    for its_schema, its_name, kind, visible in rows:
        if its_name == table and (its_schema == schema or (schema is None and visible)):
            if rows_of_its_own and kind not in {"r", "p", "m"}:
                raise ConfigurationError(
                    f"{name} is a view or a foreign table: its rows do not say which transaction wrote them",
                    where=where, fix="name the table behind it, or capture: {snapshot: {}}",
                )  # fmt: skip
            return its_schema, its_name
    names = [f"{s}.{t}" for s, t, _, _ in rows] + [t for _, t, _, visible in rows if visible]
    raise NotFoundError(f"there is no table {name}", where=where, fix=nearest(name, names) or "check the table name")


def _generated(client: psycopg.Connection[Any], relation: str) -> frozenset[str]:
    """Return the columns that the change log does not have."""
    rows = client.execute(
        "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = %s::regclass AND attgenerated <> ''", [relation]
    ).fetchall()
    return frozenset(name for (name,) in rows)


def _with_low(view: View, session: Session, plan: Plan | None) -> Horizon:
    """Return the view's horizon with the newest value of the cursor, which a time in the future must not push up."""
    from dataclasses import replace

    if plan is None or plan.cursor is None:
        return view.horizon
    newest = f"max(t.{quote(plan.cursor.name)})"
    if is_time(plan.cursor):
        newest = f"least({newest}, now())"
    return replace(view.horizon, low=session.value(f"SELECT {newest}::text FROM {plan.relation} AS t"))  # noqa: S608


def select_list(columns: Sequence[Column]) -> str:
    """Return what to select from a relation called `t`, so that `postgres_values.finish` gets what it needs."""
    from etl_resources.sources.postgres_values import GUARD

    selected = [f"{c.select} AS {quote(c.name)}" for c in columns]
    return ", ".join(selected + [f"{c.guard} AS {quote(GUARD + c.name)}" for c in columns if c.guard])


def _query(plan: Plan, conditions: list[str]) -> str:
    query = f"SELECT {select_list(plan.columns)} FROM {plan.relation} AS t"  # noqa: S608 - all names are quoted
    return query + (" WHERE " + " AND ".join(f"({condition})" for condition in conditions) if conditions else "")


def _batches(
    session: Session, plan: Plan, conditions: list[str], batch_rows: int
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch | None]]:
    """Yield records and unreadable records of the query, in its transaction."""
    from etl_resources.sources.postgres_columns import unambiguous
    from etl_resources.sources.postgres_values import finish

    session.rows(unambiguous(local=True))
    least, most = _BATCH_BYTES
    batch_bytes = min(max(batch_rows * _ROW_BYTES, least), most)
    with session.stream(_query(plan, conditions), batch_bytes=batch_bytes) as stream:
        for batch in stream:
            for start in range(0, batch.num_rows, batch_rows):
                yield finish(batch.slice(start, batch_rows), plan.columns, plan.where)


SOURCE = PostgresSource
