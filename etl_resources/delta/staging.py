"""Parquet files that are written beside a Delta table and belong to it only once a commit names them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from etl_resources.delta.lanes import Lane, Lanes
from etl_resources.delta.memory import use_frugal_pool
from etl_resources.delta.storage import FileStore

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake.transaction import AddAction

_log = logging.getLogger(__name__)
TARGET_FILE_BYTES = 128 * 2**20
ROW_GROUP_ROWS = 262_144
ROW_GROUP_BYTES = 16 * 2**20
"""In memory, before encoding: fewer wide rows make a row group, which takes no longer and a few percent more disk."""
LANES = min(4, os.cpu_count() or 1)
"""Files that are written at once. The second is begun only when a row group is full before the first has taken the one
before it, so that what is small, or comes slowly, is one file."""
NARROW_BYTES = 3 * 2**20
"""The same where many tables are written at once, each by a staging of its own."""


class Staging:
    """Writes record batches into Parquet files of about 128 MiB; memory is bounded by a few row groups.

    They are written by threads (`lanes`), so that rows come into several files in no order of their own; what a
    thread could not write is raised by a later call. As a context manager it deletes what it wrote if the block
    raises. After a kill, the files are orphans that `LakeTable.vacuum` removes; no reader ever sees them.
    """

    def __init__(
        self,
        uri: str,
        storage_options: Mapping[str, str],
        schema: pa.Schema,
        statistics: Collection[str],
        file_bytes: int = TARGET_FILE_BYTES,
        *,
        narrow: bool = False,
    ) -> None:
        use_frugal_pool()
        self.schema = schema
        self.store = FileStore(uri, storage_options)
        self._lane = partial(Lane, self.store, frozenset(statistics), file_bytes)
        self._most = 1 if narrow else LANES
        self._group_bytes = NARROW_BYTES if narrow else ROW_GROUP_BYTES
        self._lanes = Lanes(self._lane, self._most)
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
        if self._pending_rows >= ROW_GROUP_ROWS or self._pending_bytes >= self._group_bytes:
            self._lanes.write(self._row_group())

    def widen(self, schema: pa.Schema) -> None:
        """Go on with another schema, in other files; the table must have been evolved to hold both."""
        self.finish()
        self.schema = schema

    def _row_group(self) -> pa.Table:
        import pyarrow as pa

        rows = pa.Table.from_batches(self._pending, self.schema)
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        return rows

    def finish(self) -> list[AddAction]:
        """Flush everything to storage and return the add actions that a commit needs."""
        self._lanes.end(self._row_group() if self._pending else None)
        return self._lanes.adds

    def actions(self, *, data_change: bool) -> list[AddAction]:
        """Return the add actions of the finished files; without `data_change` they hold rows that were there before."""
        return [replace(add, data_change=data_change) for add in self.finish()]

    @property
    def stored_rows(self) -> int:
        """Rows in the finished files, as their Parquet footers say: not what was handed in, but what is there."""
        return self._lanes.stored_rows

    def paths(self) -> list[str]:
        """Return the locations of the finished files."""
        return [self.store.location(add.path) for add in self._lanes.adds]

    def read(self) -> pa.Table:
        """Return what was staged, from the finished files."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.finish()
        tables = [pq.read_table(self.store.read(add.path)) for add in self._lanes.adds]
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
                self._committed = not {add.path for add in self._lanes.adds}.isdisjoint(named())
            except Exception:  # noqa: BLE001 - nobody can tell now: a file too many costs less than one too few
                _log.warning("it is not known whether %s were committed; the files stay", ", ".join(self.paths()))
            raise

    def discard(self) -> None:
        """Delete every file written so far that no commit has named."""
        self._lanes.discard()
        if self._committed:
            return
        for add in self._lanes.adds:
            self.store.delete(add.path)
        self._lanes = Lanes(self._lane, self._most)
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
