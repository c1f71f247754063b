"""Replay of rejected rows through today's steps and rules: as often as wanted, in any order, never over a newer row."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from etl_assets.account import RowAccount
from etl_assets.bronze import REFRESH_MARK
from etl_assets.errors import ErrorTable
from etl_assets.run import Run
from etl_assets.silver_commit import Refinement
from etl_assets.silver_work import BRONZE_MARK, Work, create_rivals, span_relation
from etl_resources.engines.duckdb import Session, literal

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.silver import Silver
    from etl_resources.lake import Handle


def replay(silver: Silver, run: Run, *, error_ids: Collection[str] | None = None) -> RowAccount:
    """Judge open errors of a silver table again; what gets through now enters the table and is closed.

    Args:
        error_ids: which errors; None: all open ones of the table.

    Returns:
        The account of the replay: `read` is the number of errors taken up, `rejected` what stays open.
    """
    with silver.engine.session() as session:
        bronze, handle = silver.bronze.open(), silver.table.open()
        errors = ErrorTable(silver.lake)
        relation = errors.current(session, asset=silver.app_id)
        if bronze is None or handle is None or relation is None:
            return RowAccount()
        base = bronze.committed(REFRESH_MARK)
        chosen = "" if error_ids is None else f"WHERE error_id IN ({', '.join(map(literal, error_ids)) or 'NULL'})"
        session.execute(f"CREATE TEMP TABLE chosen AS SELECT * FROM {relation} {chosen}")  # noqa: S608
        # Errors of an older reading of the source went with it when the table was built anew.
        session.execute(f"DELETE FROM chosen WHERE batch < {base}")  # noqa: S608
        read = session.execute("SELECT count(*) FROM chosen")[0][0]
        if read == 0:
            return RowAccount()
        upto = handle.committed(BRONZE_MARK)
        low = session.execute("SELECT min(batch) - 1 FROM chosen")[0][0]
        rows = f"(SELECT b.* FROM {span_relation(session, bronze, low, upto)} b SEMI JOIN chosen e ON b._batch = e.batch AND b._row = e.row)"  # noqa: S608
        work = Work(rows, read, rivals=_rivals(silver, session, bronze, relation, base, upto), replay=True)
        refinement = Refinement(silver, session, silver.judgement(session, bronze, rows), work, handle, run)
        account, _ = refinement.publish()
        run.point("replay:before_close")
        errors.close(_settled(session), "replayed", "entered the table, or a newer version had", run)
        return account


def _rivals(silver: Silver, session: Session, bronze: Handle, errors: str, base: int, upto: int) -> str:
    """Create and return a table of the accepted versions, anywhere in bronze, of the keys that are replayed.

    The silver table alone cannot tell that a key was deleted, filtered, or confirmed unchanged after the row that is
    replayed; bronze can.
    """
    everything = span_relation(session, bronze, max(base - 1, 0), upto)
    judgement = silver.judgement(session, bronze, everything)
    accepted = f"({judgement.kept()})"
    if any(verdict.fate == "filtered" for verdict in judgement.verdicts):
        accepted += f" OR ({judgement.fate()}) LIKE 'filtered:%'"
    # Rows that stay rejected decide nothing, whatever today's rules would say of them.
    still_open = f"ANTI JOIN {errors} e ON e.batch = j._batch AND e.row = j._row"
    return create_rivals(silver, session, judgement, accepted, still_open)


def _settled(session: Session) -> pa.Table:
    return session.table(
        "SELECT c.* FROM chosen c JOIN judged j ON j._batch = c.batch AND j._row = c.row "
        "JOIN fated f ON f.rid = j.rowid WHERE f.fate NOT LIKE 'rejected:%'"
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
    return replay(silver, run, error_ids=waiting) if waiting else RowAccount()


def _references_moved(silver: Silver, handle: Handle) -> bool:
    return any(handle.committed(f"reference:{name}") < version for name, version in silver.reference_versions().items())
