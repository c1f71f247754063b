"""From verdicts to fates: which version of a key is the newest, and what it does to the silver table.

Among all versions of a key that were ever accepted or filtered the newest decides, by the `order` columns and then by
`_seq`. If it is a kept row, it is the row of the table; if it is a deletion, or is filtered, the key is not in the
table. A rejected row decides nothing. So the table is a function of the set of bronze rows, and not of how they were
batched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_assets.silver_extent import alive
from etl_assets.silver_query import EMPTIED
from etl_resources.engines.duckdb import quote

if TYPE_CHECKING:
    from etl_assets.silver_query import Judgement
    from etl_resources.engines.duckdb import Session

TABLE = ("_batch", "_row", "_seq", "_read_at")
"""Provenance columns of a silver table: `_batch` and `_row` name the bronze row that the row came from."""
IDENTITY = ("_seq", "_batch", "_row")
"""What orders the versions of a key in the end; no two rows have the same."""


@dataclass(frozen=True)
class Versions:
    """How versions of a key are told apart and ordered."""

    key: Sequence[str]
    order: Sequence[str] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a version needs to be compared with others."""
        return tuple(dict.fromkeys((*self.key, *self.order, *IDENTITY)))

    def keys(self, alias: str) -> str:
        """Return the key columns, qualified, separated by commas."""
        return ", ".join(f"{alias}.{quote(name)}" for name in self.key)

    def complete(self, alias: str) -> str:
        """Return SQL: no key column is NULL."""
        return " AND ".join(f"{alias}.{quote(name)} IS NOT NULL" for name in self.key)

    def same_key(self, left: str, right: str) -> str:
        """Return SQL: both have the same key."""
        return " AND ".join(f"{left}.{quote(name)} = {right}.{quote(name)}" for name in self.key)

    def newest_first(self, alias: str) -> str:
        """Return an ORDER BY list; a NULL in an order column is the oldest."""
        return ", ".join(f"{alias}.{quote(name)} DESC NULLS LAST" for name in (*self.order, *IDENTITY))

    def newer(self, left: str, right: str) -> str:
        """Return SQL: the version `left` is newer than `right`; equal is not newer."""
        sql = "false"
        for name in reversed((*self.order, *IDENTITY)):
            a, b = f"{left}.{quote(name)}", f"{right}.{quote(name)}"
            greater = f"({a} > {b} OR ({a} IS NOT NULL AND {b} IS NULL))" if name in self.order else f"{a} > {b}"
            sql = f"({greater} OR ({a} IS NOT DISTINCT FROM {b} AND {sql}))"
        return f"coalesce({sql}, false)"


def decide(
    session: Session,
    judgement: Judgement,
    versions: Versions,
    *,
    current: str | None,
    snapshots: Sequence[int] = (),
    emptied: tuple[int, int] | None = None,
) -> None:
    """Create `fated`: the rows of `judged` (a table, or a view if nothing is met), with their `__fate` and `__action`.

    The action is `insert`, `update`, `delete` or NULL. The table `repeated` has the keys that come more than once; the
    table `rivals` holds further versions that may be newer than the judged ones; they get no fate themselves.

    Args:
        current: SQL relation of the silver table as it is; None: it is empty.
        snapshots: the batches in `judged` if each is a whole snapshot, oldest first.
        emptied: `_pos` and `_seq` of the last event that emptied the table: what came before it is superseded.
    """
    _lose_to_newer(session, versions, snapshots, emptied)
    lost, losers = "false", ""
    if session.execute("SELECT 1 FROM losers LIMIT 1"):
        lost, losers = "l._row IS NOT NULL", "LEFT JOIN losers l ON l._batch = j._batch AND l._row = j._row"
    wins = f"({_contends(judgement, versions)}) AND NOT ({lost})"
    action, effect, join = _actions(judgement, versions, current, wins)
    decided = (
        "SELECT * REPLACE (CASE WHEN __fate NOT IN ('unchanged', 'superseded') THEN __action END AS __action) FROM ("  # noqa: S608
        f"SELECT {'j.*' if current is None else 'j.rowid AS __rid'}, "
        f"CASE WHEN NOT ({judgement.kept()}) THEN {judgement.fate()} WHEN {lost} THEN 'superseded' ELSE {action} END "
        f"AS __fate, CASE WHEN {wins} THEN {effect} END AS __action FROM judged j {losers} {join})"
    )
    if current is None:
        # Without the table to compare with, deciding again costs less than keeping what was decided.
        session.execute(f"CREATE OR REPLACE TEMP VIEW fated AS {decided}")
        return
    session.execute(f"CREATE OR REPLACE TEMP TABLE decided AS {decided}")
    session.execute(
        "CREATE OR REPLACE TEMP VIEW fated AS "
        "SELECT j.*, d.__fate, d.__action FROM judged j JOIN decided d ON d.__rid = j.rowid"
    )


