"""From where to where an incremental read goes.

By a `rowversion` column: the server gives every row that is written a number that only grows, database-wide. The number
is given when the row is written, and seen when its transaction commits, so `> last` would lose what commits late.
MIN_ACTIVE_ROWVERSION() is the lowest number that a transaction still in progress has; everything below it is final. A
read takes that bound *before* its first row, gives the rows in [previous bound, bound), and the next one begins there:

- a row below the bound was committed when the read began, so the read sees it, or a later version of it;
- a row that is written again during or after the read gets a number above the bound, and is the next read's;
- hence nothing is missed and nothing comes twice, whatever the isolation level, short of READ UNCOMMITTED.

By any other column the server can tell no such thing: a row may appear behind the newest value at any time. So the user
promises with `late_by` how far behind at the most; every read goes back that far, and what was read before is
recognised by its content (`sqlserver_seen`). Rows without a value, and those with a time that has not come yet, have
no place in that order: every read looks at them, and they are recognised in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError, EtlError, NotFoundError
from etl_resources.sqlserver_sql import literal, quote

if TYPE_CHECKING:
    from etl_resources.sources.sqlserver_columns import Column
    from etl_resources.sqlserver_session import Session

_FULL = "read the stream anew from the start (full refresh): what was missed in between cannot be known"
_NO_VERSION = "0x0000000000000000"


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the row versions of a database are final."""

    version: str
    """`0x` and sixteen digits."""
    fork: str | None
    """Changes when the database is restored to an earlier time: its row versions may then be used again."""

    def to_position(self, cursor: Column | None) -> dict[str, Any]:
        """Return it as JSON-serialisable data; `cursor` is None where everything below the mark was read."""
        return {"rowversion": self.version, "fork": self.fork, "cursor": cursor.name if cursor is not None else None}

    def check_follows(self, earlier: Mapping[str, Any], where: str) -> None:
        """Make sure that this is the same history of the same database, later.

        Raises:
            NotFoundError: it is another one.
        """
        what = ""
        if earlier.get("fork") != self.fork and None not in (earlier.get("fork"), self.fork):
            what = "this is another database than the one read before, or it was restored to an earlier time"
        elif int(str(earlier.get("rowversion", _NO_VERSION)), 16) > int(self.version, 16):
            what = f"the row versions went back from {earlier['rowversion']} to {self.version}: it was restored"
        if what:
            raise NotFoundError(f"{what}; the position is not there any more", where=where, fix=_FULL)


def take_mark(session: Session) -> Mark:
    """Return the mark of now. What is below it is seen by every statement that begins later."""
    version = bytes(session.value("SELECT MIN_ACTIVE_ROWVERSION()"))
    try:
        fork = session.value(
            "SELECT CAST(recovery_fork_guid AS nvarchar(36)) FROM sys.database_recovery_status"
            " WHERE database_id = DB_ID()"
        )
    except EtlError as error:
        if error.transient:
            raise
        fork = None  # Azure SQL Database does not show it, and whoever may not see it gets no row
    return Mark(f"0x{version.hex()}", fork)


def between_versions(cursor: Column, since: Mapping[str, Any] | None, mark: Mark) -> list[str]:
    """Return the conditions for the rows in [previous mark, mark); a snapshot read all that was below its own.

    Raises:
        ConfigurationError: the position was made with another cursor.
    """
    own = f"t.{quote(cursor.name)}"
    conditions = [f"{own} < {mark.version}"]
    if since is not None:
        if since.get("cursor") not in {cursor.name, None}:
            raise _other_cursor(cursor, since)
        conditions.append(f"{own} >= {since['rowversion']}")
    return conditions


@dataclass(frozen=True, slots=True)
class Reach:
    """What a read by an ordinary column looks at, and from where on the next one will look again."""

    newest: str | None
    """The newest value that was ever seen, as text; None: there was none."""
    conditions: tuple[str, ...]
    again: str
    """Expression: 1 for rows that the next read will look at again, else 0."""


