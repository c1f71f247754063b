"""Watermark capture: what a cursor column finds, as events of a log, and now and then all keys, for what was deleted.

A row that a cursor finds was inserted or updated, and nobody can tell which: its `_op` is `read`. A deleted row leaves
nothing for a cursor to find, so every few hours the keys of the source, of one snapshot, are held against the keys that
live in the log. The cursor is moved first: a key that the snapshot has and the log has not came in between, and is the
next run's; and whatever comes back after the snapshot is an event with a greater `_pos` than the delete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from etl_assets.capture_types import settled
from etl_assets.landing import Landed, Landing
from etl_assets.table_diff import TableDiff, healed
from etl_assets.table_diff_state import Mark, State, of_source
from etl_assets.watermark_events import Events
from etl_assets.watermark_keys import Reconcile
from etl_resources.exceptions import RowsNotConservedError
from etl_resources.source import Incremental

if TYPE_CHECKING:
    from etl_assets.bronze import Bronze
    from etl_assets.run import Run
    from etl_resources.engines.duckdb import DuckDB
    from etl_resources.source import Batch, Position, Source

COMMIT_ROWS = 2_000_000
"""A source that can resume in the middle is committed about every so many rows."""


class WatermarkLog:
    """Lands what a cursor finds in one bronze table."""

    def __init__(
        self,
        bronze: Bronze,
        key: Sequence[str],
        engine: DuckDB,
        *,
        reconcile_hours: float,
        commit_rows: int = COMMIT_ROWS,
    ) -> None:
        self.bronze, self.key, self.engine = bronze, tuple(key), engine
        self.every, self.commit_rows = timedelta(hours=reconcile_hours), commit_rows

    def land(self, source: Source, run: Run, *, fresh: bool = False) -> Landed:
        """Read what is new, and look for deleted keys if it is time to.

        Args:
            fresh: compare the whole table by its values too; it finds deletes as well.

        Raises:
            RowsNotConservedError: the source stopped before its end, or the account does not balance.
            ErrorBudgetExceededError: too many rows cannot be read, or have no key; they were not committed.
            ConcurrentCommitError: another run of the same stream was faster; this one wrote nothing more.
        """
        opened = healed(self.bronze, run)
        landing = Landing(self.bronze, run, opened)
        before = self.bronze.position_at(opened)
        try:
            reading = _Reading(self, landing, source, before)
            reading.consume()
            if reading.first or landing.handle is None or not (fresh or self._is_due(reading.mark)):
                return landing.landed()
            if not fresh:
                run.point("watermark:before_reconcile")
                Reconcile(self, landing, reading.mark, reading.position).commit(source)
                return landing.landed()
        except BaseException:
            landing.discard()
            raise
        whole = TableDiff(self.bronze, self.key, self.engine, hashes="here")
        return _added(landing.landed(), whole.land(source, run, fresh=True, keep_position=True))

    def _is_due(self, mark: Mark) -> bool:
        last = datetime.fromisoformat(mark.reconciled) if mark.reconciled else None
        return last is None or datetime.now(UTC) - last >= self.every


class _Reading:
    """The part of a run that follows the cursor."""

    def __init__(self, log: WatermarkLog, landing: Landing, source: Source, before: Position | None) -> None:
        self.log, self.landing, self.source = log, landing, source
        self.position, self.mark = of_source(before), Mark.of(before)
        capture = log.bronze.stream.capture
        cursor = capture.cursor if isinstance(capture, Incremental) else None
        self.first = before is None
        if self.mark.cursor != cursor:
            # What is there was read in another way, or by another column: everything is read once more.
            self.position = None
            self.mark = Mark(self._newest(), cursor=cursor)
        schema = landing.handle.schema() if landing.handle is not None else None
        self.events = Events(log.key, schema, log.bronze.table.name)

    def _newest(self) -> int:
        with self.log.engine.session() as session:
            return State(session, self.log.bronze, self.landing.handle, self.log.key).newest

    def consume(self) -> None:
        """Commit what the source has, where it can resume."""
        began = datetime.now(UTC).isoformat()
        for batch in self.source.read(self.log.bronze.stream, self.position):
            piece = self.landing.stage(settled(self._as_events(batch), self.landing))
            if batch.position is not None:
                piece.position = batch.position
                if batch.commit or piece.rows >= self.log.commit_rows:
                    self._commit(batch.position)
        last = self.landing.piece
        if last is None:
            return
        if last.position is None:
            raise RowsNotConservedError(
                f"the source ended after {last.read} records without the position that its last batch carries",
                where=self.log.bronze.table.name,
                fix="nothing more was committed; run again, and report it if it comes again: a defect of the source",
            )
        if self.first:
            # All rows were read just now: there is nothing that could have been deleted before.
            self.mark = replace(self.mark, reconciled=began)
        self._commit(last.position)

    def _as_events(self, batch: Batch) -> Batch:
        number = self.mark.epoch + 1
        if self.landing.piece is None:
            self.events.begin(number)
        return self.events.of(batch)

    def _commit(self, position: Position) -> None:
        self.mark = replace(self.mark, epoch=self.mark.epoch + 1)
        self.position = position
        self.landing.commit(self.mark.within(position))
        self.landing.run.point("watermark:after_commit")
        self.source.acknowledge(self.log.bronze.stream, position)
        assert self.landing.handle is not None  # noqa: S101 - it was committed with
        self.log.bronze.table.tidy(self.landing.handle)


def _added(left: Landed, right: Landed) -> Landed:
    return Landed(left.account + right.account, (*left.batches, *right.batches), right.delta_version)
