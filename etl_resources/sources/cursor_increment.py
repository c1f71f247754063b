"""How far an incremental read comes where a server tells nothing about open transactions.

It reads from where the last one ended to what surely has been committed: `late_by` is what the user promises of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from etl_resources.exceptions import ConfigurationError
from etl_resources.source import Position

if TYPE_CHECKING:
    import pyarrow as pa

_STEP = timedelta(microseconds=1)

Value = int | date | datetime


class Cursor(Protocol):
    """A column that grows."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def kind(self) -> str:
        """The server's name of its type."""

    @property
    def arrow(self) -> pa.DataType:
        """Its type in Arrow."""


@dataclass(frozen=True)
class Bounds:
    """What a table says of its cursor: the server's time, the largest value (None: no row) and rows without one."""

    now: datetime
    newest: Any
    empty: int


@dataclass(frozen=True)
class Increment:
    """Rows whose cursor is in `[start, end)`; `start` None: from the first on."""

    cursor: Cursor
    start: Value | None
    end: Value

    @property
    def is_empty(self) -> bool:
        """Nothing can have come."""
        start: Any = self.start  # of the same type as the end
        return start is not None and start >= self.end

    def conditions(self, own: str, as_sql: Callable[[Value], str]) -> list[str]:
        """Return what a row of it satisfies; `own` is the cursor, and `as_sql` a value of it, in SQL."""
        least = [] if self.start is None else [f"{own} >= {as_sql(self.start)}"]
        return [*least, f"{own} < {as_sql(self.end)}"]

    def position(self) -> Position:
        """Return where the next one begins."""
        end = self.end if isinstance(self.end, int) else self.end.isoformat()
        return {"cursor": self.cursor.name, "kind": self.cursor.kind, "read_to": end}


def take(
    bounds: Callable[[], Bounds], cursor: Cursor, late_by: int | None, since: Position | None, where: str
) -> Increment | None:
    """Return what there is to read now; None: there is no row at all.

    `late_by` are seconds by the server's clock (steps, for an integer): rows whose cursor is younger wait for a later
    read, as others with a smaller cursor may still be in a transaction that has not ended.

    Raises:
        ConfigurationError: `late_by` was not given; the cursor is of no type that grows, is empty in some rows, or is
            not that of `since`.
    """
    if late_by is None:
        raise ConfigurationError(
            "an incremental read has to know how late a row may be committed", where=where,
            fix="give `late_by`: the seconds that the longest transaction takes; younger rows wait so long",
        )  # fmt: skip
    if not is_time(cursor) and not _is_whole(cursor):
        raise ConfigurationError(
            f"column {cursor.name} is of type {cursor.kind}", where=where, fix="take a time, a date or an integer"
        )
    found = bounds()
    if found.empty:
        raise ConfigurationError(
            f"{cursor.name} is empty in {found.empty} rows, which would never be read", where=where,
            fix="take a cursor that every row has, a `query` with COALESCE, or capture: {snapshot: {}}",
        )  # fmt: skip
    if found.newest is None:
        return None
    start = None if since is None else _from_position(since, cursor, where)
    return Increment(cursor, start, end_of(found, late_by, cursor))


def end_of(bounds: Bounds, late_by: int, cursor: Cursor) -> Value:
    """Return the first value that is not read: right behind the newest, but not younger than `late_by`."""
    if not is_time(cursor):
        return int(bounds.newest) - late_by + 1
    # The day that `late_by` reaches back to is not over: a date waits until it is.
    settled: Any = in_kind(bounds.now - timedelta(seconds=late_by), cursor)
    newest = bounds.newest
    behind: Any = newest + timedelta(days=1) if _is_date(cursor) else in_kind(newest, cursor) + _STEP
    last: Value = min(behind, settled)
    return last


def in_kind(moment: datetime, cursor: Cursor) -> date | datetime:
    """Return a moment as the column has it; without a zone it is UTC."""
    import pyarrow as pa

    moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    if _is_date(cursor):
        return moment.date()
    has_zone = pa.types.is_timestamp(cursor.arrow) and cursor.arrow.tz is not None
    return moment if has_zone else moment.replace(tzinfo=None)


def is_time(column: Cursor) -> bool:
    """Tell whether a column is a date or a timestamp."""
    import pyarrow as pa

    return pa.types.is_timestamp(column.arrow) or _is_date(column)


def _is_date(column: Cursor) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_date(column.arrow))


def _is_whole(column: Cursor) -> bool:
    import pyarrow as pa

    arrow = column.arrow
    return pa.types.is_integer(arrow) or (pa.types.is_decimal(arrow) and arrow.scale == 0)


def _from_position(position: Position, cursor: Cursor, where: str) -> Value:
    if (position.get("cursor"), position.get("kind")) != (cursor.name, cursor.kind):
        raise ConfigurationError(
            f"the last read was by {position.get('cursor', 'no cursor')}, not by {cursor.name} of type {cursor.kind}",
            where=where, fix="run once with --full-refresh",
        )  # fmt: skip
    given = position["read_to"]
    if not is_time(cursor):
        return int(given)
    return date.fromisoformat(given) if _is_date(cursor) else datetime.fromisoformat(given)
