"""The cursor of an incremental read in Snowflake's SQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from etl_resources.snowflake_sql import literal, quote
from etl_resources.sources.cursor_increment import Bounds, Cursor, Value

Ask = Callable[[str], tuple[Any, ...]]
"""Runs a query and returns its one row."""


def bounds(ask: Ask, relation: str, cursor: Cursor) -> Bounds:
    """Return the server's time, the largest value of a column of a relation, and how many rows have none."""
    own = f"t.{quote(cursor.name)}"
    return Bounds(*ask(f"SELECT CURRENT_TIMESTAMP(), MAX({own}), COUNT(*) - COUNT({own}) FROM {relation} AS t"))  # noqa: S608


def as_sql(value: Value, kind: str) -> str:
    """Return a value as a literal of a type."""
    if isinstance(value, int):
        return str(value)
    zoned = kind in {"TIMESTAMP_LTZ", "TIMESTAMP_TZ"}
    return f"{literal(str(value))}::{'TIMESTAMP_TZ' if zoned else kind}"
