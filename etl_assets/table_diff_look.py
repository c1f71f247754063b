"""One complete look at a source: all its rows, or the hashes of all and the rows of those that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_assets.table_diff_columns import hash_sql, hashed_by
from etl_assets.table_diff_staged import Staged
from etl_assets.table_diff_unread import Unread
from etl_resources.engines.duckdb import quote
from etl_resources.exceptions import RowsNotConservedError
from etl_resources.hashed import HASH, HashedTable

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.table_diff_compare import Comparison
    from etl_assets.table_diff_state import State
    from etl_resources.engines.duckdb import Session
    from etl_resources.source import Position, Source, Stream

BATCH_ROWS = 131_072
PICKED_SHARE = 0.2
"""Share of the rows up to which changed ones are looked up by their key; if there are more, all are read."""


@dataclass
class Look:
    """What was seen: the table `seen` with all rows, or, if `table` is to be asked for rows, with keys and hashes."""

    session: Session
    seen: Staged
    unread: Unread
    hash_sql: str
    """The hash of a row of `seen`."""
    hashed_by: str
    read: int
    """Rows, as the source has counted them."""
    position: Position | None
    table: HashedTable | None = None

    def changed_rows(self, comparison: Comparison) -> Staged:
        """Return the rows that may have changed, with all columns; in `seen` there are others among them."""
        if self.table is None:
            return self.seen
        rows = Staged(self.session, "fetched", self.seen.key, self.seen.log, self.seen.where)
        rows.add(nothing_of(self.table.schema))
        wanted = comparison.wanted()
        if wanted.num_rows == 0:
            return rows
        self.session.connection.register("_wanted", wanted)
        self.session.execute("CREATE TEMP TABLE wanted AS SELECT * FROM _wanted")
        few = wanted.num_rows <= max(1000, PICKED_SHARE * self.seen.rows)
        picked = self.table.pick(wanted, BATCH_ROWS) if few else None
        for records, unreadable in picked if picked is not None else self.table.rows(BATCH_ROWS):
            rows.add(records.drop_columns([HASH]), wanted="wanted")
            if unreadable is not None:
                self.unread.add_wanted(unreadable, "SELECT * FROM wanted")
        return rows


def look_here(
    session: Session, source: Source, stream: Stream, state: State, key: Sequence[str], *, only_key: bool = False
) -> Look | None:
    """Read all rows of a source; None: it gave nothing at all, not even that it is empty.

    Args:
        only_key: keep no other columns.

    Raises:
        RowsNotConservedError: the source ended without the position that its last batch carries: rows that are not
            there would be taken for deleted.
    """
    seen, unread = _empty(session, state, key)
    read, position, batches = 0, None, 0
    for batch in source.read(stream, None):
        batches += 1
        read, position = batch.rows_read, batch.position
        seen.add(batch.data.select(list(key)) if only_key else batch.data)
        if batch.unreadable is not None:
            unread.add(batch.unreadable)
    if batches == 0:
        return None
    if position is None:
        raise RowsNotConservedError(
            f"the source ended after {read} records without the position that its last batch carries",
            where=state.bronze.table.name,
            fix="nothing was committed, and nothing was taken for deleted; run again, and report it if it comes again",
        )
    return Look(session, seen, unread, hash_sql(seen.row), hashed_by(seen.row), read, position)


def look_there(session: Session, table: HashedTable, state: State, key: Sequence[str], *, fresh: bool) -> Look:
    """Read keys and hashes, if there are hashes to compare them with; else all rows.

    Raises:
        RowsNotConservedError: other rows came than the database has counted.
    """
    seen, unread = _empty(session, state, key)
    known = state.log is not None and state.mark.hashed_by == table.hashed_by and not fresh
    read = table.count()
    came = 0
    for records, unreadable in table.hashes(BATCH_ROWS) if known else table.rows(BATCH_ROWS):
        seen.add(records, hashed=True)
        came += records.num_rows
        if unreadable is not None:
            came += unreadable.num_rows
            unread.add(unreadable)
    if came != read:
        raise RowsNotConservedError(
            f"the table has {read} rows, and {came} came",
            where=state.bronze.table.name,
            fix="nothing was committed, and nothing was taken for deleted; run again, and report it if it comes again",
        )
    if seen.schema is None:
        import pyarrow as pa

        seen.add(nothing_of(table.schema.append(pa.field(HASH, pa.int64()))), hashed=True)
    return Look(session, seen, unread, quote(HASH), table.hashed_by, read, table.position, table if known else None)


def nothing_of(schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch without rows."""
    import pyarrow as pa

    return pa.RecordBatch.from_pylist([], schema=schema)


def _empty(session: Session, state: State, key: Sequence[str]) -> tuple[Staged, Unread]:
    return Staged(session, "seen", key, state.schema, state.bronze.table.name), Unread(session, key)
