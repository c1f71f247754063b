"""Chunks of files become batches: of about the size that was asked for, in one growing schema, with their position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from etl_resources.files.align import align, common_schema
from etl_resources.files.chunks import Chunk, Unreadable, unreadable_batch
from etl_resources.source import Batch, Position

if TYPE_CHECKING:
    import pyarrow as pa

_WORTHWHILE = 8192
"""So many rows of a file that goes on are a batch: to bring more together would copy them."""
PositionNow = Callable[[], Position | None]


class Assembler:
    """Small files share a batch; a large one is spread over several, of which only the last has a position."""

    def __init__(self, batch_rows: int, schema: pa.Schema | None = None) -> None:
        self._batch_rows, self._schema = batch_rows, schema
        self._tables: list[pa.Table] = []
        self._unreadable: list[tuple[str, Unreadable]] = []
        self._rows = self._rows_read = 0
        self._complete: PositionNow | None = None
        self._pending = False

    def add(self, chunk: Chunk, origin: str) -> Iterator[Batch]:
        """Take a chunk, and yield the batches that are full."""
        rows = chunk.data.num_rows if chunk.data is not None else 0
        if not chunk.records:
            self._pending = True
            self._take(chunk.data, origin)
            return
        if self._complete and self._rows + rows > self._batch_rows:
            yield from self.flush()
        elif not self._complete and self._rows >= min(_WORTHWHILE, self._batch_rows):
            yield self._batch(self._rows, None)
        self._rows_read += chunk.records
        self._unreadable += [(origin, u) for u in chunk.unreadable]
        self._pending, self._complete = True, None
        self._take(chunk.data, origin)
        while self._rows > self._batch_rows or len(self._unreadable) > self._batch_rows:
            yield self._batch(min(self._rows, self._batch_rows), None)

    def file_ends(self, position: PositionNow) -> None:
        """Note that what has been taken so far are whole files."""
        self._pending, self._complete = True, position

    def flush(self) -> Iterator[Batch]:
        """Yield what is left, with the position behind it."""
        if self._pending:
            yield self._batch(self._rows, self._complete() if self._complete else None)
            self._pending, self._complete = False, None

    def _take(self, table: pa.Table | None, origin: str) -> None:
        import pyarrow as pa

        if table is None:
            return
        self._schema = common_schema(self._schema, table.schema, origin) if self._schema else table.schema
        if table.num_rows:
            origins = pa.repeat(pa.scalar(origin, pa.string()), table.num_rows)
            self._tables.append(table.append_column("_origin", origins))
            self._rows += table.num_rows

    def _batch(self, rows: int, position: Position | None) -> Batch:
        import pyarrow as pa

        schema = (self._schema or pa.schema([])).append(pa.field("_origin", pa.string()))
        tables = [align(t, schema) for t in self._tables]
        table = pa.concat_tables(tables) if tables else schema.empty_table()
        rest = table.slice(rows)
        self._tables, self._rows = ([rest] if rest.num_rows else []), rest.num_rows
        unreadable, self._unreadable = self._unreadable, []
        return Batch(
            data=_one_batch(table.slice(0, rows)), rows_read=self._rows_read - self._rows, position=position,
            unreadable=unreadable_batch(unreadable) if unreadable else None,
        )  # fmt: skip


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    import pyarrow as pa

    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
