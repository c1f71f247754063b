"""Up to where a table has been read: below which value of its cursor every row has been committed, and seen.

A cursor column alone cannot say that. A statement takes its `updated_at` or its serial number when it starts, and its
row appears when its transaction commits, perhaps much later: *behind* rows with a greater cursor that were read in
between. MySQL does not tell which transaction wrote a row. It tells which transactions are open, and what runs:

1. `mark` = the cursor that a statement which starts now would write, or less: for TIMESTAMP the time; for whatever
   else the greatest value there is (and no later than the server's own time).
2. All connections with a running statement, then all transactions that have written, are listed. Whatever writes later
   a cursor below the mark must be among them: its statement had started.
3. The list is asked for again until all that was on it has ended, for `settle` seconds at the most.
4. A consistent snapshot begins, and the table is read in it.

Hence all rows below `low` are in the snapshot, where `low` is the mark, or for what has not ended the mark of the read
before the one that saw it first. The next read takes all rows from `low` on, and leaves out those that it remembers
(`mysql_seen`). Nothing is missed and nothing comes twice, as long as a statement writes no cursor from before its own
start; for applications that do, `late_by` moves `low` further back.

INNODB_TRX is a copy that the server makes anew only if nobody has read it for 0.1 s; a listing therefore counts only if
it shows this very query as running. Transactions declared READ ONLY never write, and are not waited for.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from etl_resources.exceptions import ConfigurationError, CredentialsRejectedError, UnavailableError
from etl_resources.mysql_sql import quote

if TYPE_CHECKING:
    from etl_resources.mysql_session import Session
    from etl_resources.sources.mysql_columns import Column

Value = int | datetime
Kind = Literal["integer", "timestamp", "datetime"]
_IDLE = ("Sleep", "Daemon", "Connect", "Binlog Dump", "Binlog Dump GTID", "Slave_IO")
_PAUSE = 0.12  # seconds; the server's copy is 0.1 s old at the least before it is made anew
_FRESH_WITHIN = 30.0
_WRITING = 2**47
"""Transactions that have not written have number 0 (MariaDB) or one from here on (MySQL)."""


@dataclass(frozen=True, slots=True)
class Open:
    """A connection that may be about to commit rows: its transaction that has written, or its running statement."""

    thread: int
    started: str | None
    """When the transaction started, as the server writes it; None: only a statement is known."""
    number: int = 0
    query: int | None = None
    age: float = 0.0
    """Seconds since the start."""
    bound: Value | None = None
    """The cursors that it may still bring are not below this."""

    def later(self, now: Mapping[int, list[Open]]) -> Open | None:
        """Return what has become of it, None: it has ended."""
        for other in now.get(self.thread, ()):
            if self.started is None:
                if other.started is not None:  # the statement has begun a transaction, or has been followed by one
                    return replace(other, bound=self.bound)
                if self.query == other.query:
                    return self
            elif self.started == other.started and (not self.number or self.number == other.number):
                return replace(other, bound=self.bound)
        return None


@dataclass(frozen=True, slots=True)
class Horizon:
    """All rows with a cursor below `low` have been seen; None: there may be such rows of any cursor."""

    low: Value | None
    mark: Value | None
    open: tuple[Open, ...] = ()

    def to_position(self) -> dict[str, Any]:
        """Return it as JSON-serialisable data."""
        still = [[o.thread, o.started, o.number, o.query, _text(o.bound)] for o in self.open]
        return {"low": _text(self.low), "mark": _text(self.mark), "open": still}

    @classmethod
    def from_position(cls, position: Mapping[str, Any], kind: Kind) -> Horizon:
        """Return what `to_position` was made of."""
        still = (Open(t, s, n, q, 0.0, parse(b, kind)) for t, s, n, q, b in position["open"])
        return cls(parse(position["low"], kind), parse(position["mark"], kind), tuple(still))


def kind_of(cursor: Column, where: str) -> Kind:
    """Return what kind of cursor a column makes.

    Raises:
        ConfigurationError: none.
    """
    import pyarrow as pa

    if pa.types.is_integer(cursor.arrow) or cursor.arrow == pa.decimal128(20, 0):
        return "integer"
    if pa.types.is_timestamp(cursor.arrow) or pa.types.is_date(cursor.arrow):
        return "timestamp" if cursor.is_timestamp else "datetime"
    raise ConfigurationError(
        f"the cursor {cursor.name} is of type {cursor.arrow}: values of it do not grow with time",
        where=where, fix="use a date, a time or an integer that is handed out in growing order",
    )  # fmt: skip


def parse(text: Any, kind: Kind) -> Value | None:
    """Return a cursor's value from its text; None for a null, and for a date that no calendar has."""
    if text is None:
        return None
    if kind == "integer":
        return int(text)
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _text(value: Value | None) -> str | None:
    if value is None:
        return None
    return str(value) if isinstance(value, int) else value.isoformat(" ", "microseconds")


