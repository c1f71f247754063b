"""What is known about a stream of MySQL before it is read, and the query that reads it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.hints import nearest
from etl_resources.mysql_sql import literal, quote
from etl_resources.source import Incremental, Stream, Window
from etl_resources.sources.mysql_columns import Column, describe
from etl_resources.tables import split_name

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.mysql_session import Session
    from etl_resources.sources.mysql import MysqlStreamOptions
    from etl_resources.sources.mysql_horizon import Horizon


@dataclass(frozen=True)
class Plan:
    """`relation` is quoted, or a query in brackets; `conditions` are those of the window."""

    relation: str
    columns: list[Column]
    conditions: list[str]
    cursor: Column | None
    where: str

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the records."""
        import pyarrow as pa

        return pa.schema([(column.name, column.arrow) for column in self.columns])

    @property
    def selected(self) -> list[Column]:
        """The columns, and last the cursor if it is not among them."""
        hidden = [self.cursor] if self.cursor is not None and self.cursor not in self.columns else []
        return [*self.columns, *hidden]

    def query(self, conditions: list[str]) -> str:
        """Return the SELECT of the selected columns of the rows that meet all conditions."""
        selected = ", ".join(f"{c.select} AS {quote(c.name)}" for c in self.selected)
        query = f"SELECT {selected} FROM {self.relation} AS t"  # noqa: S608 - all names are quoted
        return query + (" WHERE " + " AND ".join(f"({c})" for c in conditions) if conditions else "")


def make_plan(session: Session, stream: Stream, options: MysqlStreamOptions, database: str) -> Plan:
    """Look up the table and its columns.

    Raises:
        NotFoundError: the table or a column is not there; names the nearest.
        ConfigurationError: the options do not go together.
    """
    where = f"stream {stream.name}, {session.where}"
    cursor_name = stream.capture.cursor if isinstance(stream.capture, Incremental) and not stream.window else None
    if options.table is not None:
        relation = _find_table(session, options.table, database, where)
    elif cursor_name is not None:
        raise ConfigurationError(
            "a query cannot be captured incrementally: the rows that open transactions have yet to bring may be any",
            where=where, fix="give the `table`, or capture: {snapshot: {}}",
        )  # fmt: skip
    else:
        relation = "(\n" + (options.query or "").strip().rstrip(";") + "\n)"
    found = {column.name: column for column in describe(session, relation, options.tinyint1)}
    names = {name.lower(): name for name in found}

    def column(name: str) -> Column:
        # MySQL takes no notice of upper and lower case in names of columns.
        if (known := names.get(name.lower())) is None:
            raise NotFoundError(f"there is no column {name}", where=where, fix=nearest(name, found))
        return found[known]

    columns = [column(name) for name in options.columns or found]
    conditions = [_in_window(stream.window, column(stream.window.column))] if stream.window else []
    if options.parallel is not None:
        _check_integer(column(options.parallel.column), where)
    return Plan(relation, columns, conditions, column(cursor_name) if cursor_name else None, where)


def _check_integer(column: Column, where: str) -> None:
    import pyarrow as pa

    if not pa.types.is_integer(column.arrow) and column.arrow != pa.decimal128(20, 0):
        raise ConfigurationError(
            f"column {column.name} is of type {column.arrow}",
            where=where,
            fix="cut by an integer, or leave out `parallel`",
        )


def new_rows(cursor: Column, earlier: Horizon) -> list[str]:
    """Return the conditions for the rows that may not have been seen: those without a cursor always count."""
    import pyarrow as pa

    if earlier.low is None:
        return []
    own, low = f"t.{quote(cursor.name)}", earlier.low
    if isinstance(low, int):
        return [f"{own} >= {low} OR {own} IS NULL"]
    # Zero dates are no dates either; a DATE is compared as what it is, so that an index on it can be used.
    bound = low.date().isoformat() if pa.types.is_date(cursor.arrow) else low.isoformat(" ", "microseconds")
    return [f"{own} >= {literal(bound)} OR {own} IS NULL OR {own} < '1000-01-01'"]


def _find_table(session: Session, name: str, database: str, where: str) -> str:
    """Return the quoted name of a table or view."""
    schema, table = split_name(name)
    rows = session.rows(
        "SELECT table_schema, table_name FROM information_schema.tables"  # noqa: S608 - a literal
        " WHERE table_schema NOT IN ('mysql', 'performance_schema', 'sys', 'information_schema')"
        f" OR table_schema = {literal(schema or database)}"
    )
    folded = session.value("SELECT @@lower_case_table_names") != 0
    for its_schema, its_name in rows:
        same = its_name == table or (folded and its_name.lower() == table.lower())
        if same and its_schema == (schema or database):
            return quote(its_schema, its_name)
    names = [f"{s}.{t}" for s, t in rows] if schema else [t for s, t in rows if s == database]
    raise NotFoundError(f"there is no table {name}", where=where, fix=nearest(name, names) or "check the table name")


def _in_window(window: Window, column: Column) -> str:
    """Return the condition for rows in the window; times without a zone are taken for UTC."""
    import pyarrow as pa

    if not (pa.types.is_timestamp(column.arrow) or pa.types.is_date(column.arrow)):
        raise ConfigurationError(f"column {column.name} is of type {column.arrow}", fix="partition by a date or time")
    start, end = (
        (t if t.tzinfo else t.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None).isoformat(" ")
        for t in (window.start, window.end)
    )
    # A date is compared as its first moment, so that windows shorter than a day do not all contain it.
    own = f"t.{quote(column.name)}"
    return f"{own} >= TIMESTAMP {literal(start)} AND {own} < TIMESTAMP {literal(end)}"
