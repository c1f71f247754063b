"""Whether silver is what its log makes of it: every key against the newest event, through the steps and rules of today.

A key whose newest event is rejected, or waits as an error, has not converged, and is not held against silver.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etl_assets.compaction_record import COMPACTED_MARK
from etl_assets.errors import ErrorTable
from etl_assets.reconcile_lake import newest_events
from etl_assets.silver_changes import incomplete
from etl_assets.silver_extent import rows_between
from etl_assets.silver_fates import Versions
from etl_assets.silver_work import BRONZE_MARK
from etl_resources.engines.duckdb import quote

if TYPE_CHECKING:
    from etl_assets.silver import Silver
    from etl_resources.engines.duckdb import Session
    from etl_resources.lake import Handle


def find_silver_differences(silver: Silver, session: Session, bronze: Handle) -> None:
    """Add the keys on which silver and the log differ to `differences(key, what)`."""
    handle = silver.table.open()
    mark = handle.committed(BRONZE_MARK) if handle is not None else 0
    if handle is None or mark < bronze.committed(COMPACTED_MARK):
        return  # its next run builds it anew
    spec, table = silver.spec, session.lake_relation(handle)
    versions = Versions(spec.key, ("_pos",))
    log = newest_events(session, rows_between(session, bronze, 0, mark), spec.log_key)
    judgement = silver.judgement(session, bronze, log, silver.references(), incomplete(session))
    errors = ErrorTable(silver.lake).current(session, asset=silver.app_id, status=None)
    waits = "false"
    if errors is not None:
        session.execute(
            f"CREATE OR REPLACE TEMP TABLE waiting AS SELECT batch, row FROM {errors} "  # noqa: S608
            "WHERE status IN ('open', 'discarded')"
        )
        waits = "EXISTS (SELECT 1 FROM waiting w WHERE w.batch = j._batch AND w.row = j._row)"
    newest = (
        f"(SELECT j.*, {judgement.kept()} AND j._op <> 'delete' AS __lives, "  # noqa: S608
        f"coalesce(({judgement.fate()}) LIKE 'rejected:%', false) OR {waits} AS __waits FROM ({judgement.sql}) j "
        f"WHERE {versions.complete('j')} QUALIFY row_number() OVER (PARTITION BY {versions.keys('j')} "
        f"ORDER BY {versions.newest_first('j')}) = 1)"
    )
    present = set(handle.schema().names)
    own = [name for name in judgement.columns if name not in spec.key and name in present]
    differs = " OR ".join(f"n.{quote(name)} IS DISTINCT FROM s.{quote(name)}" for name in own) or "false"
    key = _key(spec.key, "coalesce(n.{0}, s.{0})")
    session.execute(
        f"INSERT INTO differences SELECT * FROM (SELECT {key} AS key, CASE WHEN n.__waits THEN NULL "  # noqa: S608
        "WHEN n.__lives AND s._pos IS NULL THEN 'missing in silver' "
        "WHEN NOT coalesce(n.__lives, false) AND s._pos IS NOT NULL THEN 'in silver, and not in the log' "
        f"WHEN n.__lives AND ({differs}) THEN 'other values in silver' END AS what "
        f"FROM {newest} n FULL JOIN {table} s ON {versions.same_key('n', 's')}) WHERE what IS NOT NULL"
    )
    session.execute(
        f"INSERT INTO differences SELECT {_key(spec.key, 's.{0}')}, 'more than once in silver' FROM {table} s "  # noqa: S608
        f"GROUP BY {versions.keys('s')} HAVING count(*) > 1"
    )


def _key(names: Sequence[str], form: str) -> str:
    parts = [f"CAST({form.format(quote(name))} AS VARCHAR)" for name in names]
    return f"[{', '.join(parts)}]"
