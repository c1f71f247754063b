"""One read of a stream of MySQL: what it asks for, which rows it leaves out, and where it ends."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import SchemaConflictError
from etl_resources.read_ahead import merged
from etl_resources.source import Batch, Position
from etl_resources.sources.mysql_columns import fits
from etl_resources.sources.mysql_horizon import Horizon, kind_of, take
from etl_resources.sources.mysql_parallel import SNAPSHOT, ranges, same_moment
from etl_resources.sources.mysql_plan import Plan, new_rows
from etl_resources.sources.mysql_seen import Seen
from etl_resources.sources.mysql_values import finish, fit

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from etl_resources.mysql import MysqlConnection
    from etl_resources.mysql_session import Session
    from etl_resources.mysql_wire import Block
    from etl_resources.sources.mysql import MysqlStreamOptions

Cells = tuple["Block", list["pa.Array"]]
Records = tuple["pa.RecordBatch", "pa.RecordBatch | None"]


class Overlap:
    """The rows of an incremental read: which of them are new, and which the next read will meet again."""

    def __init__(self, plan: Plan, horizon: Horizon, since: Position | None) -> None:
        self.plan, self.horizon, self.is_first = plan, horizon, since is None
        self.seen = Seen(since["seen"] if since is not None else None, plan.where)

    def new(self, block: Block, cells: list[pa.Array]) -> np.ndarray[Any, Any]:
        """Return which rows have not been read before, and remember those that come again."""
        import numpy as np
        import pyarrow as pa

        again = self._again(cells)
        if not self.is_first:
            digests = self.seen.digests(block.rows())
            self.seen.keep(digests[again])
            return self.seen.new(digests)
        if again.any():
            self.seen.keep(self.seen.digests(block.rows().filter(pa.array(again))))
        return np.ones(len(block), bool)

    def _again(self, cells: list[pa.Array]) -> np.ndarray[Any, Any]:
        """Return which rows are from the horizon on, or without a cursor (or one that is no date)."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        cursor, low = self.plan.cursor, self.horizon.low
        assert cursor is not None  # noqa: S101 - without one there is no overlap
        if low is None:
            return np.ones(len(cells[0]), bool)
        values, _ = fit(cells[self.plan.selected.index(cursor)], cursor)
        if pa.types.is_timestamp(cursor.arrow):
            values = values.cast(pa.timestamp("us"))
        bound = pa.scalar(low.date() if pa.types.is_date(values.type) else low, values.type)  # type: ignore[union-attr]
        above = pc.greater_equal(values, bound)
        again: np.ndarray[Any, Any] = pc.fill_null(above, True).to_numpy(zero_copy_only=False)  # noqa: FBT003 - the fill value
        return again

    def position(self) -> Position:
        """Return where the next read goes on."""
        return {**self.horizon.to_position(), "seen": self.seen.to_text()}


class Reading:
    """Yields the batches of a plan, in one consistent snapshot."""

    def __init__(self, plan: Plan, options: MysqlStreamOptions, batch_rows: int, *, positioned: bool) -> None:
        self.plan, self.options, self.batch_rows, self.positioned = plan, options, batch_rows, positioned
        self.conditions = list(plan.conditions)
        self.overlap: Overlap | None = None

    def begin(self, session: Session, since: Position | None) -> None:
        """Find out what is new; a snapshot that begins afterwards holds all of it."""
        plan, options = self.plan, self.options
        if plan.cursor is None:
            return
        earlier = Horizon.from_position(since, kind_of(plan.cursor, plan.where)) if since is not None else None
        horizon = take(session, plan.relation, plan.cursor, earlier, settle=options.settle, late_by=options.late_by)
        self.overlap = Overlap(plan, horizon, since)
        if earlier is not None:
            self.conditions += new_rows(plan.cursor, earlier)

    def batches(self, connection: MysqlConnection, session: Session) -> Generator[Batch, None, None]:
        """Yield the batches, each held back until it is known whether it is the last, which carries the position."""
        import pyarrow as pa

        held: Records | None = None
        rows_read = 0
        for block, cells in self._cells(connection, session):
            if self.overlap is not None:
                new = self.overlap.new(block, cells)
                rows = int(new.sum())
                if rows == 0:
                    continue
                kept = cells if rows == len(block) else [c.filter(pa.array(new)) for c in cells]
            else:
                rows, kept = len(block), cells
            if held is not None:
                yield Batch(held[0], rows_read, unreadable=held[1])
            rows_read += rows
            held = finish(kept[: len(self.plan.columns)], self.plan.columns, self.plan.where)
        if held is None and self.overlap is None:
            held = pa.RecordBatch.from_pylist([], schema=self.plan.schema), None
        if held is not None:
            yield Batch(held[0], rows_read, self._position(), held[1])

    def _position(self) -> Position | None:
        if self.overlap is not None:
            return self.overlap.position()
        return {"snapshot": True} if self.positioned else None

    def _cells(self, connection: MysqlConnection, session: Session) -> Iterator[Cells]:
        parallel, relation = self.options.parallel, self.plan.relation
        if parallel is None:
            session.execute(SNAPSHOT)
            yield from self._part(session, self.conditions)
            return
        parts = ranges(session, relation, parallel.column, parallel.parts)
        with same_moment(connection, relation, len(parts)) as sessions:
            conditions = [[*self.conditions, part] for part in parts]
            yield from merged([self._part(*both) for both in zip(sessions, conditions, strict=True)])

    def _part(self, session: Session, conditions: list[str]) -> Generator[Cells, None, None]:
        selected = self.plan.selected
        fields, blocks = session.stream(self.plan.query(conditions), rows=self.batch_rows)
        for column, field in zip(selected, fields, strict=True):
            if not fits(column, field, self.options.tinyint1):
                raise SchemaConflictError(
                    f"column {column.name} was described as {column.arrow} and is that no more: the table changed while"
                    " it was read", where=self.plan.where, fix="run again",
                )  # fmt: skip
        for block in blocks:
            yield block, block.columns(len(selected), session.where)
