"""Rejected events of a change log whose key has caught up: a later event of it got through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl_assets.errors import ErrorTable
from etl_assets.run import Run
from etl_assets.silver_extent import rows_between
from etl_resources.change_log import TRUNCATE
from etl_resources.engines.duckdb import literal, quote

if TYPE_CHECKING:
    from etl_assets.silver import Silver
    from etl_resources.lake import Handle


def heal(silver: Silver, bronze: Handle, above: int, upto: int, run: Run) -> int:
    """Close errors that events of the bronze batches `above < batch <= upto` have made good; returns how many.

    An error of a change log says that its key has not converged. A later event brings the whole row, so the key has,
    and to judge the old event again could only find it superseded.
    """
    errors = ErrorTable(silver.lake)
    with silver.engine.session() as session:
        waiting = errors.current(session, asset=silver.app_id)
        if waiting is None:
            return 0
        session.execute(f"CREATE TEMP TABLE waiting AS SELECT * FROM {waiting}")  # noqa: S608
        if not session.execute("SELECT 1 FROM waiting LIMIT 1"):
            return 0
        place = "(json_extract(e.record, '$._pos')::BIGINT, json_extract(e.record, '$._seq')::BIGINT)"
        # Names are quoted for the path within the JSON, and the path for SQL.
        paths = {name: literal("$." + quote(name).replace('""', '\\"')) for name in silver.spec.log_key}
        same = " AND ".join(
            f"CAST(l.{quote(name)} AS VARCHAR) = json_extract_string(e.record, {path})" for name, path in paths.items()
        )
        log = rows_between(session, bronze, above, upto)
        found = session.table(
            f"SELECT e.* FROM waiting e SEMI JOIN (SELECT l.* FROM {log} l "  # noqa: S608
            f"ANTI JOIN waiting w ON w.batch = l._batch AND w.row = l._row) l "
            f"ON ({same} OR l._op = {literal(TRUNCATE)}) AND (l._pos, l._seq) > {place}"
        )
    errors.close(found, "obsolete", "a later change of its key got through", run)
    return found.num_rows
