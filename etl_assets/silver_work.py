"""Which bronze rows a silver table has still to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etl_assets.bronze import REFRESH_MARK
from etl_resources.engines.duckdb import Session, literal, quote
from etl_resources.source import Window

if TYPE_CHECKING:
    from etl_assets.silver import Silver
    from etl_assets.silver_query import Judgement
    from etl_resources.lake import Handle

BRONZE_MARK = "bronze"
"""Delta `txn` of a silver table: the newest bronze batch that it contains."""


@dataclass(frozen=True)
class Work:
    """The bronze rows of one commit."""

    relation: str
    read: int
    marks: Mapping[str, int] = field(default_factory=dict)
    rebuild: bool = False
    window: Window | None = None
    rivals: str | None = None
    """SQL relation of other versions of the same keys, which may be newer."""
    replay: bool = False
    superseded: int = 0
    """Rows of snapshots that a newer snapshot in the same work replaces as a whole."""
    partition: str | None = None


def pending(
    silver: Silver,
    session: Session,
    bronze: Handle,
    handle: Handle | None,
    *,
    full_refresh: bool,
    window: Window | None,
) -> Work | None:
    """Return the next piece of work, or None."""
    if window is not None:
        return _partition(silver, session, bronze, window)
    base = bronze.committed(REFRESH_MARK)
    done = handle.committed(BRONZE_MARK) if handle is not None else 0
    # Bronze was read anew from the source: what the table holds is of an older reading.
    rebuild = full_refresh or (handle is not None and handle.committed(REFRESH_MARK) < base)
    above = base - 1 if base and (rebuild or handle is None) else 0 if rebuild else done
    accounts = silver.ledger.rows(silver.bronze.name, above)
    if not accounts and not (rebuild and handle is not None):
        return None
    return _span(silver, session, bronze, accounts, above, rebuild=rebuild, base=base)


def _span(
    silver: Silver,
    session: Session,
    bronze: Handle,
    accounts: list[dict[str, object]],
    above: int,
    *,
    rebuild: bool,
    base: int,
) -> Work:
    rows, upto = 0, above
    skipped = 0
    for account in accounts:
        inserted = int(account["inserted"])  # type: ignore[call-overload]
        if rows and not rebuild and not silver.spec.snapshot and rows + inserted > silver.commit_rows:
            break
        rows += inserted
        upto = int(account["version"])  # type: ignore[call-overload]
        if silver.spec.snapshot:
            skipped = rows - inserted
    low = upto - 1 if silver.spec.snapshot and accounts else above
    relation = span_relation(session, bronze, low, upto)
    marks = {BRONZE_MARK: upto, REFRESH_MARK: base} if base else {BRONZE_MARK: upto}
    start = max(base - 1, 0)
    rivals = None
    if silver.spec.order and above > start and not rebuild:
        rivals = left_behind(silver, session, bronze, start, above)
    return Work(relation, rows, marks, rebuild=rebuild, rivals=rivals, superseded=skipped)


def span_relation(session: Session, bronze: Handle, above: int, upto: int) -> str:
    """Return SQL after FROM: the bronze rows with `above < _batch <= upto`."""
    scan = session.lake_relation(bronze, column="_batch", above=above)
    return f"(SELECT * FROM {scan} WHERE _batch > {above} AND _batch <= {upto})"  # noqa: S608


def left_behind(silver: Silver, session: Session, bronze: Handle, above: int, upto: int) -> str | None:
    """Return a table of the versions in bronze that are in no silver row: deletions and filtered rows.

    Where the user says what orders the versions, an older one may arrive after a newer one took its key out of the
    table; the silver table cannot tell, bronze can.
    """
    everything = span_relation(session, bronze, above, upto)
    judgement = silver.judgement(session, bronze, everything)
    gone = f"({judgement.kept()}) AND j._op = 'delete'"
    if any(verdict.fate == "filtered" for verdict in judgement.verdicts):
        gone += f" OR ({judgement.fate()}) LIKE 'filtered:%'"
    return create_rivals(silver, session, judgement, gone)


def create_rivals(silver: Silver, session: Session, judgement: Judgement, where: str, antijoin: str = "") -> str:
    """Create and return the table `rivals`: key, order and provenance of judged bronze rows (alias `j`)."""
    spec = silver.spec
    columns = ", ".join(f"j.{quote(name)}" for name in dict.fromkeys((*spec.key, *spec.order)))
    session.execute(
        f"CREATE OR REPLACE TEMP TABLE rivals AS SELECT {columns}, j._seq, j._batch, j._row "  # noqa: S608
        f"FROM ({judgement.sql}) j {antijoin} WHERE {where}"
    )
    return "rivals"


def _partition(silver: Silver, session: Session, bronze: Handle, window: Window) -> Work | None:
    name = window.start.isoformat()
    accounts = [row for row in silver.ledger.rows(silver.bronze.name) if f'"partition": "{name}"' in str(row["record"])]
    if not accounts:
        return None
    batch = int(accounts[-1]["version"])
    scan = session.lake_relation(bronze, column="_batch", above=batch - 1)
    relation = f"(SELECT * FROM {scan} WHERE _batch = {batch} AND {quote('_partition')} = {literal(name)})"  # noqa: S608
    return Work(relation, int(accounts[-1]["inserted"]), {}, window=window, partition=name)
