"""Snapshots of tables beside the log: in pieces, in the order of a key, each piece at a known place of the log.

A piece is what one repeatable-read transaction sees; `mark` is a place in the log read after its snapshot `view`. A
transaction that the view sees has its commit record before `mark`, so at `mark` a row stands behind all events that are
in it already. Of the transactions that the view does not see some have their commit record before `mark` as well (see
`postgres_visibility`): those events are found by the number of their transaction, in the same look at the log, which
begins after the piece was read and goes beyond `mark`; and the row is put directly before the first of its key. Of one
key, the transactions that a view sees come before those that it does not, in the log too: who writes a row waits until
the one before has become visible. So every row stands where it was true.

Events of earlier looks cannot be put behind a row any more. They have to be in the view: a piece waits for it.

A key's own collation is used to compare it, the order of its index: between two pieces nothing depends on what that
order is, only that it stays the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etl_resources.changes.postgres_position import Cursor, Progress, lsn
from etl_resources.changes.postgres_visibility import View
from etl_resources.postgres_sql import literal, quote
from etl_resources.sources.postgres import select_list
from etl_resources.sources.postgres_columns import describe
from etl_resources.sources.postgres_values import finish

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.changes.postgres_link import Link
    from etl_resources.changes.postgres_tables import TableFacts

_PIECE_BYTES = 64 << 20
"""What the pieces of one tick may need in memory, together."""
_BATCH_BYTES = 8 << 20
_LEAST_ROWS = 1000
_PATIENCE = 1.0
_PAUSE = 0.02

_Seen = tuple[View, int, int]
"""`view`, `mark` and `at` of a piece."""


@dataclass
class Piece:
    """Rows of one table, read at one moment."""

    stream: str
    view: View
    mark: int
    at: int
    """The moment, in microseconds since 1970, by the server's clock."""
    after: tuple[str, ...] | None
    """Key of the last row; None: there are no more rows."""
    records: list[pa.RecordBatch] = field(default_factory=list)
    unreadable: list[pa.RecordBatch] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many were read, readable or not."""
        return sum(b.num_rows for b in self.records) + sum(b.num_rows for b in self.unreadable)


def pieces(link: Link, tables: Mapping[str, TableFacts], cursors: Mapping[str, Cursor], most: int) -> list[Piece]:
    """Read the next piece of every stream whose snapshot has not ended; none where it has to wait.

    Raises:
        SchemaConflictError: a table was changed while it was read.
    """
    wanted = {name: cursor.snapshot for name, cursor in cursors.items() if cursor.snapshot is not None}
    if not wanted:
        return []
    unseen = {xid for name in wanted for xid in cursors[name].unseen}
    waits = max(progress.waits or 0 for progress in wanted.values())
    with _view(link, unseen, waits) as seen:
        if seen is None:
            return []
        return [
            _piece(link, tables[name], progress, seen, _PIECE_BYTES // len(wanted), most)
            for name, progress in wanted.items()
        ]


def _piece(link: Link, table: TableFacts, progress: Progress, seen: _Seen, budget: int, most: int) -> Piece:
    last = None if progress.ended else _last_key(link, table, progress, _rows_within(link, table, budget, most))
    piece = Piece(table.stream, *seen, last)
    names = ", ".join(f"t.{quote(name)}" for name in table.columns)
    with link.asking():
        columns = describe(link.client, f"(SELECT {names} FROM {table.relation} AS t)")  # noqa: S608 - quoted
    condition = _condition(table, progress, last)
    # A piece is a small part: no estimate is to make the server read the whole table for it.
    whole = "off" if condition and table.index else "on"
    link.session.rows(f"SELECT set_config('enable_seqscan', '{whole}', true)")
    query = f"SELECT {select_list(columns)} FROM {table.relation} AS t{condition}"  # noqa: S608 - quoted
    with link.session.stream(query, batch_bytes=_BATCH_BYTES) as batches:
        for batch in batches:
            records, unreadable = finish(batch, columns, f"stream {table.stream}, {link.where}")
            piece.records.append(records)
            if unreadable is not None:
                piece.unreadable.append(unreadable)
    return piece


@contextmanager
def _view(link: Link, unseen: set[int], waits: int) -> Iterator[_Seen | None]:
    """Give a transaction whose snapshot sees all of `unseen`, and in which nothing below `waits` runs any more.

    None: not within a second.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        link.session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            view, mark, at = link.session.rows(
                "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text,"
                " (extract(epoch FROM clock_timestamp()) * 1000000)::int8"
            )[0]
            seen = View.parse(view)
            ready = seen.xmin >= waits and all(seen.sees(xid) for xid in unseen)
            if ready or time.monotonic() > deadline:
                yield (seen, lsn(mark), int(at)) if ready else None
                return
        finally:
            link.session.execute("ROLLBACK")
        time.sleep(_PAUSE)


def _rows_within(link: Link, table: TableFacts, budget: int, most: int) -> int:
    """Return how many rows a piece may have: fewer where they are wide."""
    (plan,) = link.ask(f"EXPLAIN (FORMAT JSON) SELECT FROM {table.relation} AS t")[0]
    expected = plan[0]["Plan"]["Plan Rows"]
    (size,) = link.ask(
        "SELECT sum(pg_table_size(relid))::int8 FROM (SELECT relid FROM pg_partition_tree(%s) UNION SELECT %s::oid) p",
        [table.oid, table.oid],
    )[0]
    width = max(1, size // max(1, expected))
    return min(most, max(_LEAST_ROWS, budget // width))


def _last_key(link: Link, table: TableFacts, progress: Progress, rows: int) -> tuple[str, ...] | None:
    texts = ", ".join(f"t.{quote(name)}::text" for name in table.order)
    order = ", ".join(f"t.{quote(name)}" for name in table.order)
    found = link.session.rows(
        f"SELECT {texts} FROM {table.relation} AS t{_between(table, progress.after, None)}"  # noqa: S608 - quoted
        f" ORDER BY {order} LIMIT 1 OFFSET {rows - 1}"
    )
    return tuple(str(part) for part in found[0]) if found else None


def _condition(table: TableFacts, progress: Progress, last: tuple[str, ...] | None) -> str:
    """Return what a piece consists of: the rows up to the last key, and those that have moved."""
    listed = ", ".join(f"({', '.join(map(literal, key))})" for key in progress.moved)
    moved = f"({', '.join(f't.{quote(name)}' for name in table.key)}) IN ({listed})"
    if progress.ended:
        return f" WHERE {moved}"
    between = _between(table, progress.after, last)
    return f"{between} OR {moved}" if between and progress.moved else between


def _between(table: TableFacts, after: tuple[str, ...] | None, until: tuple[str, ...] | None) -> str:
    """Return the condition for keys greater than the one and not greater than the other."""
    key = f"({', '.join(f't.{quote(name)}' for name in table.order)})"
    conditions = [
        f"{key} {sign} ({', '.join(map(literal, value))})" for sign, value in ((">", after), ("<=", until)) if value
    ]
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""
