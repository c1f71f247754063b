"""Keys that leave a silver table though no row announces it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl_resources.engines.duckdb import quote

if TYPE_CHECKING:
    from etl_assets.silver_commit import Refinement

LEFT_OUT = "j.__action = 'delete' AND j.__fate LIKE 'filtered:%'"


def find_removals(refinement: Refinement) -> int:
    """Create `removed(key…)` and count the rows that leave.

    They leave because their newest version is filtered, because the newest snapshot does not have them, or because the
    source's table was emptied.
    """
    work, versions, session = refinement.work, refinement.versions, refinement.session
    keys, meets, current = ", ".join(quote(name) for name in versions.key), refinement.meets, refinement.current
    parts = [f"SELECT {versions.keys('j')} FROM fated j WHERE {'false' if meets is None else LEFT_OUT}"]  # noqa: S608
    renewing = work.rebuild or work.window is not None
    if refinement.silver.spec.snapshot and current is not None and not work.replay and not renewing:
        parts.append(
            f"SELECT {keys} FROM {current} s WHERE NOT EXISTS "  # noqa: S608
            f"(SELECT 1 FROM judged j WHERE {versions.same_key('j', 's')})"
        )
    if refinement.emptied is not None and meets is not None:
        parts.append(
            f"SELECT {keys} FROM {meets} s WHERE (s._pos, s._seq) < {refinement.emptied} AND NOT EXISTS "  # noqa: S608
            f"(SELECT 1 FROM contenders c WHERE {versions.same_key('c', 's')} "
            f"AND (c._pos, c._seq) > {refinement.emptied})"
        )
    session.execute(f"CREATE OR REPLACE TEMP TABLE removed AS {' UNION '.join(parts)}")
    if not renewing:
        return int(session.execute("SELECT count(*) FROM removed")[0][0])
    # All rows of the table, or of the partition, go; those that stay come in again.
    if refinement.handle is None or current is None:
        return 0
    if work.part is None:
        return refinement.handle.rows()
    return int(session.execute(f"SELECT count(*) FROM {current} s WHERE {work.part.contains('s')}")[0][0])  # noqa: S608
