"""What is known about a stream before it is read, and the query that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.hints import nearest
from etl_resources.source import Incremental, Stream
from etl_resources.sqlserver_sql import quote

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.sources.sqlserver import SqlServerStreamOptions
    from etl_resources.sources.sqlserver_columns import Column
    from etl_resources.sqlserver_session import Session


@dataclass(frozen=True)
class Plan:
    """`relation` stands in FROM, `columns` are read in this order, `conditions` are those of a window."""

    relation: str
    columns: list[Column]
    conditions: list[str]
    cursor: Column | None
    split_by: Column | None
    where: str
    verbatim: str | None = None
    """The user's query, where nothing has to be added to it."""

    def schema(self) -> pa.Schema:
        """Return the Arrow schema of the stream."""
        import pyarrow as pa

        return pa.schema([(column.name, column.arrow) for column in self.columns])

    def query(self, conditions: Sequence[str], more: Sequence[str] = ()) -> str:
        """Return the query for the rows under all conditions; `more` are expressions to select after the columns."""
        if self.verbatim is not None and not conditions and not more:
            return self.verbatim
        selected = ", ".join([*(f"{c.select} AS {quote(c.name)}" for c in self.columns), *more])
        where = f" WHERE {' AND '.join(f'({condition})' for condition in conditions)}" if conditions else ""
        return f"SELECT {selected} FROM {self.relation} AS t{where}"  # noqa: S608 - quoted


def make_plan(session: Session, stream: Stream, options: SqlServerStreamOptions, address: str) -> Plan:
    """Ask the server what the stream consists of.

    Raises:
        NotFoundError: a table or column is not there; names the nearest.
        ConfigurationError, EngineError: what else is wrong with it.
    """
    from etl_resources.sources.sqlserver_columns import describe, find_table, in_window

    where = f"stream {stream.name}, {address}"
    query = (options.query or "").strip().rstrip(";")
    if options.table is not None:
        relation = find_table(session, options.table, where)
        described = f"SELECT * FROM {relation} AS t"  # noqa: S608 - quoted
    else:
        relation, described = f"(\n{query}\n)", query
    given = {column.name: column for column in describe(session, described, where)}
    window = stream.window
    cursor = stream.capture.cursor if isinstance(stream.capture, Incremental) and window is None else None
    for name in filter(None, [*(options.columns or ()), cursor, window.column if window else None, options.split_by]):
        if name not in given:
            raise NotFoundError(f"there is no column {name}", where=where, fix=nearest(name, given))
    columns = [given[name] for name in options.columns or given]
    conditions = [in_window(window, given[window.column])] if window else []
    untouched = not options.columns and all(c.select == f"t.{quote(c.name)}" for c in columns)
    plan = Plan(
        relation, columns, conditions, given[cursor] if cursor else None,
        given[options.split_by] if options.split_by else None, where, query if query and untouched else None,
    )  # fmt: skip
    if query[:4].upper() == "WITH" and (plan.verbatim is None or cursor or window or options.split_by):
        raise ConfigurationError(
            "nothing can be added to a query that begins with WITH: T-SQL has no such subquery", where=where,
            fix="make it a view, or write its parts as subqueries",
        )  # fmt: skip
    return plan
