"""Versions of a key that are in no row of the silver table and may yet be newer than the one that arrives.

The table has the newest kept version of a key. It does not show that a newer one deleted the key or was filtered, nor
that a newer one confirmed the row unchanged; bronze does. This matters only where versions do not arrive in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from etl_assets.errors import ErrorTable
from etl_assets.silver_extent import alive
from etl_resources.engines.duckdb import quote

if TYPE_CHECKING:
    from etl_assets.silver import Silver
    from etl_assets.silver_commit import Refinement
    from etl_assets.silver_fates import Versions
    from etl_assets.silver_query import Judgement
    from etl_assets.silver_work import Work
    from etl_resources.engines.duckdb import Session


def create_rivals(refinement: Refinement, current: str | None) -> None:
    """Fill the table `rivals` with the earlier versions that `contenders` must be compared with."""
    silver, session, work, versions = refinement.silver, refinement.session, refinement.work, refinement.versions
    history = work.history
    which = _which(silver, session, work) if history is not None else None
    if which is None or history is None or (which == "gone" and not _any_absent(session, versions, current)):
        return
    filters = any(verdict.fate == "filtered" for verdict in refinement.judgement.verdicts)
    if which == "gone" and not filters and not work.snapshots:
        history = f"(SELECT * FROM {history} WHERE _op = 'delete')"  # noqa: S608
    judgement = refinement.judge(history)
    columns = ", ".join(f"j.{quote(name)}" for name in versions.columns)
    session.execute(
        f"INSERT INTO rivals SELECT {columns} FROM ({judgement.sql}) j SEMI JOIN contenders c "  # noqa: S608
        f"ON {versions.same_key('c', 'j')} {_joins(silver, session, versions, judgement, work)} "
        f"WHERE {_decided(judgement, which, filters=filters)}"
    )


def _which(silver: Silver, session: Session, work: Work) -> Literal["all", "gone"] | None:
    if work.replay:
        return "all"
    if work.rebuild or work.window is not None:
        return None
    if silver.spec.captured:
        return None  # no event comes later than one with a greater position
    # In the order of arrival the number of the batch is the upper half of `_seq`.
    arrived = session.execute("SELECT coalesce(bool_and(_seq >> 32 = _batch), true) FROM judged")[0][0]
    return "gone" if arrived and silver.spec.order else None if arrived else "all"


def _any_absent(session: Session, versions: Versions, current: str | None) -> bool:
    """Tell whether any key has to be looked up: one that is not in the table may have left it."""
    if current is None:
        return True
    sql = f"SELECT 1 FROM contenders c ANTI JOIN {current} s ON {versions.same_key('c', 's')} LIMIT 1"  # noqa: S608
    return bool(session.execute(sql))


def _decided(judgement: Judgement, which: Literal["all", "gone"], *, filters: bool) -> str:
    decided = f"({judgement.kept()})" if which == "all" else f"(({judgement.kept()}) AND j._op = 'delete')"
    return f"({decided} OR ({judgement.fate()}) LIKE 'filtered:%')" if filters else decided


def _joins(silver: Silver, session: Session, versions: Versions, judgement: Judgement, work: Work) -> str:
    """Return joins that leave rows out which decide nothing: still rejected, or of a key that vanished since."""
    joins = ""
    errors = ErrorTable(silver.lake).current(session, asset=silver.app_id, status=None)
    if errors is not None:
        joins += (
            f" ANTI JOIN (SELECT * FROM {errors} WHERE status IN ('open', 'discarded', 'obsolete')) e "  # noqa: S608
            "ON e.batch = j._batch AND e.row = j._row"
        )
    if len(work.snapshots) > 1:
        living = alive(f"({judgement.sql})", versions.key, work.snapshots)
        joins += f" SEMI JOIN {living} a ON {versions.same_key('a', 'j')} AND a._batch = j._batch"
    return joins
