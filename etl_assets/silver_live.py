"""Silver as it would be now: the table, and over it what is still pending in bronze, merged while it is read.

The rows that are pending go through the same steps, contract and fates as in a refining, up to the decision what each
does to the table; nothing is written. What they do is kept in two small temporary tables of the session, and the
relation reads the table without the rows that go, and with those that come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl_assets.run import Run
from etl_assets.silver import Silver
from etl_assets.silver_commit import Refinement
from etl_assets.silver_passing import Counting, Passed, held
from etl_assets.silver_work import pending
from etl_resources.engines.duckdb import quote
from etl_resources.exceptions import NotFoundError

if TYPE_CHECKING:
    from etl_assets.silver_work import Work
    from etl_resources.engines.duckdb import Session
    from etl_resources.lake import Handle

ALL = 2**62
"""Rows of a commit: whatever is pending is looked at at once."""


def live(silver: Silver, session: Session) -> str:
    """Return SQL, usable after FROM, for a silver table as it would be after a refining at this moment.

    It has the columns of the table, and holds in `session`, whose temporary tables it reads. Nothing is written: not
    the table, not the errors of rows that do not get through, which are left out of it as they would be.

    Raises:
        NotFoundError: nothing has been loaded yet.
        ErrorBudgetExceededError, ContractViolationError: a refining would publish nothing.
    """
    bronze, handle = silver.bronze.open(), silver.table.open()
    if bronze is None:
        raise NotFoundError(f"{silver.bronze.name} has not been loaded yet", fix="run the pipeline first")
    whole = Silver(silver.lake, silver.engine, silver.spec, commit_rows=ALL)
    work = _pending(whole, session, bronze, handle)
    if work is None:
        if handle is None:
            raise NotFoundError(f"{silver.bronze.name} has no rows yet", fix="run the pipeline again when there are")
        return session.lake_relation(handle)
    refinement = Refinement(whole, session, bronze, handle, work, Run("live"))
    refinement.decide()
    refinement.check(_passed(refinement))
    return _merged(refinement)


def _pending(silver: Silver, session: Session, bronze: Handle, handle: Handle | None) -> Work | None:
    work = pending(silver, session, bronze, handle, full_refresh=False, window=None)
    if work is not None and work.more:
        # Several snapshots replace each other one by one; all of them together are judged as for a table built anew.
        work = pending(silver, session, bronze, handle, full_refresh=True, window=None)
    return work


def _passed(refinement: Refinement) -> Passed:
    """Count the fates of the rows."""
    if not refinement.streams:
        return held(refinement)
    counting = Counting(refinement, refinement.schema)
    for _ in counting.kept():
        pass
    return Passed(counting.fates, counting.hits)


def _merged(refinement: Refinement) -> str:
    session, versions, schema = refinement.session, refinement.versions, refinement.schema
    rows, gone = session.temporary("live_rows"), session.temporary("live_gone")
    session.connection.register("live_shape", schema.empty_table())
    kinds = session.types("live_shape")
    columns = ", ".join(f"CAST(j.{quote(name)} AS {kinds[name]}) AS {quote(name)}" for name in schema.names)
    session.execute(
        f"CREATE TEMP TABLE {rows} AS SELECT {columns} FROM fated j "  # noqa: S608
        "WHERE j.__action IN ('insert', 'update')"
    )
    if refinement.meets is None:
        return rows
    session.execute(
        f"CREATE TEMP TABLE {gone} AS SELECT {versions.keys('j')} FROM fated j "  # noqa: S608
        f"WHERE j.__action IN ('update', 'delete') UNION SELECT {versions.keys('r')} FROM removed r"
    )
    stays = f"SELECT s.* FROM {refinement.meets} s ANTI JOIN {gone} g ON {versions.same_key('g', 's')}"  # noqa: S608
    return f"({stays} UNION ALL BY NAME SELECT * FROM {rows})"  # noqa: S608
