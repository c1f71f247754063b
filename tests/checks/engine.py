"""A DuckDB connection and tables for the tests of rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etl_checks.rules import Kind, Rule, Threshold
from etl_resources.engines.duckdb import quote

if TYPE_CHECKING:
    import duckdb

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)


@contextmanager
def connected() -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def table(
    connection: duckdb.DuckDBPyConnection, name: str, types: dict[str, str], rows: Sequence[Sequence[Any]]
) -> str:
    """Create a table and return it as a relation."""
    columns = ", ".join(f"{quote(column)} {kind}" for column, kind in types.items())
    connection.execute(f"CREATE OR REPLACE TABLE {quote(name)} ({columns})")
    casts = ", ".join(f"CAST(? AS {kind})" for kind in types.values())
    for row in rows:
        connection.execute(f"INSERT INTO {quote(name)} VALUES ({casts})", list(row))
    return quote(name)


def rule(kind: Kind, *columns: str, named: str = "", threshold: Threshold | None = None, **params: Any) -> Rule:
    of_table = kind in ("unique", "row_count", "freshness")
    return Rule(
        id=named or f"{kind}.{'+'.join(columns)}",
        kind=kind,
        columns=columns,
        scope="table" if of_table else "row",
        severity="error",
        on_fail="fail" if of_table else "reject",
        description=kind,
        params=params,
        threshold=threshold or Threshold(),
    )
