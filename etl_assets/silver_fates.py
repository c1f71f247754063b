"""From verdicts to fates: which version of a key is the newest, and what it does to the silver table.

Among all versions of a key that were ever accepted or filtered the newest decides, by the `order` columns and then by
`_seq`. If it is a kept row, it is the row of the table; if it is a deletion, or is filtered, the key is not in the table.
A rejected row decides nothing. So the table is a function of the set of bronze rows, and not of how they were batched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.engines.duckdb import quote

if TYPE_CHECKING:
    from etl_assets.silver_query import Judgement
    from etl_resources.engines.duckdb import Session

TABLE = ("_batch", "_row", "_seq", "_read_at")
"""Provenance columns of a silver table: `_batch` and `_row` name the bronze row that the row came from."""


@dataclass(frozen=True)
class Versions:
    """How versions of a key are told apart and ordered."""

    key: Sequence[str]
    order: Sequence[str] = ()

    def keys(self, alias: str) -> str:
        """Return the key columns, qualified, separated by commas."""
        return ", ".join(f"{alias}.{quote(name)}" for name in self.key)

    def same_key(self, left: str, right: str) -> str:
        """Return SQL: both have the same key."""
        return " AND ".join(f"{left}.{quote(name)} = {right}.{quote(name)}" for name in self.key)

    def newest_first(self, alias: str) -> str:
        """Return an ORDER BY list; a NULL in an order column is the oldest."""
        ordered = [f"{alias}.{quote(name)} DESC NULLS LAST" for name in self.order]
        return ", ".join([*ordered, *(f"{alias}.{name} DESC" for name in ("_seq", "_batch", "_row"))])

    def newer(self, left: str, right: str) -> str:
        """Return SQL: the version `left` is newer than `right`; equal is not newer."""
        sql = f"{left}._seq > {right}._seq"
        for name in reversed(self.order):
            a, b = f"{left}.{quote(name)}", f"{right}.{quote(name)}"
            greater = f"({a} > {b} OR ({a} IS NOT NULL AND {b} IS NULL))"
            sql = f"({greater} OR ({a} IS NOT DISTINCT FROM {b} AND {sql}))"
        return sql


def decide(
    session: Session,
    judgement: Judgement,
    versions: Versions,
    *,
    current: str | None,
    rivals: str | None = None,
) -> None:
    """Create the temporary table `fated(rid, fate, action)` from the temporary table `judged`.

    Args:
        current: SQL relation of the silver table as it is; None: it is empty.
        rivals: SQL relation with key, order, `_seq`, `_batch`, `_row` of further versions that may be newer than the
            judged ones (for replays); they get no fate themselves.

    `action` is `insert`, `update`, `delete` or NULL; `rid` is the rowid in `judged`.
    """
    filters = any(verdict.fate == "filtered" for verdict in judgement.verdicts)
    filtered = f"({judgement.fate()}) LIKE 'filtered:%'" if filters else "false"
    complete = " AND ".join(f"j.{quote(name)} IS NOT NULL" for name in versions.key) or "true"
    session.execute(
        f"CREATE OR REPLACE TEMP TABLE contenders AS SELECT j.rowid AS rid, {versions.keys('j')}, "
        + "".join(f"j.{quote(name)}, " for name in versions.order if name not in versions.key)
        + f"j._seq, j._batch, j._row, NOT ({judgement.kept()}) AS out, j._op = 'delete' AS gone "
        f"FROM judged j WHERE (({judgement.kept()}) OR {filtered}) AND {complete}"
    )
    _lose_to_newer(session, versions, rivals)
    action, join = _actions(judgement, versions, current)
    session.execute(
        "CREATE OR REPLACE TEMP TABLE fated AS SELECT rid, fate, "  # noqa: S608
        "CASE WHEN fate NOT IN ('unchanged', 'superseded') THEN action END AS action FROM ("
        f"SELECT j.rowid AS rid, CASE WHEN NOT ({judgement.kept()}) THEN {judgement.fate()} "
        f"WHEN l.rid IS NOT NULL THEN 'superseded' ELSE {action} END AS fate, "
        f"CASE WHEN l.rid IS NOT NULL OR c.rid IS NULL THEN NULL ELSE ({_effect(current, versions)}) END AS action "
        f"FROM judged j LEFT JOIN contenders c ON c.rid = j.rowid LEFT JOIN losers l ON l.rid = j.rowid {join})"
    )


def _lose_to_newer(session: Session, versions: Versions, rivals: str | None) -> None:
    """Create `losers(rid)`: contenders of which a newer version is among the contenders or the rivals."""
    keys = versions.keys("c")
    # Nearly every load has each key once; ranking only the keys that come again keeps the window small.
    session.execute(
        f"CREATE OR REPLACE TEMP TABLE losers AS SELECT rid FROM (SELECT c.rid, row_number() OVER (PARTITION BY {keys} "  # noqa: S608
        f"ORDER BY {versions.newest_first('c')}) AS place FROM contenders c JOIN (SELECT {keys} FROM contenders c "
        f"GROUP BY {keys} HAVING count(*) > 1) d ON {versions.same_key('c', 'd')}) WHERE place > 1"
    )
    if rivals is not None:
        session.execute(
            f"INSERT INTO losers SELECT DISTINCT c.rid FROM contenders c JOIN {rivals} r "  # noqa: S608
            f"ON {versions.same_key('c', 'r')} WHERE {versions.newer('r', 'c')}"
        )


def _actions(judgement: Judgement, versions: Versions, current: str | None) -> tuple[str, str]:
    """Return SQL for the fate of a winner, and the join that it needs."""
    if current is None:
        return "CASE WHEN j._op = 'delete' THEN 'unchanged' ELSE 'inserted' END", ""
    own = [name for name in judgement.columns if name not in versions.key]
    same = " AND ".join(f"j.{quote(name)} IS NOT DISTINCT FROM s.{quote(name)}" for name in own) or "true"
    join = f"LEFT JOIN {current} s ON {versions.same_key('j', 's')} AND c.rid IS NOT NULL AND l.rid IS NULL"
    fate = (
        "CASE WHEN s._seq IS NULL THEN CASE WHEN c.gone THEN 'unchanged' ELSE 'inserted' END "
        f"WHEN NOT ({versions.newer('j', 's')}) THEN 'superseded' "
        f"WHEN c.gone THEN 'deleted' WHEN {same} THEN 'unchanged' ELSE 'updated' END"
    )
    return fate, join


def _effect(current: str | None, versions: Versions) -> str:
    if current is None:
        return "CASE WHEN c.out OR c.gone THEN NULL ELSE 'insert' END"
    return (
        "CASE WHEN s._seq IS NULL THEN CASE WHEN c.out OR c.gone THEN NULL ELSE 'insert' END "
        f"WHEN NOT ({versions.newer('j', 's')}) THEN NULL "
        "WHEN c.out OR c.gone THEN 'delete' ELSE 'update' END"
    )
