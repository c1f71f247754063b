"""Bronze: what a source gave, as it came, appended with its provenance; one commit per piece of work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from etl_assets.error_writer import ErrorWriter
from etl_assets.errors import Budget
from etl_assets.landing import Landed, Landing
from etl_assets.ledger import Ledger
from etl_assets.partitions import overtaken, read_batches
from etl_assets.run import Run
from etl_resources.exceptions import ConfigurationError, RowsNotConservedError
from etl_resources.lake import Handle, Lake, LakeTable
from etl_resources.source import Batch, Position, Snapshot, Source, Stream

if TYPE_CHECKING:
    from etl_assets.landing import Piece

COMMIT_ROWS = 2_000_000
"""A source that can resume in the middle is committed about every so many rows."""
REFRESH_MARK = "refresh"
"""Delta `txn` that holds the batch with which the newest full refresh began."""


class Bronze:
    """Lands one stream in `bronze/<pipeline>/<stream>`."""

    def __init__(
        self,
        lake: Lake,
        pipeline: str,
        stream: Stream,
        *,
        commit_rows: int = COMMIT_ROWS,
        budget: Budget = Budget(),  # noqa: B008 - frozen
    ) -> None:
        self.table: LakeTable = lake.table("bronze", pipeline, stream.name)
        self.budget = budget
        self.stream = stream
        self.app_id = self.table.name
        self.lake = lake
        self.ledger = Ledger(lake)
        # A snapshot, a partition and a full refresh are whole or not there: silver concludes from what is missing.
        whole = isinstance(stream.capture, Snapshot) or stream.window is not None
        self._commit_rows = None if whole else commit_rows

    def position(self) -> Position | None:
        """Return where the source has been read to."""
        return self.position_at(self.table.open())

    def position_at(self, handle: Handle | None) -> Position | None:
        """Return where the source had been read to as of `handle`: it stands in the newest commit."""
        return self.record_at(handle).get("position")

    def record_at(self, handle: Handle | None) -> Mapping[str, Any]:
        """Return the record of the newest commit as of `handle`; empty if there is none."""
        if handle is None or handle.committed(self.app_id) == 0:
            return {}
        # In the log while it is young, in the ledger for good.
        return handle.record(self.app_id) or self.ledger.last_record(self.app_id) or {}

    def land(self, source: Source, run: Run, *, full_refresh: bool = False) -> Landed:
        """Read what is new and append it.

        Raises:
            ConfigurationError: a full refresh of a source that has forgotten what it gave.
            RowsNotConservedError: the source says it produced other rows than arrived, or it stopped before its end.
            ErrorBudgetExceededError: too many records are unreadable; the work of the message was not committed.
            ConcurrentCommitError: another run of the same stream was faster; this one wrote nothing more.
        """
        opened = self.table.open()
        if full_refresh and opened is not None and not source.rereads(self.stream):
            raise ConfigurationError(
                "a full refresh cannot be made of what the source has forgotten: bronze alone still has it",
                where=self.table.name,
                fix="leave bronze out, and build silver anew from it: --full-refresh --select silver",
            )
        if opened is not None:
            self.ledger.copy(opened, self.app_id)
            ErrorWriter(self.lake, self.app_id, run).settle(opened)
        fresh = full_refresh or self.stream.window is not None
        since = None if fresh else self.position_at(opened)
        landing = Landing(self, run, opened)
        reading = _Reading(self, landing, full_refresh=full_refresh)
        landed = reading.consume(source.read(self.stream, since), source)
        if landing.handle is not None:
            self._retire_errors(landing.handle, landing.errors)
        return landed

    def _retire_errors(self, handle: Handle, errors: ErrorWriter) -> None:
        """Close the errors of records that were read anew, by a snapshot, a full refresh, or the same partition."""
        import pyarrow as pa
        import pyarrow.compute as pc

        first = handle.committed(REFRESH_MARK)
        if isinstance(self.stream.capture, Snapshot) and self.stream.window is None:
            first = handle.committed(self.app_id)
        old: set[int] = set()
        if self.stream.window is not None:
            old = overtaken(read_batches(self.ledger.rows(self.app_id, max(first - 1, 0))))
        if first or old:
            again = pa.array(sorted(old), pa.int64())
            errors.retire(
                lambda rows: pc.or_(pc.less(rows["commit"], first), pc.is_in(rows["commit"], value_set=again)),
                "obsolete",
                "its records were read anew",
            )


class _Reading:
    """One run of `Bronze.land`."""

    def __init__(self, bronze: Bronze, landing: Landing, *, full_refresh: bool) -> None:
        self.bronze, self.landing, self.full_refresh = bronze, landing, full_refresh

    def consume(self, batches: Iterator[Batch], source: Source) -> Landed:
        """Stage every batch, committing where the source can resume."""
        limit = None if self.full_refresh else self.bronze._commit_rows  # noqa: SLF001 - one class in two halves
        landing = self.landing
        try:
            for batch in batches:
                piece = landing.stage(batch)
                if batch.position is not None:
                    piece.position = batch.position
                    if limit is not None and (batch.commit or piece.rows >= limit):
                        self._commit(piece, source)
            if landing.piece is not None:
                self._check_end(landing.piece)
                self._commit(landing.piece, source)
        except BaseException:
            landing.discard()
            raise
        return landing.landed()

    def _check_end(self, piece: Piece) -> None:
        """Notice a read that stopped before its end: the last batch carries a position, and only that in a snapshot."""
        if piece.position is None and self.bronze.stream.window is None:
            raise RowsNotConservedError(
                f"the source ended after {piece.read} records without the position that its last batch carries",
                where=self.bronze.table.name,
                fix="nothing more was committed; run again, and report it if it comes again: a defect of the source",
            )

    def _commit(self, piece: Piece, source: Source) -> None:
        bronze, landing = self.bronze, self.landing
        partition = bronze.stream.window is not None
        # A partition neither uses nor moves the position.
        position = bronze.position_at(landing.handle) if partition else piece.position
        marks = {REFRESH_MARK: piece.number} if self.full_refresh and not partition else None
        landing.commit(position, marks=marks)
        landing.run.point("bronze:before_acknowledge")
        if piece.position is not None:
            source.acknowledge(bronze.stream, piece.position)
        assert landing.handle is not None  # noqa: S101 - it was committed with
        bronze.table.tidy(landing.handle)
