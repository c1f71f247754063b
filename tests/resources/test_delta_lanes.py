"""Row groups are written by threads: a few at most, none is lost, and what fails is said."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl_resources.delta import staging
from etl_resources.delta.staging import Staging

SCHEMA = pa.schema([("id", pa.int64())])
GROUP = 100


def batch(number: int) -> pa.RecordBatch:
    """A row group of its own."""
    return pa.RecordBatch.from_pydict({"id": list(range(number * GROUP, (number + 1) * GROUP))}, schema=SCHEMA)


class Gate:
    """Holds threads that write; `begun` counts those that came to it."""

    def __init__(self) -> None:
        self.open, self.begun = threading.Event(), threading.Semaphore(0)

    def pass_through(self) -> None:
        self.begun.release()
        assert self.open.wait(20)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Two lanes, held at the first row group that each writes, until the gate opens."""
    gate, write = Gate(), pq.ParquetWriter.write_table

    def held(self: pq.ParquetWriter, table: pa.Table, **options: Any) -> None:
        gate.pass_through()
        write(self, table, **options)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", held)
    monkeypatch.setattr(staging, "LANES", 2)
    monkeypatch.setattr(staging, "ROW_GROUP_ROWS", GROUP)
    yield gate
    gate.open.set()


def staged(folder: Path) -> Staging:
    return Staging(str(folder), {}, SCHEMA, ["id"])


def give(writer: Staging, groups: int) -> None:
    for number in range(groups):
        writer.write(batch(number))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("etl-staging")]


def test_a_second_file_is_begun_while_the_first_is_busy_and_no_third(tmp_path: Path, gate: Gate) -> None:
    """The third row group waits in the caller's hands: memory is bounded by the row groups that are being written."""
    writer, given = staged(tmp_path), []

    def give() -> None:
        for number in range(4):
            writer.write(batch(number))
            given.append(number)

    giver = threading.Thread(target=give)
    giver.start()
    assert gate.begun.acquire(timeout=10)
    assert gate.begun.acquire(timeout=10)
    giver.join(0.3)
    assert given == [0, 1]
    gate.open.set()
    giver.join(10)
    adds = writer.finish()
    assert len(adds) == 2
    ids = [id_ for add in adds for id_ in pq.read_table(tmp_path / add.path)["id"].to_pylist()]
    assert sorted(ids) == list(range(4 * GROUP))
    assert writer.stored_rows == 4 * GROUP
    assert threads() == []


def test_what_comes_slowly_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "ROW_GROUP_ROWS", GROUP)
    writer = staged(tmp_path)
    for number in range(5):
        writer.write(batch(number))
        for work in writer._lanes._work.values():
            work.result()
    [add] = writer.finish()
    assert pq.ParquetFile(tmp_path / add.path).num_row_groups == 5


@pytest.mark.parametrize(("narrow", "groups"), [(True, 5), (False, 1)])
def test_where_many_tables_are_written_each_has_one_lane_and_small_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, narrow: bool, groups: int
) -> None:
    """Else fifty tables of one change log would hold fifty times the memory."""
    monkeypatch.setattr(staging, "NARROW_BYTES", 10_000)
    writer = Staging(str(tmp_path), {}, SCHEMA, ["id"], narrow=narrow)
    for _ in range(10):
        writer.write(pa.RecordBatch.from_pydict({"id": list(range(1000))}, schema=SCHEMA))
    [add] = writer.finish()
    assert pq.ParquetFile(tmp_path / add.path).num_row_groups == groups


def test_what_is_small_needs_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[threading.Thread] = []
    write = pq.ParquetWriter.write_table

    def watched(self: pq.ParquetWriter, table: pa.Table, **options: Any) -> None:
        written.append(threading.current_thread())
        write(self, table, **options)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", watched)
    writer = staged(tmp_path)
    writer.write(batch(0))
    assert len(writer.finish()) == 1
    assert written == [threading.current_thread()]


def test_what_a_thread_could_not_write_is_raised_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills at the third row group; whoever goes on all the same gets the error again, and no files."""
    write, calls = pq.ParquetWriter.write_table, []

    def fills(self: pq.ParquetWriter, table: pa.Table, **options: Any) -> None:
        calls.append(table)
        if len(calls) >= 3:
            raise OSError("No space left on device")
        write(self, table, **options)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fills)
    monkeypatch.setattr(staging, "ROW_GROUP_ROWS", GROUP)
    writer = staged(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        give(writer, 20)
    assert len(calls) < 3 + 2 * staging.LANES
    with pytest.raises(OSError, match="No space left"):
        writer.finish()
    writer.discard()
    assert list(tmp_path.iterdir()) == []
    assert threads() == []


def test_what_is_given_up_while_it_is_written_is_gone(tmp_path: Path, gate: Gate) -> None:
    """The thread is waited for: a file that it made after all were deleted would stay."""
    writer = staged(tmp_path)
    writer.write(batch(0))
    assert gate.begun.acquire(timeout=10)
    discarding = threading.Thread(target=writer.discard)
    discarding.start()
    discarding.join(0.2)
    assert discarding.is_alive()
    gate.open.set()
    discarding.join(10)
    assert list(tmp_path.iterdir()) == []
    assert threads() == []
    assert writer.finish() == []