def take(
    session: Session, relation: str, cursor: Column, earlier: Horizon | None, *, settle: float, late_by: int | None
) -> Horizon:
    """Take a horizon; a snapshot that begins afterwards holds all rows below it (module docstring).

    Raises:
        ConfigurationError: the user may not see the transactions of others, or the server is a replica.
        UnavailableError: a transaction has been open for too long to know what it wrote.
    """
    kind = kind_of(cursor, session.where)
    session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    mark = _mark(session, relation, cursor, kind)
    try:
        still = _settled(session, settle, late_by)
    except CredentialsRejectedError as error:
        if late_by is None:
            raise ConfigurationError(
                f"{error.what}: without it nobody can tell which rows are still to be committed", where=session.where,
                fix="GRANT PROCESS ON *.* TO the user, or promise with `late_by` how late a row may be committed",
            ) from error  # fmt: skip
        still = []
    session.execute("COMMIT")
    if mark is None:
        return Horizon(None, None, ())
    bounded = tuple(replace(o, bound=_bound(o, earlier, mark, late_by, session.where)) for o in still)
    bounds = [mark, *(found.bound for found in bounded)]
    low = None if None in bounds else _back(min(b for b in bounds if b is not None), late_by)
    # What was complete below the earlier one stays so.
    lows = [value for value in (low, earlier.low if earlier is not None else None) if value is not None]
    return Horizon(max(lows, default=None), mark, bounded)


def _mark(session: Session, relation: str, cursor: Column, kind: Kind) -> Value | None:
    if kind == "timestamp":
        return parse(session.value("SELECT CAST(NOW() AS CHAR)"), kind)
    newest = f"SELECT CAST(MAX(t.{quote(cursor.name)}) AS CHAR) FROM {relation} AS t"  # noqa: S608 - names are quoted
    mark = parse(session.value(newest), kind)
    if isinstance(mark, datetime):
        local = parse(session.value("SELECT CAST(CONVERT_TZ(NOW(), '+00:00', @@global.time_zone) AS CHAR)"), kind)
        mark = min(mark, local) if isinstance(local, datetime) else mark
    return mark


def _back(value: Value, late_by: int | None) -> Value:
    if isinstance(value, int):
        return value - (late_by or 0)
    return max(value, datetime.min + timedelta(seconds=late_by or 0)) - timedelta(seconds=late_by or 0)


def _bound(found: Open, earlier: Horizon | None, mark: Value, late_by: int | None, where: str) -> Value | None:
    """Return what the cursors that a transaction may still bring are not below; None: it may bring any."""
    if earlier is not None:
        now = {found.thread: [found]}
        for known in earlier.open:
            if known.later(now) is not None:
                return known.bound
        # One that no connection holds is prepared (XA), and may have been on the earlier list under its connection.
        return earlier.mark if found.thread else earlier.low
    if isinstance(mark, datetime) and found.thread:
        return mark - timedelta(seconds=found.age)
    if late_by is not None:
        return mark
    raise UnavailableError(
        f"a transaction of connection {found.thread} has been open since before this first read began: nobody can tell"
        " which rows it will bring", where=where,
        fix="end it (a prepared one by XA COMMIT or ROLLBACK) and run again, or promise with `late_by`",
    )  # fmt: skip


