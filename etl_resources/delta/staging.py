"""Parquet files that are written beside a Delta table and belong to it only once a commit names them."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from etl_resources.delta.encoding import dictionary_columns
from etl_resources.delta.memory import use_frugal_pool
from etl_resources.delta.statistics import file_statistics
from etl_resources.delta.storage import FileStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from deltalake.transaction import AddAction

_log = logging.getLogger(__name__)
TARGET_FILE_BYTES = 128 * 2**20
ROW_GROUP_ROWS = 262_144
ROW_GROUP_BYTES = 16 * 2**20
"""In memory, before encoding: fewer wide rows make a row group, which takes no longer and a few percent more disk."""


class Staging:
    """Writes record batches into Parquet files of about 128 MiB; memory is bounded by one row group.

    As a context manager it deletes what it wrote if the block raises. After a kill, the files are orphans that
    `LakeTable.vacuum` removes; no reader ever sees them.
    """

    def __init__(
        self,
        uri: str,
        storage_options: Mapping[str, str],
        schema: pa.Schema,
        statistics: Collection[str],
        file_bytes: int = TARGET_FILE_BYTES,
    ) -> None:
        use_frugal_pool()
        self.schema = schema
        self.store = FileStore(uri, storage_options)
        self._file_bytes = file_bytes
        self._stored_rows = 0
        self._statistics = frozenset(statistics)
        self._adds: list[AddAction] = []
        self._path = ""
        self._sink: Any = None
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = 0
        self._committed = False

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self.discard()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append one batch; its schema must equal the staging's."""
        if batch.num_rows == 0:
            return
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        self._pending_bytes += batch.nbytes
        if self._pending_rows >= ROW_GROUP_ROWS or self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def widen(self, schema: pa.Schema) -> None:
        """Go on with another schema, in another file; the table must have been evolved to hold both."""
        self._flush()
        self._close_file()
        self.schema = schema

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._pending:
            return
        rows = pa.Table.from_batches(self._pending, self.schema)
        writer = self._writer or self._open(rows)
        writer.write_table(rows, row_group_size=2 * ROW_GROUP_ROWS)
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        if self._sink.tell() >= self._file_bytes:
            self._close_file()

    def _open(self, first: pa.Table) -> pq.ParquetWriter:
        import pyarrow.parquet as pq

        self._path = f"part-{uuid.uuid4()}.zstd.parquet"
        self._sink = self.store.open(self._path)
        self._writer = pq.ParquetWriter(
            self._sink,
            self.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=dictionary_columns(first),
            write_statistics=True,
            store_schema=False,
        )
        return self._writer

    def _close_file(self) -> None:
        from deltalake.transaction import AddAction

        if self._writer is None:
            return
        self._writer.close()
        size = self._sink.tell()
        self._sink.close()
        metadata = self._writer.writer.metadata
        self._stored_rows += metadata.num_rows
        stats = file_statistics(metadata, self._statistics)
        self._adds.append(
            AddAction(
                path=self._path,
                size=size,
                partition_values={},
                modification_time=int(time.time() * 1000),
                data_change=True,
                stats=stats,
            )
        )
        self._writer = self._sink = None

    def finish(self) -> list[AddAction]:
        """Flush everything to storage and return the add actions that a commit needs."""
        self._flush()
        self._close_file()
        return self._adds

    def actions(self, *, data_change: bool) -> list[AddAction]:
        """Return the add actions of the finished files; without `data_change` they hold rows that were there before."""
        return [replace(add, data_change=data_change) for add in self.finish()]

    @property
    def stored_rows(self) -> int:
        """Rows in the finished files, as their Parquet footers say: not what was handed in, but what is there."""
        return self._stored_rows

    def paths(self) -> list[str]:
        """Return the locations of the finished files."""
        return [self.store.location(add.path) for add in self._adds]

    def read(self) -> pa.Table:
        """Return what was staged, from the finished files."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.finish()
        tables = [pq.read_table(self.store.read(add.path)) for add in self._adds]
        return pa.concat_tables(tables) if tables else self.schema.empty_table()

    @contextmanager
    def committing(self, named: Callable[[], Collection[str]]) -> Iterator[None]:
        """Run the commit that names the finished files; from then on they belong to the table.

        A commit that raises may have been made all the same: the answer of a storage can get lost. So the files are
        given up for deletion only if the table, looked at anew, is seen not to name them.

        Args:
            named: returns the names of the files that the table has now.
        """
        self._committed = True
        try:
            yield
        except Exception:
            try:
                self._committed = not {add.path for add in self._adds}.isdisjoint(named())
            except Exception:  # noqa: BLE001 - nobody can tell now: a file too many costs less than one too few
                _log.warning("it is not known whether %s was committed; the files stay", self._path)
            raise

    def discard(self) -> None:
        """Delete every file written so far that no commit has named."""
        if self._writer is not None:
            self._writer.close()
            self._sink.close()
            self.store.delete(self._path)
            self._writer = self._sink = None
        if self._committed:
            return
        for add in self._adds:
            self.store.delete(add.path)
        self._adds, self._pending = [], []
        self._pending_rows = self._pending_bytes = self._stored_rows = 0
