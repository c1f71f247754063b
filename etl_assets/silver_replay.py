"""Replay of rejected rows through today's steps and rules: as often as wanted, in any order, never over a newer row."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from etl_assets.account import RowAccount
from etl_assets.bronze import REFRESH_MARK
from etl_assets.compaction_errors import close_compacted
from etl_assets.errors import ErrorTable
from etl_assets.partitions import overtaken, read_batches
from etl_assets.provenance import PARTITION
from etl_assets.run import Run
from etl_assets.silver_commit import Refinement
from etl_assets.silver_extent import rows_between
from etl_assets.silver_work import BRONZE_MARK, Work
from etl_resources.engines.duckdb import Session, literal

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.silver import Silver
    from etl_resources.lake import Handle


def replay(silver: Silver, run: Run, *, error_ids: Collection[str] | None = None, retries: bool = False) -> RowAccount:
    """Judge open errors of a silver table again; what gets through now enters the table and is closed.

    Args:
        error_ids: which errors; None: all open ones of the table.
        retries: they are all that wait for a foreign key.

    Returns:
        The account of the replay: `read` is the number of errors taken up, `rejected` what stays open.
    """
    with silver.engine.session() as session:
        bronze, handle = silver.bronze.open(), silver.table.open()
        if bronze is None or handle is None:
            return RowAccount()
        silver.heal(handle, bronze, run)
        errors = ErrorTable(silver.lake)
        relation = errors.current(session, asset=silver.app_id)
        if relation is None:
            return RowAccount()
        chosen = "" if error_ids is None else f"WHERE error_id IN ({', '.join(map(literal, error_ids)) or 'NULL'})"
        session.execute(f"CREATE TEMP TABLE chosen AS SELECT * FROM {relation} {chosen}")  # noqa: S608
        close_compacted(silver, session, bronze, run)
        work = _work(silver, session, bronze, handle, retries=retries)
        if work is None:
            return RowAccount()
        account, _ = Refinement(silver, session, bronze, handle, work, run).publish(RowAccount())
        run.point("replay:before_close")
        errors.close(_settled(session), "replayed", "entered the table, or a newer version had", run)
        return account


def _work(silver: Silver, session: Session, bronze: Handle, handle: Handle, *, retries: bool) -> Work | None:
    """Return the work over the errors in `chosen` whose rows the table is made of; None: there are none."""
    start = max(bronze.committed(REFRESH_MARK) - 1, 0)
    partitioned = PARTITION in bronze.schema().names
    upto = bronze.committed(silver.bronze.name) if partitioned else handle.committed(BRONZE_MARK)
    replacing = partitioned or silver.spec.snapshot
    batches = read_batches(silver.ledger.rows(silver.bronze.name, start)) if replacing else []
    old = overtaken(batches)
    # Of an older reading of the source, or written by a run that was killed before its data.
    stale = f"batch <= {start} OR batch > {upto}" + (f" OR batch IN ({', '.join(map(str, old))})" if old else "")
    session.execute(f"DELETE FROM chosen WHERE {stale}")  # noqa: S608
    read, low = session.execute("SELECT count(*), min(batch) - 1 FROM chosen")[0]
    if read == 0:
        return None
    rows = (
        f"(SELECT b.* FROM {rows_between(session, bronze, low, upto, old)} b "  # noqa: S608
        "SEMI JOIN chosen e ON b._batch = e.batch AND b._row = e.row)"
    )
    touched = {row[0] for row in session.execute("SELECT DISTINCT batch FROM chosen")}
    return Work(
        rows,
        read,
        [batch for batch in batches if batch.number in touched],
        history=rows_between(session, bronze, start, upto, old),
        snapshots=[batch.number for batch in batches if batch.number <= upto] if silver.spec.snapshot else (),
        replay=True,
        retries=retries,
    )


def _settled(session: Session) -> pa.Table:
    return session.table(
        "SELECT c.* FROM chosen c JOIN fated j ON j._batch = c.batch AND j._row = c.row "
        "WHERE j.__fate NOT LIKE 'rejected:%'"
    )


def retry_missing_references(silver: Silver, run: Run) -> RowAccount:
    """Replay rows that only a foreign key rejected, once the referenced tables have changed since the last attempt."""
    contract = silver.spec.contract
    keys = {rule.id for rule in contract.rules if rule.kind == "foreign_key"} if contract is not None else set()
    handle = silver.table.open()
    if not keys or handle is None or not _references_moved(silver, handle):
        return RowAccount()
    with silver.engine.session() as session:
        relation = ErrorTable(silver.lake).current(session, asset=silver.app_id)
        if relation is None:
            return RowAccount()
        names = ", ".join(map(literal, sorted(keys)))
        sql = f"SELECT error_id FROM {relation} WHERE len(rules) > 0 AND list_has_all([{names}], rules)"  # noqa: S608
        waiting = [row[0] for row in session.execute(sql)]
    return replay(silver, run, error_ids=waiting, retries=True) if waiting else RowAccount()


def _references_moved(silver: Silver, handle: Handle) -> bool:
    return any(
        handle.committed(f"reference:{name}") < opened.committed(opened.table.name)
        for name, opened in silver.references().items()
    )
