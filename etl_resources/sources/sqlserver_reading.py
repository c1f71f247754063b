"""One read of a stream: its transaction, its connections, its batches and the position they end with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.read_ahead import merged
from etl_resources.source import Batch
from etl_resources.tables import positioned

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.sources.sqlserver import SqlServerStreamOptions
    from etl_resources.sources.sqlserver_columns import Column
    from etl_resources.sources.sqlserver_plan import Plan
    from etl_resources.sqlserver_session import Session

_LOG = logging.getLogger(__name__)
_AGAIN = "_etl_again"


@dataclass(frozen=True)
class Reading:
    """A session that knows the plan, and how to open more of them."""

    session: Session
    open: Callable[[], AbstractContextManager[Session]]
    plan: Plan
    options: SqlServerStreamOptions
    batch_rows: int

    def whole(self, *, with_position: bool) -> Iterator[Batch]:
        """Yield all rows, those of the window if there is one."""
        from etl_resources.sources.sqlserver_bounds import take_mark

        position = take_mark(self.session).to_position(None) if with_position else None
        if not begin(self.session):
            _LOG.warning(
                "%s does not allow SNAPSHOT isolation: rows that are moved by an update while they are read may be"
                " missed or come twice", self.plan.where,
            )  # fmt: skip
        found = self._finished(self.plan.conditions)
        yield from positioned(found, position, self.plan.schema(), keep_empty=True)

    def by_version(self, cursor: Column, since: Mapping[str, Any] | None) -> Iterator[Batch]:
        """Yield the rows that were written between the previous mark and the one that is taken now."""
        from etl_resources.sources.sqlserver_bounds import between_versions, take_mark

        mark = take_mark(self.session)
        if since is not None:
            mark.check_follows(since, self.plan.where)
        begin(self.session)
        found = self._finished(between_versions(cursor, since, mark))
        yield from positioned(found, mark.to_position(cursor), self.plan.schema(), keep_empty=False)

    def by_cursor(self, cursor: Column, since: Mapping[str, Any] | None) -> Iterator[Batch]:
        """Yield the rows near and behind the newest one of the previous read that it did not give."""
        from etl_resources.sources.sqlserver_bounds import check_cursor, reach, take_mark
        from etl_resources.sources.sqlserver_seen import Seen

        check_cursor(cursor, self.options.late_by, since, self.plan.where)
        late_by = self.options.late_by or 0
        mark = take_mark(self.session)
        if since is not None:
            mark.check_follows(since, self.plan.where)
        begin(self.session)
        reached = reach(self.session, self.plan.relation, cursor, late_by, since)
        seen = Seen(since["seen"] if since is not None else None, self.plan.where)
        repeated = 0
        held: Batch | None = None
        for raw in self._fetched(list(reached.conditions), [f"{reached.again} AS {_AGAIN}"]):
            count = raw.num_columns - 1
            new = seen.new_rows(raw.select(range(count)), raw.column(count))
            fresh = raw.filter(new)
            data, unreadable = self._finish(fresh.select(range(count)))
            repeated += raw.num_rows - fresh.num_rows
            read = (held.rows_read if held else 0) + repeated + fresh.num_rows
            if not fresh.num_rows:
                continue
            if held is not None:
                yield held
            held, repeated = Batch(data, read, unreadable=unreadable, repeated=repeated), 0
        if held is not None:
            newest = {"newest": reached.newest, "late_by": late_by, "seen": seen.to_text()}
            yield Batch(
                held.data, held.rows_read + repeated, mark.to_position(cursor) | newest, held.unreadable,
                held.repeated + repeated,
            )  # fmt: skip

    def _finished(self, conditions: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch | None]]:
        for raw in self._fetched(conditions, ()):
            yield self._finish(raw)

    def _finish(self, raw: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
        from etl_resources.sources.sqlserver_values import finish

        keep = self.options.replaced_text == "keep"
        return finish(raw, self.plan.columns, self.plan.where, keep_replaced=keep)

    def _fetched(self, conditions: Sequence[str], more: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield what the query gives, over one connection, or over one for every range of `split_by`."""
        from etl_resources.sources.sqlserver_ranges import ranges

        plan = self.plan
        if plan.split_by is None:
            return self.session.stream(plan.query(conditions, more), batch_rows=self.batch_rows)
        parts = ranges(self.session, plan.relation, plan.split_by, conditions, self.options.parallel)
        return merged([self._range([*conditions, part], more) for part in parts])

    def _range(self, conditions: Sequence[str], more: Sequence[str]) -> Generator[pa.RecordBatch, None, None]:
        with self.open() as session:
            begin(session)
            yield from session.stream(self.plan.query(conditions, more), batch_rows=self.batch_rows)


def begin(session: Session) -> bool:
    """Begin a transaction that sees one moment, if the database allows that; False: statements see what is committed.

    With READ_COMMITTED_SNAPSHOT one statement sees one moment without it.
    """
    rows = session.rows(
        "SELECT snapshot_isolation_state, is_read_committed_snapshot_on FROM sys.databases WHERE database_id = DB_ID()"
    )
    allowed, by_statement = rows[0] if rows else (0, False)
    if allowed == 1:
        session.execute("SET TRANSACTION ISOLATION LEVEL SNAPSHOT")
        session.execute("BEGIN TRANSACTION")
        return True
    return bool(by_statement)
