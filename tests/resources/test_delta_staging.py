"""Staged files: nobody sees them before a commit, and what is counted is what is on the disk."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl_resources.delta import staging
from etl_resources.delta.staging import Staging

SCHEMA = pa.schema([("id", pa.int64())])


def batch(*ids: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"id": list(ids)}, schema=SCHEMA)


def staged(folder: Path, **options: int) -> Staging:
    return Staging(str(folder), {}, SCHEMA, ["id"], **options)


def test_rows_are_counted_in_the_files_and_not_on_the_way_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that drops a batch is found out, because the footer says what there is."""
    staging_ = staged(tmp_path)
    write = pq.ParquetWriter.write_table
    monkeypatch.setattr(
        pq.ParquetWriter, "write_table", lambda self, table, **options: write(self, table.slice(1), **options)
    )
    staging_.write(batch(1, 2, 3))
    staging_.finish()
    assert staging_.stored_rows == 2


def test_files_end_at_their_target_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "ROW_GROUP_ROWS", 1000)
    writer = staged(tmp_path, file_bytes=20_000)
    ids = random.Random(1).sample(range(2**62), 60_000)  # what counts up would take no room at all
    for start in range(0, 60_000, 1000):
        writer.write(batch(*ids[start : start + 1000]))
    adds = writer.finish()
    assert len(adds) > 10
    assert writer.stored_rows == 60_000
    for add in adds:
        assert add.size == (tmp_path / add.path).stat().st_size


def test_small_batches_share_a_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "ROW_GROUP_ROWS", 100)
    writer = staged(tmp_path)
    for start in range(0, 1000, 10):
        writer.write(batch(*range(start, start + 10)))
    assert sum(pq.ParquetFile(tmp_path / add.path).num_row_groups for add in writer.finish()) == 10


def test_a_wider_schema_begins_another_file(tmp_path: Path) -> None:
    writer = staged(tmp_path)
    writer.write(batch(1))
    wider = SCHEMA.append(pa.field("name", pa.string()))
    writer.widen(wider)
    writer.write(pa.RecordBatch.from_pylist([{"id": 2, "name": "b"}], schema=wider))
    assert [pq.read_schema(tmp_path / add.path).names for add in writer.finish()] == [["id"], ["id", "name"]]


def test_nothing_written_is_no_file(tmp_path: Path) -> None:
    writer = staged(tmp_path)
    writer.write(batch())
    assert writer.finish() == []
    assert writer.read().schema.equals(SCHEMA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("finished", [True, False])
def test_what_is_discarded_is_gone(tmp_path: Path, finished: bool) -> None:
    writer = staged(tmp_path, file_bytes=1)
    writer.write(batch(*range(300_000)))
    writer.write(batch(1))
    if finished:
        writer.finish()
    writer.discard()
    assert list(tmp_path.iterdir()) == []
    assert writer.stored_rows == 0
    assert writer.finish() == []