def reach(session: Session, relation: str, cursor: Column, late_by: int, since: Mapping[str, Any] | None) -> Reach:
    """Return how far a read that begins now goes."""
    own = f"t.{quote(cursor.name)}"
    unordered = f"{own} IS NULL"
    if cursor.is_time:
        unordered += f" OR {own} > {_value(cursor, _now(session, cursor))}"
    before = since.get("newest") if since is not None else None
    newest = f"MAX({own})"
    if before is not None:
        # Never back, even if the newest rows were deleted: what lies behind it was read, and is not remembered.
        newest = f"CASE WHEN {newest} > {_value(cursor, before)} THEN {newest} ELSE {_value(cursor, before)} END"
    text = session.value(
        f"SELECT CAST({_exact(cursor, newest)} AS nvarchar(48)) FROM {relation} AS t WHERE NOT ({unordered})"  # noqa: S608 - quoted
    )
    if text is None:
        return Reach(None, (), "1")
    conditions = [f"{own} <= {_value(cursor, text)} OR {unordered}"]
    if since is not None and before is not None:
        conditions.append(f"{own} >= {_back(cursor, before, int(since['late_by']))} OR {unordered}")
    again = f"CASE WHEN {own} >= {_back(cursor, text, late_by)} OR {unordered} THEN 1 ELSE 0 END"
    return Reach(text, tuple(conditions), again)


def newest_value(session: Session, relation: str, cursor: Column) -> str | None:
    """Return the newest value of the cursor, as text."""
    own = _exact(cursor, f"MAX(t.{quote(cursor.name)})")
    found = session.value(f"SELECT CAST({own} AS nvarchar(48)) FROM {relation} AS t")  # noqa: S608 - quoted
    return None if found is None else str(found)


def check_cursor(cursor: Column, late_by: int | None, since: Mapping[str, Any] | None, where: str) -> None:
    """Make sure that a stream can be read by this column.

    Raises:
        ConfigurationError: it is no cursor, nothing is promised about it, or the stream was read by another one.
    """
    if cursor.is_version:
        return
    if not cursor.is_time and not cursor.is_number:
        raise ConfigurationError(
            f"column {cursor.name} is of type {cursor.declared}: it is no cursor", where=where,
            fix="name a rowversion column, a time or a whole number",
        )  # fmt: skip
    if late_by is None:
        raise ConfigurationError(
            f"column {cursor.name} does not tell when a row was committed: a row that comes late would be lost",
            where=where,
            fix="add a rowversion column to the table and name it as the cursor, or promise with `late_by` how far"
            " behind the newest value a row may appear",
        )
    if since is not None and since.get("cursor") != cursor.name:
        raise _other_cursor(cursor, since)


def _other_cursor(cursor: Column, since: Mapping[str, Any]) -> ConfigurationError:
    read = f"by {since['cursor']}" if since.get("cursor") else "as a snapshot"
    return ConfigurationError(f"the stream was read {read} so far, and is now to be read by {cursor.name}", fix=_FULL)


def _now(session: Session, cursor: Column) -> str:
    """Return the time as text: what is beyond it has no place in the order yet, and must not push up the bound."""
    if cursor.type_name == "datetimeoffset":
        return str(session.value("SELECT CAST(SYSDATETIMEOFFSET() AS nvarchar(48))"))
    # Without a zone it may be local time or UTC: the later of them counts.
    ((here, utc),) = session.rows(
        "SELECT CAST(SYSDATETIME() AS nvarchar(48)), CAST(SYSUTCDATETIME() AS nvarchar(48))"
    )  # fmt: skip
    return max(str(here), str(utc))


def _exact(cursor: Column, expression: str) -> str:
    """Return an expression whose text is exact: that of a datetime ends at the minute."""
    return f"CAST({expression} AS datetime2(7))" if cursor.type_name in {"datetime", "smalldatetime"} else expression


def _value(cursor: Column, text: str) -> str:
    """Return a text as a value of the cursor's own type, so that an index on it can be used."""
    exact = literal(text) if cursor.type_name != "date" else literal(text[:10])
    return f"CAST({_exact(cursor, exact)} AS {cursor.declared})"


def _back(cursor: Column, text: str, late_by: int) -> str:
    if cursor.is_time:
        start = f"CAST({literal(text)} AS datetime2(7))" if cursor.type_name == "date" else _value(cursor, text)
        return f"DATEADD(second, -{late_by}, {start})"
    number = int(text) - late_by
    return f"CAST({number} AS {'bigint' if -(2**63) <= number < 2**63 else 'decimal(38, 0)'})"
