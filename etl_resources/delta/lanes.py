"""Row groups become Parquet files beside a Delta table, several at once, while the caller makes the next ones."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from etl_resources.delta.encoding import encodings
from etl_resources.delta.statistics import file_statistics
from etl_resources.delta.storage import FileStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from deltalake.transaction import AddAction


class Lane:
    """Writes one file after the other; one call at a time, whichever thread it comes from."""

    def __init__(self, store: FileStore, statistics: Collection[str], file_bytes: int) -> None:
        self.adds: list[AddAction] = []
        self.stored_rows = 0
        self._store, self._statistics, self._file_bytes = store, statistics, file_bytes
        self._path = ""
        self._sink: Any = None
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        """Write one row group."""
        writer = self._writer or self._open(rows)
        writer.write_table(rows, row_group_size=rows.num_rows)
        if self._sink.tell() >= self._file_bytes:
            self.close()

    def _open(self, first: pa.Table) -> pq.ParquetWriter:
        import pyarrow.parquet as pq

        self._path = f"part-{uuid.uuid4()}.zstd.parquet"
        self._sink = self._store.open(self._path)
        self._writer = pq.ParquetWriter(self._sink, first.schema, **encodings(first, self._statistics))
        return self._writer

    def close(self) -> None:
        """End the file, if one is open; it is among `adds` from now on."""
        from deltalake.transaction import AddAction

        if self._writer is None:
            return
        self._writer.close()
        size = self._sink.tell()
        self._sink.close()
        metadata = self._writer.writer.metadata
        self._writer = self._sink = None
        self.stored_rows += metadata.num_rows
        self.adds.append(
            AddAction(
                path=self._path,
                size=size,
                partition_values={},
                modification_time=int(time.time() * 1000),
                data_change=True,
                stats=file_statistics(metadata, self._statistics),
            )
        )

    def discard(self) -> None:
        """Delete the file that is open."""
        if self._writer is not None:
            self._writer.close()
            self._sink.close()
            self._store.delete(self._path)
            self._writer = self._sink = None


class Lanes:
    """Gives row groups to lanes that are free, each in a thread of its own; there are at most `most`.

    What a lane raised is raised by every later `write` and `end`.
    """

    def __init__(self, lanes: Callable[[], Lane], most: int) -> None:
        self._make, self._most = lanes, most
        self._lanes: list[Lane] = []
        self._work: dict[Lane, Future[None]] = {}
        self._pool: ThreadPoolExecutor | None = None

    @property
    def adds(self) -> list[AddAction]:
        """The files that have ended."""
        return [add for lane in self._lanes for add in lane.adds]

    @property
    def stored_rows(self) -> int:
        """Rows in the files that have ended."""
        return sum(lane.stored_rows for lane in self._lanes)

    def write(self, rows: pa.Table) -> None:
        """Have a row group written; waits until a lane is free for it."""
        lane = self._free()
        self._pool = self._pool or ThreadPoolExecutor(self._most, "etl-staging")
        self._work[lane] = self._pool.submit(lane.write, rows)

    def end(self, last: pa.Table | None) -> None:
        """Write the last row group, if there is one, and end all files."""
        if last is not None and self._pool is None:
            self._free().write(last)  # a thread would cost more than it saves
        elif last is not None:
            self.write(last)
        self._wait()
        for lane in self._lanes:
            lane.close()

    def discard(self) -> None:
        """Wait for the threads to end, and delete the files that have not."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        for lane in self._lanes:
            lane.discard()

    def _free(self) -> Lane:
        while True:
            for lane in self._lanes:
                if lane not in self._work:
                    return lane
                if self._work[lane].done():
                    self._work[lane].result()
                    return lane
            if len(self._lanes) < self._most:
                self._lanes.append(self._make())
                return self._lanes[-1]
            wait(self._work.values(), return_when=FIRST_COMPLETED)

    def _wait(self) -> None:
        for work in self._work.values():
            work.result()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
