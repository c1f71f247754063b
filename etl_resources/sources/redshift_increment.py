"""The cursor of an incremental read in Redshift's SQL."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from etl_resources.redshift_sql import literal, quote
from etl_resources.sources.cursor_increment import Bounds, Cursor, Value, is_time

if TYPE_CHECKING:
    from etl_resources.redshift_session import Session


def bounds(session: Session, relation: str, cursor: Cursor) -> Bounds:
    """Return the server's time, the largest value of a column of a relation, and how many rows have none.

    A value in the future counts as now: it is not read before its time, and may be of a year that Python has not.
    """
    own = f"t.{quote(cursor.name)}"
    newest = f"LEAST(MAX({own}), GETDATE()::{cursor.kind})" if is_time(cursor) else f"MAX({own})"
    query = f"SELECT GETDATE(), {newest}, COUNT(*) - COUNT({own}), MAX({own}) IS NULL FROM {relation} AS t"  # noqa: S608
    ((now, largest, empty, is_none),) = session.rows(query)
    value = None if is_none == "t" or largest is None else _value(largest, cursor)
    return Bounds(datetime.fromisoformat(now or "").replace(tzinfo=UTC), value, int(empty or 0))


def as_sql(value: Value, kind: str) -> str:
    """Return a value as a literal of a type."""
    return str(value) if isinstance(value, int) else f"{literal(str(value))}::{kind}"


def _value(text: str, cursor: Cursor) -> Value:
    if not is_time(cursor):
        return int(text)
    return date.fromisoformat(text) if cursor.kind == "date" else datetime.fromisoformat(text)
