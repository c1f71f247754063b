"""How far an incremental read of Snowflake comes: from where the last one ended to what surely has been committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from etl_resources.exceptions import ConfigurationError
from etl_resources.snowflake_sql import literal, quote
from etl_resources.source import Position
from etl_resources.sources.snowflake_columns import TIMES, Column

_STEP = timedelta(microseconds=1)

Value = int | date | datetime
Ask = Callable[[str], tuple[Any, ...]]
"""Runs a query and returns its one row."""


@dataclass(frozen=True)
class Increment:
    """Rows whose cursor is in `[start, end)`; `start` None: from the first on."""

    column: Column
    start: Value | None
    end: Value

    @property
    def is_empty(self) -> bool:
        """Nothing can have come."""
        start: Any = self.start  # of the same type as the end
        return start is not None and start >= self.end

    def conditions(self) -> list[str]:
        """Return what a row of it satisfies, as SQL."""
        own = f"t.{quote(self.column.name)}"
        least = [] if self.start is None else [f"{own} >= {as_sql(self.start, self.column)}"]
        return [*least, f"{own} < {as_sql(self.end, self.column)}"]

    def position(self) -> Position:
        """Return where the next one begins."""
        end = self.end if isinstance(self.end, int) else self.end.isoformat()
        return {"cursor": self.column.name, "kind": self.column.kind, "read_to": end}


def take(ask: Ask, relation: str, column: Column, late_by: int, since: Position | None, where: str) -> Increment | None:
    """Return what there is to read now; None: there is no row at all.

    `late_by` are seconds by the server's clock (steps, for an integer): rows whose cursor is younger wait for a later
    read, as others with a smaller cursor may still be in a transaction that has not ended.

    Raises:
        ConfigurationError: the cursor is of no type that grows, is empty in some rows, or is not that of `since`.
    """
    if column.kind not in TIMES and (column.kind != "FIXED" or getattr(column.arrow, "scale", None)):
        raise ConfigurationError(
            f"column {column.name} is of type {column.kind}", where=where, fix="take a time, a date or an integer"
        )
    own = f"t.{quote(column.name)}"
    now, newest, empty = ask(f"SELECT CURRENT_TIMESTAMP(), MAX({own}), COUNT(*) - COUNT({own}) FROM {relation} AS t")  # noqa: S608
    if empty:
        raise ConfigurationError(
            f"{column.name} is empty in {empty} rows, which would never be read", where=where,
            fix="take a cursor that every row has, a `query` with COALESCE, or capture: {snapshot: {}}",
        )  # fmt: skip
    if newest is None:
        return None
    start = None if since is None else _from_position(since, column, where)
    return Increment(column, start, _end(newest, now, late_by, column))


def as_sql(value: Value, column: Column) -> str:
    """Return a value as a literal of the column's type."""
    if isinstance(value, int):
        return str(value)
    zoned = column.kind in {"TIMESTAMP_LTZ", "TIMESTAMP_TZ"}
    return f"{literal(str(value))}::{'TIMESTAMP_TZ' if zoned else column.kind}"


def in_kind(moment: datetime, column: Column) -> date | datetime:
    """Return a moment as the column has it; without a zone it is UTC."""
    moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    if column.kind == "DATE":
        return moment.date()
    return moment if column.kind != "TIMESTAMP_NTZ" else moment.replace(tzinfo=None)


def _end(newest: Any, now: datetime, late_by: int, column: Column) -> Value:
    if column.kind == "FIXED":
        return int(newest) - late_by + 1
    # The day that `late_by` reaches back to is not over: a date waits until it is.
    settled = in_kind(now - timedelta(seconds=late_by), column)
    behind = newest + timedelta(days=1) if column.kind == "DATE" else in_kind(newest, column) + _STEP
    return min(behind, settled)


def _from_position(position: Position, column: Column, where: str) -> Value:
    if (position.get("cursor"), position.get("kind")) != (column.name, column.kind):
        raise ConfigurationError(
            f"the last read was by {position.get('cursor', 'no cursor')}, not by {column.name} of type {column.kind}",
            where=where, fix="run once with --full-refresh",
        )  # fmt: skip
    given = position["read_to"]
    if column.kind == "FIXED":
        return int(given)
    return date.fromisoformat(given) if column.kind == "DATE" else datetime.fromisoformat(given)
