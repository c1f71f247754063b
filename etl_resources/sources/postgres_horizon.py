"""Up to where a table has been read: which transactions' rows have been seen, and which have not.

A cursor column cannot say that. A transaction that takes its `updated_at` or its serial number early and commits late
puts a row *behind* the last value read, where `cursor > last` never looks again. PostgreSQL however knows of every row
version which transaction wrote it (`xmin`), so the position is a set of transactions, not a value of a column:

    Horizon(xmax, running)   a transaction x is behind the horizon when x < xmax and x is not in `running`

How a horizon is taken (`take`), in this order:

1. S1 = pg_current_snapshot(); xmax is the number after that of the last transaction that has ended.
2. `running` = the numbers below xmax that are in progress now, by pg_xact_status().
3. A REPEATABLE READ transaction begins; its snapshot S2 is what the read sees. Its own xmax is `seen_below`.

*What is behind the horizon is in S2.* A transaction below xmax that is not in `running` had ended before step 3, so its
rows are in S2 if it committed. A read gives exactly the rows in S2 whose xmin is behind the new horizon and not behind
the previous one. Hence nothing is missed (a transaction is behind the first horizon that is taken after it has ended,
because the reads before that leave it in `running` or above xmax), and nothing is read twice (it stays behind all later
horizons). A row that is changed again is a new row version with a new xmin, so every change after a read is read.

Why not the text of pg_current_snapshot() alone? It lists running transactions without their *sub*transactions, and rows
written after a savepoint, or in a PL/pgSQL block with EXCEPTION, bear the number of the subtransaction, which would
count as finished while it is not; and on a replica it lists none at all. pg_xact_status() knows both. Why not all
below pg_snapshot_xmin()? Because one forgotten transaction would then hold back all rows of everybody, in silence.

`xmin` has 32 bits. All comparisons are made modulo 2^32 within the window from the previous horizon's oldest running
transaction to `seen_below`; a row that was written 2^32 transactions ago or earlier may look new, and is then read once
more, but no new row can look old as long as the window is shorter than 2^32, which `check_follows` makes sure of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from etl_resources.postgres_session import Session

_XIDS = 2**32
_FULL_READ = "read the stream anew from the start (full refresh): what was missed in between cannot be known"


@dataclass(frozen=True, slots=True)
class Horizon:
    """Which transactions have been read, and on which server."""

    xmax: int
    running: tuple[int, ...]
    system: str
    """Identity of the database cluster; another one counts its transactions differently."""
    timeline: int
    """Grows when a server is promoted or restored to an earlier time: transaction numbers may then be used again."""
    low: str | None = None
    """Newest value of the cursor, for streams that narrow their reads by it."""

    @property
    def oldest(self) -> int:
        """The first transaction that is not behind the horizon."""
        return min(self.running, default=self.xmax)

    def to_position(self) -> dict[str, Any]:
        """Return it as JSON-serialisable data; the first field is in the notation of `pg_snapshot`."""
        snapshot = f"{self.oldest}:{self.xmax}:{','.join(map(str, self.running))}"
        position = {"snapshot": snapshot, "system": self.system, "timeline": self.timeline}
        return position if self.low is None else {**position, "low": self.low}

    @classmethod
    def from_position(cls, position: Mapping[str, Any]) -> Horizon:
        """Return what `to_position` was made of."""
        _, xmax, running = str(position["snapshot"]).split(":")
        xids = tuple(int(x) for x in running.split(",") if x)
        return cls(int(xmax), xids, position["system"], position["timeline"], position.get("low"))

    def check_follows(self, earlier: Horizon, *, in_recovery: bool, where: str) -> None:
        """Make sure that this horizon was taken later than `earlier`, of the same history of the same server.

        Raises:
            NotFoundError: the history that `earlier` belongs to is gone.
            UnavailableError: a replica has not come as far as that yet.
        """
        what = ""
        if earlier.system != self.system:
            what = "this is another PostgreSQL cluster than the one read before"
        elif earlier.timeline != self.timeline:
            what = (
                f"the server was promoted or restored since it was last read (timeline {earlier.timeline}, now"
                f" {self.timeline}): transactions that were read may be undone, and their numbers used again"
            )
        elif self.xmax < earlier.xmax:
            if in_recovery:
                raise UnavailableError("this replica is behind the server that was read last", where=where)
            what = f"the server's transactions went back from {earlier.xmax} to {self.xmax}: it was restored"
        elif self.xmax - earlier.oldest >= _XIDS:
            what = "more than 2^32 transactions have run since the last read: rows can no longer be told apart by them"
        if what:
            raise NotFoundError(f"{what}; the position is not there any more", where=where, fix=_FULL_READ)


@dataclass(frozen=True, slots=True)
class View:
    """The snapshot that a read sees: all that is behind `horizon`, and some rows of transactions below `seen_below`."""

    horizon: Horizon
    seen_below: int
    in_recovery: bool


def take(session: Session, earlier: Horizon | None) -> View:
    """Take a horizon and begin the transaction whose snapshot holds all that is behind it (module docstring).

    The caller ends the transaction.
    """
    oldest, xmax = map(int, str(session.value("SELECT pg_current_snapshot()::text")).split(":")[:2])
    if earlier is not None and earlier.xmax <= xmax:
        # What was below the earlier horizon and not running then has ended: no need to ask for it again.
        suspects, first = earlier.running, max(oldest, earlier.xmax)
    else:
        suspects, first = (), oldest
    listed = ",".join(map(str, suspects))
    running = session.rows(
        f"SELECT x FROM (SELECT unnest('{{{listed}}}'::int8[]) UNION ALL SELECT generate_series({first}::int8,"  # noqa: S608 - numbers
        f" {xmax - 1}::int8)) s(x) WHERE pg_xact_status(x::text::xid8) = 'in progress' ORDER BY x"
    )
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    seen_below, system, timeline, in_recovery = session.rows(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text, (pg_control_system()).system_identifier::text,"
        # A control file tells its timeline only after the checkpoint that follows a promotion; the log knows at once.
        " CASE WHEN pg_is_in_recovery() THEN (pg_control_checkpoint()).timeline_id"
        "  ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END, pg_is_in_recovery()"
    )[0]
    horizon = Horizon(xmax, tuple(int(x) for (x,) in running), str(system), int(timeline))
    return View(horizon, int(seen_below), bool(in_recovery))


def new_rows(earlier: Horizon | None, view: View) -> str | None:
    """Return the condition on `t.xmin` for rows behind the view's horizon and not behind the earlier one.

    None: every row that the view sees.
    """
    xid = "int8in(xidout(t.xmin))"
    now = view.horizon
    conditions = []
    if earlier is not None:
        # Numbers below 3 mark rows that were frozen by servers before 9.4: old for certain.
        fresh = f"(({xid} - {earlier.xmax}) & {_XIDS - 1}) < {now.xmax - earlier.xmax}"
        late = _one_of(xid, earlier.running)
        conditions.append(f"({fresh} OR {late}) AND {xid} > 2" if late else f"{fresh} AND {xid} > 2")
    elif view.seen_below > now.xmax:
        conditions.append(f"(({xid} - {now.xmax}) & {_XIDS - 1}) >= {view.seen_below - now.xmax}")
    if still := _one_of(xid, now.running):
        conditions.append(f"NOT ({still})")
    return " AND ".join(conditions) or None


def _one_of(xid: str, xids: tuple[int, ...]) -> str:
    if not xids:
        return ""
    return f"{xid} = ANY('{{{','.join(str(x % _XIDS) for x in xids)}}}'::int8[])"
