"""The keys of a source against the keys that live in the log: what is no longer there was deleted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from etl_assets.table_diff_compare import Comparison
from etl_assets.table_diff_look import look_here
from etl_assets.table_diff_state import State
from etl_resources.change_log import DELETE, event_fields
from etl_resources.engines.duckdb import literal, quote
from etl_resources.source import Batch, Snapshot

if TYPE_CHECKING:
    from etl_assets.landing import Landing
    from etl_assets.table_diff_state import Mark
    from etl_assets.watermark import WatermarkLog
    from etl_resources.source import Position, Source, Stream

ORIGIN = "reconcile"
"""`_origin` of the deletes that are found this way."""


class Reconcile:
    """One look at all keys, and its commit."""

    def __init__(self, log: WatermarkLog, landing: Landing, mark: Mark, position: Position | None) -> None:
        self.log, self.landing, self.mark, self.position = log, landing, mark, position

    def commit(self, source: Source) -> None:
        """Commit deletes for the keys that are gone.

        Raises:
            RowsNotConservedError: the source stopped before its end; nothing was taken for deleted.
        """
        log, landing = self.log, self.landing
        began = datetime.now(UTC).isoformat()
        with log.engine.session() as session:
            state = State(session, log.bronze, landing.handle, log.key)
            look = look_here(session, source, keys_only(log.bronze.stream, log.key), state, log.key, only_key=True)
            if look is None:
                return
            assert look.seen.schema is not None  # noqa: S101 - a look has found columns
            state.load(look.seen.schema, None)
            look.unread.settle("SELECT * FROM seen")
            comparison = Comparison(session, state, look.seen, log.key)
            if not look.unread.nameless:  # else nobody knows which keys are gone
                comparison.find_gone()
            self._stage(comparison, look.read, look.seen.rows + look.unread.rows_kept)
        mark = replace(self.mark, epoch=self.mark.epoch + 1, reconciled=began)
        landing.commit(mark.within(self.position))

    def _stage(self, comparison: Comparison, read: int, came: int) -> None:
        import pyarrow as pa

        from etl_resources.delta.evolution import conform

        landing, state, key = self.landing, comparison.state, self.log.key
        assert state.schema is not None  # noqa: S101 - the log is there
        row = pa.schema([state.schema.field(name) for name in key])
        schema = pa.schema([*row, *event_fields(row)])
        total = landing.read_before + read + comparison.gone
        landing.stage(Batch(pa.RecordBatch.from_pylist([], schema=schema), total))
        sql = (
            f"SELECT {', '.join(map(quote, key))}, {literal(DELETE)} AS _op, {self.mark.epoch + 1}::BIGINT AS _pos, "  # noqa: S608
            f"(row_number() OVER () - 1)::BIGINT AS _seq, {literal(ORIGIN)} AS _origin FROM gone"
        )
        if comparison.gone:
            for batch in comparison.session.stream(sql):
                landing.stage(Batch(conform(batch, schema, where=landing.bronze.table.name), total))
        landing.same(came)


def keys_only(stream: Stream, key: tuple[str, ...]) -> Stream:
    """Return how to read a snapshot of a stream: only the columns of its key, where the source can leave out others."""
    options = stream.options
    if "columns" in type(options).model_fields and "tuple" in str(type(options).model_fields["columns"].annotation):
        options = options.model_copy(update={"columns": key})
    return replace(stream, options=options, capture=Snapshot())