def _settled(session: Session, settle: float, late_by: int | None) -> list[Open]:
    """Return what was open at the start and is open still after `settle` seconds."""
    end = time.monotonic() + settle
    pending = [found for every in _look(session, late_by).values() for found in every]
    while pending and time.monotonic() < end:
        time.sleep(_PAUSE)
        now = _look(session, late_by)
        pending = [later for found in pending if (later := found.later(now)) is not None]
    return pending


def _look(session: Session, late_by: int | None) -> dict[int, list[Open]]:
    """Return all that may be about to commit rows, by connection."""
    running = _running(session, late_by)
    listed = _transactions(session)
    # A statement of a transaction that cannot write need not be waited for.
    found = {thread: [statement] for thread, statement in running.items() if thread not in listed}
    for thread, transactions in listed.items():
        for number, started, read_only, age in transactions:
            wrote = 0 < number < _WRITING
            if not read_only and (wrote or thread in running or not thread):
                query = running[thread].query if thread in running else None
                found.setdefault(thread, []).append(Open(thread, started, number if wrote else 0, query, age))
    return found


def _running(session: Session, late_by: int | None) -> dict[int, Open]:
    """Return the statements that run, by connection."""
    own = int(session.value("SELECT CONNECTION_ID()"))
    if session.is_mariadb:
        rows = session.rows(
            "SELECT id, user, command, query_id, time_ms / 1000 FROM information_schema.processlist"  # noqa: S608 - constants
            f" WHERE command NOT IN {_IDLE!r}"
        )
    else:
        rows = [(r[0], r[1], r[4], None, r[5] or 0) for r in session.rows("SHOW FULL PROCESSLIST") if r[4] not in _IDLE]
    if late_by is None and any(user == "system user" for _, user, *_ in rows):
        raise ConfigurationError(
            "this server is a replica: its rows bear the times of another server, which may be long ago",
            where=session.where, fix="read the primary, or promise with `late_by` how far behind the replica may be",
        )  # fmt: skip
    return {
        int(thread): Open(int(thread), None, 0, query, float(seconds or 0) + 2)
        for thread, _, _, query, seconds in rows
        if int(thread) != own
    }


def writers(session: Session) -> list[tuple[int, int]]:
    """Return the open transactions that have written, as connection and number.

    Raises:
        CredentialsRejectedError: the user may not see the transactions of others.
    """
    session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")  # only then is its own listing on the list
    found = _transactions(session)
    session.execute("COMMIT")
    return sorted((thread, t[0]) for thread, listed in found.items() for t in listed if 0 < t[0] < _WRITING)


def _transactions(session: Session) -> dict[int, list[tuple[int, str, bool, float]]]:
    """Return number, start, whether it is declared read only, and age of the transactions of others, by connection."""
    end = time.monotonic() + _FRESH_WITHIN
    # Ages from the listing's own clock; where that has a summer time, they may be an hour short.
    margin = 2 if session.value("SELECT @@system_time_zone") in {"UTC", "GMT"} else 3602
    own = int(session.value("SELECT CONNECTION_ID()"))
    while True:
        token = uuid.uuid4().hex
        rows = session.rows(
            "SELECT trx_mysql_thread_id, trx_id, CAST(trx_started AS CHAR), trx_is_read_only,"  # noqa: S608 - a token
            f" COALESCE(trx_query, '') LIKE '%{token}%',"
            " TIMESTAMPDIFF(SECOND, trx_started, CONVERT_TZ(NOW(), '+00:00', 'SYSTEM'))"
            " FROM information_schema.innodb_trx"
        )
        if any(thread == own and is_this for thread, _, _, _, is_this, _ in rows):
            break
        if time.monotonic() > end:
            raise UnavailableError(
                "the server does not renew INNODB_TRX, because others read it without a pause", where=session.where
            )
        time.sleep(_PAUSE)
    found: dict[int, list[tuple[int, str, bool, float]]] = {}
    for thread, number, started, read_only, _, seconds in rows:
        if thread != own:
            age = max(float(seconds or 0), 0) + margin
            found.setdefault(int(thread), []).append((int(number), str(started), bool(read_only), age))
    return found