def _contends(judgement: Judgement, versions: Versions) -> str:
    """Return SQL over `judged j`: the row may decide about its key."""
    filters = any(verdict.fate == "filtered" and verdict.rule != EMPTIED for verdict in judgement.verdicts)
    filtered = f" OR ({judgement.fate()}) LIKE 'filtered:%'" if filters else ""
    return f"(({judgement.kept()}){filtered}) AND {versions.complete('j')}"


def contend(session: Session, judgement: Judgement, versions: Versions) -> None:
    """Create `contenders`: the judged rows that may decide about their key, and an empty table `rivals`."""
    columns = ", ".join(f"j.{quote(name)}" for name in versions.columns)
    session.execute(
        f"CREATE OR REPLACE TEMP VIEW contenders AS SELECT {columns} "  # noqa: S608
        f"FROM judged j WHERE {_contends(judgement, versions)}"
    )
    session.execute(f"CREATE OR REPLACE TEMP TABLE rivals AS SELECT {columns} FROM judged j LIMIT 0")  # noqa: S608


def _lose_to_newer(
    session: Session, versions: Versions, snapshots: Sequence[int], emptied: tuple[int, int] | None
) -> None:
    """Create `losers(_batch, _row)`: contenders that a newer contender, rival, snapshot or truncation has replaced."""
    place = "c._batch, c._row"
    parts = [f"SELECT {place} FROM contenders c LIMIT 0"]  # noqa: S608
    if session.execute("SELECT 1 FROM repeated LIMIT 1"):
        # Ranking only the keys that come again keeps the window small.
        parts.append(
            f"SELECT _batch, _row FROM (SELECT {place}, row_number() OVER (PARTITION BY {versions.keys('c')} "  # noqa: S608
            f"ORDER BY {versions.newest_first('c')}) AS place FROM contenders c SEMI JOIN repeated d "
            f"ON {versions.same_key('c', 'd')}) WHERE place > 1"
        )
    if session.execute("SELECT 1 FROM rivals LIMIT 1"):
        parts.append(
            f"SELECT {place} FROM contenders c JOIN rivals r ON {versions.same_key('c', 'r')} "  # noqa: S608
            f"WHERE {versions.newer('r', 'c')}"
        )
    if len(snapshots) > 1:
        living = alive("judged", versions.key, snapshots)
        parts.append(
            f"SELECT {place} FROM contenders c ANTI JOIN {living} a "  # noqa: S608
            f"ON {versions.same_key('c', 'a')} AND c._batch = a._batch"
        )
    if emptied is not None:
        parts.append(f"SELECT {place} FROM contenders c WHERE (c._pos, c._seq) < {emptied}")  # noqa: S608
    union = " UNION ".join(f"({part})" for part in parts)
    session.execute(f"CREATE OR REPLACE TEMP TABLE losers AS {union}")


def _actions(judgement: Judgement, versions: Versions, current: str | None, wins: str) -> tuple[str, str, str]:
    """Return SQL for the fate of a row that `wins`, for what it does to the table, and the join that both need."""
    leaves = f"(NOT ({judgement.kept()}) OR j._op = 'delete')"
    if current is None:
        fate = "CASE WHEN j._op = 'delete' THEN 'unchanged' ELSE 'inserted' END"
        return fate, f"CASE WHEN {leaves} THEN NULL ELSE 'insert' END", ""
    own = [name for name in judgement.columns if name not in versions.key]
    same = " AND ".join(f"j.{quote(name)} IS NOT DISTINCT FROM s.{quote(name)}" for name in own) or "true"
    join = f"LEFT JOIN {current} s ON {versions.same_key('j', 's')} AND {wins}"
    older = f"NOT ({versions.newer('j', 's')})"
    fate = (
        "CASE WHEN s._seq IS NULL THEN CASE WHEN j._op = 'delete' THEN 'unchanged' ELSE 'inserted' END "
        f"WHEN {older} THEN 'superseded' WHEN j._op = 'delete' THEN 'deleted' "
        f"WHEN {same} THEN 'unchanged' ELSE 'updated' END"
    )
    effect = (
        f"CASE WHEN s._seq IS NULL THEN CASE WHEN {leaves} THEN NULL ELSE 'insert' END "
        f"WHEN {older} THEN NULL WHEN {leaves} THEN 'delete' ELSE 'update' END"
    )
    return fate, effect, join
