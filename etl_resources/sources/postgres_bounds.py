"""Conditions that say which rows of a table are read: those of a partition, or those that may have changed."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError
from etl_resources.postgres_sql import literal, quote

if TYPE_CHECKING:
    from etl_resources.source import Window
    from etl_resources.sources.postgres_columns import Column
    from etl_resources.sources.postgres_horizon import Horizon


def in_window(window: Window, column: Column) -> str:
    """Return the condition for rows in the window; times without a zone are taken for UTC."""
    import pyarrow as pa

    zoned = pa.types.is_timestamp(column.arrow) and column.arrow.tz is not None
    if not zoned and not (pa.types.is_timestamp(column.arrow) or pa.types.is_date(column.arrow)):
        raise ConfigurationError(f"column {column.name} is of type {column.arrow}", fix="partition by a date or time")
    # A date is compared as its first moment, so that windows shorter than a day do not all contain it.
    type_name = "timestamptz" if zoned else "timestamp"
    start, end = (
        (t if t.tzinfo else t.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=UTC if zoned else None).isoformat(" ")
        for t in (window.start, window.end)
    )
    own = f"t.{quote(column.name)}"
    return f"{own} >= {type_name} {literal(start)} AND {own} < {type_name} {literal(end)}"


def is_time(column: Column) -> bool:
    """Return whether the column is of a time, and not an integer; anything else cannot be compared with `late_by`."""
    import pyarrow as pa

    if pa.types.is_integer(column.arrow):
        return False
    if pa.types.is_temporal(column.arrow):
        return True
    raise ConfigurationError(
        f"late_by needs a time or an integer, and {column.name} is {column.arrow}", fix="leave it out"
    )


def not_later_than(late_by: int | None, earlier: Horizon | None, cursor: Column) -> list[str]:
    """Return the condition that lets an index on the cursor find the rows; rows without a cursor always count."""
    if late_by is None or earlier is None or earlier.low is None:
        return []
    if is_time(cursor):
        bound = f"{literal(earlier.low)}::timestamptz - {late_by} * interval '1 second'"
    else:
        bound = f"{literal(earlier.low)}::int8 - {late_by}"
    own = f"t.{quote(cursor.name)}"
    return [f"{own} >= {bound} OR {own} IS NULL"]
