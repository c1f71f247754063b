"""Which bronze rows a silver table has still to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etl_assets.bronze import REFRESH_MARK
from etl_assets.compaction_record import COMPACTED_MARK, compacted
from etl_assets.partitions import BatchInfo, Part, overtaken, read_batches
from etl_assets.provenance import PARTITION
from etl_assets.silver_extent import rows_between
from etl_resources.engines.duckdb import Session

if TYPE_CHECKING:
    from etl_assets.silver import Silver
    from etl_resources.lake import Handle
    from etl_resources.source import Window

BRONZE_MARK = "bronze"
"""Delta `txn` of a silver table: the newest bronze batch that it contains."""
RENEWED_MARK = "renewed"
"""Delta `txn` of a silver table: the number of its newest commit that judged everything anew."""


@dataclass(frozen=True)
class Work:
    """The bronze rows of one commit."""

    relation: str
    read: int
    batches: Sequence[BatchInfo]
    marks: Mapping[str, int] = field(default_factory=dict)
    rebuild: bool = False
    window: Window | None = None
    replay: bool = False
    retries: bool = False
    """All rows that wait for a foreign key are tried again."""
    history: str | None = None
    """SQL relation of the bronze rows that were judged before and may hold newer versions."""
    more: bool = False
    """There are further rows for another commit."""
    snapshots: Sequence[int] = ()
    """Snapshots in `history`, oldest first."""

    @property
    def part(self) -> Part | None:
        """The one partition that the work replaces."""
        return Part.of(self.window) if self.window is not None else None


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
    # Bronze was read anew from the source, or compacted beyond what the table has read: it shows no way from there.
    stale = handle is not None and (handle.committed(REFRESH_MARK) < base or done < bronze.committed(COMPACTED_MARK))
    rebuild = full_refresh or stale
    start = max(base - 1, 0)
    above = start if rebuild or handle is None else max(done, start)
    # All that were read before matter where snapshots or partitions replace each other.
    replacing = silver.spec.snapshot or PARTITION in bronze.schema().names
    batches = _batches(silver, bronze, start if replacing else above)
    old = overtaken(batches)
    waiting = [batch for batch in batches if batch.number > above and batch.number not in old]
    # A batch without rows only moves a source's position; but a snapshot or a partition may have become empty.
    moved = any(batch.rows for batch in waiting) if silver.spec.captured else bool(waiting)
    if not moved and not (rebuild and handle is not None):
        return None
    taken = waiting if rebuild else _first(silver, waiting)
    # Of a change log, what was judged before is never newer.
    compares = above > start and not silver.spec.captured
    upto = taken[-1].number if taken else above
    return Work(
        rows_between(session, bronze, above, upto, old),
        sum(batch.rows for batch in taken),
        taken,
        {BRONZE_MARK: upto, REFRESH_MARK: base} if base else {BRONZE_MARK: upto},
        rebuild=rebuild,
        more=len(taken) < len(waiting),
        history=rows_between(session, bronze, start, above, old) if compares and not rebuild else None,
        snapshots=[batch.number for batch in batches if batch.number <= above] if silver.spec.snapshot else (),
    )


def _batches(silver: Silver, bronze: Handle, above: int = 0) -> list[BatchInfo]:
    """Return the bronze batches beyond `above`, oldest first, as of `bronze`: the ledger may know newer ones by now."""
    known = bronze.committed(silver.bronze.name)
    last = compacted(silver.ledger, bronze)
    if last is not None and above < last.upto:
        return [BatchInfo(last.upto, last.kept), *_batches(silver, bronze, last.upto)]
    return [batch for batch in read_batches(silver.ledger.rows(silver.bronze.name, above)) if batch.number <= known]


def _first(silver: Silver, waiting: Sequence[BatchInfo]) -> Sequence[BatchInfo]:
    """Return the batches of the next commit: one snapshot, or as many others as the rows of a commit allow."""
    if silver.spec.snapshot:
        return waiting[:1]
    rows = 0
    for count, batch in enumerate(waiting):
        rows += batch.rows
        if count and rows > silver.commit_rows:
            return waiting[:count]
    return waiting


def _partition(silver: Silver, session: Session, bronze: Handle, window: Window) -> Work | None:
    wanted = (window.start, window.end)
    batches = [
        batch
        for batch in _batches(silver, bronze)
        if batch.part is not None and (batch.part.start, batch.part.end) == wanted
    ]
    if not batches:
        return None
    newest = batches[-1]
    relation = rows_between(session, bronze, newest.number - 1, newest.number)
    return Work(relation, newest.rows, [newest], window=window)
