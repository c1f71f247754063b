"""Which events of a change log have to stay when closed days are compacted.

Kept are, of every key, the newest event and the newest that silver has not rejected: from these two follows what silver
is when it is built anew. Kept are also the events that rows of silver name as theirs (a newer one may have confirmed
the row); those whose errors wait, because a replay judges them again; the last truncation; and what has no key or no
place in the log, of which nobody can say what it replaces.

A delete goes if nothing that it would outrank is left: then its key is absent with it and without it. That is asked of
silver's key, since steps may give one key to rows that have two at the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etl_assets.errors import ErrorTable
from etl_assets.silver_changes import truncated_at
from etl_resources.change_log import DELETE, TRUNCATE
from etl_resources.engines.duckdb import literal, quote

if TYPE_CHECKING:
    from etl_assets.silver import Silver
    from etl_resources.engines.duckdb import Session
    from etl_resources.lake import Handle

KEPT = "kept"
"""Temporary table with `_batch` and `_row` of the events that stay."""


def find_kept(silver: Silver, session: Session, bronze: Handle, table: Handle, log: str, upto: int) -> None:
    """Create `KEPT`.

    Args:
        table: the silver table.
        log: SQL relation of the events of batches up to `upto`, all of which silver has judged.
    """
    _find_rejected(silver, session, upto)
    key = silver.spec.log_key
    emptied = truncated_at(session, log)
    complete = " AND ".join(f"{quote(name)} IS NOT NULL" for name in (*key, "_pos", "_seq"))
    keyed = f"({complete} AND _op <> {literal(TRUNCATE)})"
    after = f" AND (_pos, _seq) > {emptied}" if emptied is not None else ""
    execute = session.execute
    execute(
        f"CREATE OR REPLACE TEMP TABLE {KEPT} AS SELECT _batch, _row FROM {log} "  # noqa: S608
        f"WHERE NOT {keyed} AND _op <> {literal(TRUNCATE)} UNION SELECT batch, row FROM rejected WHERE waits"
    )
    if emptied is not None:
        execute(
            f"INSERT INTO {KEPT} SELECT _batch, _row FROM {log} "  # noqa: S608
            f"WHERE _op = {literal(TRUNCATE)} AND (_pos, _seq) = {emptied}"
        )
    some = bool(execute("SELECT 1 FROM rejected LIMIT 1"))
    for decided in (False, True) if some else (False,):
        _keep_newest(session, log, key, f"{keyed}{after}", decided=decided)
    _keep_named(session, table, log, upto)
    _drop_idle_deletes(silver, session, bronze, log)


def _find_rejected(silver: Silver, session: Session, upto: int) -> None:
    """Create `rejected(batch, row, waits)`: the events that decided nothing, and whether they wait for a replay."""
    errors = ErrorTable(silver.lake).current(session, asset=silver.app_id, status=None)
    found = "SELECT NULL::BIGINT AS batch, NULL::BIGINT AS row, false AS waits LIMIT 0"
    if errors is not None:
        found = (
            f"SELECT batch, row, status = 'open' AS waits FROM {errors} "  # noqa: S608
            f"WHERE batch <= {upto} AND status IN ('open', 'discarded', 'obsolete')"
        )
    session.execute(f"CREATE OR REPLACE TEMP TABLE rejected AS {found}")


def _keep_newest(session: Session, log: str, key: Sequence[str], where: str, *, decided: bool) -> None:
    """Add the newest event of every key to `KEPT`, with `decided` among those that silver has not rejected."""
    keys = ", ".join(f"l.{quote(name)}" for name in key)
    but = "ANTI JOIN rejected e ON e.batch = l._batch AND e.row = l._row" if decided else ""
    # One number instead of a row: comparing rows costs ten times as much.
    place, name = (_wide(f"l.{high}", f"l.{low}") for high, low in (("_pos", "_seq"), ("_batch", "_row")))
    session.execute(
        f"INSERT INTO {KEPT} SELECT n.b, n.r FROM ("  # noqa: S608
        f"SELECT (name >> 64)::BIGINT AS b, (name & 18446744073709551615::HUGEINT)::BIGINT AS r FROM ("
        f"SELECT arg_max({name}, {place}) AS name FROM {log} l {but} WHERE {where} GROUP BY {keys})) n "
        f"ANTI JOIN {KEPT} k ON k._batch = n.b AND k._row = n.r"
    )


def _keep_named(session: Session, table: Handle, log: str, upto: int) -> None:
    """Add the events that rows of the silver table came from."""
    named = f"(SELECT _batch, _row FROM {session.lake_relation(table)} WHERE _batch <= {upto})"  # noqa: S608
    session.execute(
        f"INSERT INTO {KEPT} SELECT l._batch, l._row FROM {log} l "  # noqa: S608
        f"SEMI JOIN (SELECT s.* FROM {named} s ANTI JOIN {KEPT} k ON k._batch = s._batch AND k._row = s._row) n "
        "ON n._batch = l._batch AND n._row = l._row"
    )


def _wide(high: str, low: str) -> str:
    """Return SQL: both numbers in one that orders by the first and then by the second, which may be negative."""
    return f"({high}::HUGEINT * 18446744073709551616::HUGEINT + {low}::HUGEINT)"


def _drop_idle_deletes(silver: Silver, session: Session, bronze: Handle, log: str) -> None:
    stays = f"(SELECT l.* FROM {log} l SEMI JOIN {KEPT} k ON k._batch = l._batch AND k._row = l._row)"  # noqa: S608
    if not session.execute(f"SELECT 1 FROM {stays} WHERE _op = {literal(DELETE)} LIMIT 1"):  # noqa: S608
        return
    judgement = silver.judgement(session, bronze, stays, silver.references())
    keys = [quote(name) for name in silver.spec.key]
    session.execute(
        f"CREATE OR REPLACE TEMP TABLE placed AS SELECT {', '.join(keys)}, _batch, _row, _op, "  # noqa: S608
        f"{_wide('_pos', '_seq')} AS __place FROM ({judgement.shaped_sql})"
    )
    same = " AND ".join(f"o.{name} = d.{name}" for name in keys)
    session.execute(
        f"DELETE FROM {KEPT} WHERE (_batch, _row) IN (SELECT (d._batch, d._row) FROM placed d "  # noqa: S608
        f"ANTI JOIN (SELECT * FROM placed WHERE _op <> {literal(DELETE)}) o ON {same} AND o.__place < d.__place "
        "ANTI JOIN rejected e ON e.waits AND e.batch = d._batch AND e.row = d._row "
        f"WHERE d._op = {literal(DELETE)} AND d.__place IS NOT NULL)"
    )
