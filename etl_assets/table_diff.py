"""Changes of a table without a log: its rows against its last state, as events of the log that bronze is.

An epoch is one complete look at the source. It is one commit: the events, the account, the position and the number of
the epoch, which is the `_pos` of its events. What is compared with is what that commit will follow, so two runs at once
cannot both find the same change. Where the database hashes its rows, only keys and hashes are moved, and the rows that
differ; else the rows come, and are hashed here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Literal

from etl_assets.capture_types import settled
from etl_assets.error_writer import ErrorWriter
from etl_assets.landing import Landed, Landing
from etl_assets.table_diff_compare import SAME, Comparison
from etl_assets.table_diff_look import Look, look_here, look_there
from etl_assets.table_diff_state import Mark, State, of_source
from etl_resources.source import Batch, Snapshot

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.bronze import Bronze
    from etl_assets.run import Run
    from etl_assets.table_diff_staged import Staged
    from etl_resources.engines.duckdb import DuckDB, Session
    from etl_resources.lake import Handle
    from etl_resources.source import Position, Source

_log = logging.getLogger(__name__)


class TableDiff:
    """Lands the changes of one stream in its bronze table."""

    def __init__(
        self, bronze: Bronze, key: Sequence[str], engine: DuckDB, *, hashes: Literal["auto", "here"] = "auto"
    ) -> None:
        self.bronze, self.key, self.engine, self.hashes = bronze, tuple(key), engine, hashes
        self.stream = replace(bronze.stream, capture=Snapshot())

    def land(self, source: Source, run: Run, *, fresh: bool = False, keep_position: bool = False) -> Landed:
        """Look at the whole source once, and commit what has changed.

        Args:
            fresh: compare all rows by their values, whatever their hashes.
            keep_position: the position stays where the source was read to, for a watermark; it is not one of ours.

        Raises:
            RowsNotConservedError: the source did not come to its end, or the account does not balance.
            ErrorBudgetExceededError: too many rows have no identity, or cannot be read; nothing was committed.
            SchemaConflictError: the key has another type than in the lake.
            ConcurrentCommitError: another run of the same stream was faster; nothing was written.
        """
        opened = healed(self.bronze, run)
        landing = Landing(self.bronze, run, opened)
        there = source.hashed(self.stream, self.key) if self.hashes == "auto" else None
        try:
            with self.engine.session() as session, there or nullcontext() as table:
                state = State(session, self.bronze, opened, self.key)
                if table is not None:
                    look: Look | None = look_there(session, table, state, self.key, fresh=fresh)
                else:
                    look = look_here(session, source, self.stream, state, self.key)
                if look is None:
                    return landing.landed()
                _Epoch(self, session, state, look, landing, fresh=fresh).commit(keep_position=keep_position)
        except BaseException:
            landing.discard()
            raise
        if look.position is not None:
            source.acknowledge(self.stream, look.position)
        assert landing.handle is not None  # noqa: S101 - it was committed with
        self.bronze.table.tidy(landing.handle)
        return landing.landed()


class _Epoch:
    """One comparison and its commit."""

    def __init__(
        self, diff: TableDiff, session: Session, state: State, look: Look, landing: Landing, *, fresh: bool
    ) -> None:
        self.diff, self.session, self.state, self.look, self.landing = diff, session, state, look, landing
        self.number = state.newest + 1
        self.first = self.number == 1
        mark = state.mark
        self.since = mark.since if mark.hashed_by == look.hashed_by and mark.since else self.number
        assert look.seen.schema is not None  # noqa: S101 - a look has found columns
        state.load(look.seen.schema, None if fresh else look.hashed_by)
        self.comparison = Comparison(session, state, look.seen, diff.key)

    def commit(self, *, keep_position: bool) -> None:
        """Find the changes, stage them, and commit them."""
        comparison, look, landing, state = self.comparison, self.look, self.landing, self.state
        comparison.judge(look.hash_sql)
        look.unread.settle("SELECT * FROM seen")
        held = look.unread.nameless
        if held:
            _log.warning(
                "%s: %d rows cannot be read, and do not say which keys they have: deletes wait until they can",
                self.diff.bronze.table.name, held,
            )  # fmt: skip
            self.session.execute("CREATE TEMP TABLE gone AS SELECT * FROM live WHERE false")
        else:
            comparison.find_gone()
        rows = look.changed_rows(comparison)
        comparison.remember()
        kept = comparison.keep(rows, self.since)
        self._stage(rows)
        position, mark = self._position(keep_position=keep_position)
        landing.commit(mark.within(position), record={"deletes_held_back": held} if held else None)
        self._retire_errors()
        landing.run.point("diff:before_note")
        if comparison.counts.get("unknown") and not keep_position:
            state.note(kept, look.hashed_by)

    def _stage(self, rows: Staged) -> None:
        comparison, look, landing = self.comparison, self.look, self.landing
        read = look.read + comparison.gone
        nothing = settled(Batch(comparison.nothing(rows), read), landing)
        landing.stage(nothing)
        number = 0
        for batch in comparison.events(rows, first=self.first):
            landing.stage(settled(Batch(self._placed(batch, number), read), landing))
            number += batch.num_rows
        for unreadable in chain(look.unread.rows(), comparison.bad()):
            landing.stage(replace(nothing, unreadable=unreadable))
        landing.same(comparison.counts.get(SAME, 0))

    def _placed(self, batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
        """Return the events with their place in the log."""
        import numpy as np
        import pyarrow as pa

        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        columns["_pos"] = pa.repeat(pa.scalar(self.number, pa.int64()), batch.num_rows)
        columns["_seq"] = pa.array(np.arange(first, first + batch.num_rows, dtype=np.int64))
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)

    def _position(self, *, keep_position: bool) -> tuple[Position | None, Mark]:
        if keep_position:
            old = of_source(self.diff.bronze.position_at(self.state.handle))
            return old, replace(self.state.mark, epoch=self.number, reconciled=datetime.now(UTC).isoformat())
        return self.look.position, Mark(self.number, self.look.hashed_by, self.since)

    def _retire_errors(self) -> None:
        """Close the errors of earlier epochs: all rows were read anew, and what is still wrong is an error anew."""
        import pyarrow.compute as pc

        newest = self.landing.number - 1
        self.landing.errors.retire(
            lambda errors: pc.less(errors["commit"], newest), "obsolete", "its record was read anew"
        )


def healed(bronze: Bronze, run: Run) -> Handle | None:
    """Open a bronze table, and finish what a killed run left undone behind its commit."""
    opened = bronze.table.open()
    if opened is not None:
        bronze.ledger.copy(opened, bronze.app_id)
        ErrorWriter(bronze.lake, bronze.app_id, run).settle(opened)
    return opened
