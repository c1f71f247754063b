"""Errors whose event a compaction has removed: they can wait for nothing any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl_assets.compaction_record import COMPACTED_MARK
from etl_assets.errors import ErrorTable
from etl_assets.run import Run
from etl_assets.silver_extent import rows_between

if TYPE_CHECKING:
    from etl_assets.silver import Silver
    from etl_resources.engines.duckdb import Session
    from etl_resources.lake import Handle


def close_compacted(silver: Silver, session: Session, bronze: Handle, run: Run) -> int:
    """Close the errors of the table `chosen` whose event is no longer in bronze, and take them out of it.

    Open errors keep their events from being compacted; but an error may be opened while a compaction goes on, by a
    rebuild that reads the log as it was before.
    """
    upto = bronze.committed(COMPACTED_MARK)
    if upto == 0:
        return 0
    log = rows_between(session, bronze, 0, upto)
    gone = f"FROM chosen e ANTI JOIN {log} b ON b._batch = e.batch AND b._row = e.row WHERE e.batch <= {upto}"
    found = session.table(f"SELECT e.* {gone}")
    if found.num_rows:
        ErrorTable(silver.lake).close(found, "obsolete", "a later change of its key stands; it was compacted", run)
        session.execute(f"DELETE FROM chosen WHERE error_id IN (SELECT e.error_id {gone})")  # noqa: S608
    return found.num_rows
