"""Upkeep keeps tables in few files, changes nothing in them, and never stands in the way of a run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl_resources.delta import upkeep
from etl_resources.delta.rewriting import Changes
from etl_resources.exceptions import RowsNotConservedError
from etl_resources.lake import Commit, Handle, Lake, LakeTable
from tests.resources.merges import merged

SCHEMA = pa.schema([("_batch", pa.int64()), ("value", pa.string())])


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    table = Lake(uri=str(tmp_path)).table("bronze", "events")
    table.ensure(SCHEMA)
    return table


def opened(table: LakeTable) -> Handle:
    handle = table.open()
    assert handle is not None
    return handle


def load(table: LakeTable, number: int, rows: int = 2) -> None:
    handle = opened(table)
    with table.stage(handle, SCHEMA) as staged:
        batch = {"_batch": [number] * rows, "value": [f"{number}-{row}" for row in range(rows)]}
        staged.write(pa.RecordBatch.from_pydict(batch, schema=SCHEMA))
        table.append(handle, staged, Commit("app", number, {"run_id": str(number)}))


def values(table: LakeTable) -> list[str]:
    return sorted(opened(table).delta.to_pyarrow_table()["value"].to_pylist())


def expected(loads: int) -> list[str]:
    return sorted(f"{number}-{row}" for number in range(1, loads + 1) for row in range(2))


def files_on_disk(table: LakeTable) -> int:
    return len(list(Path(table.uri).glob("*.parquet")))


def test_a_thousand_small_loads_do_not_leave_a_thousand_files(
    table: LakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 loads, at a tenth of the usual patience."""
    monkeypatch.setattr(upkeep, "MANY_FILES", 5)
    most = 0
    for number in range(1, 17):
        load(table, number)
        table.tidy(opened(table))
        most = max(most, len(opened(table).data_files()))
    assert most <= 6
    assert values(table) == expected(16)
    assert opened(table).committed("app") == 16


def test_tidy_waits_until_it_is_worth_it(table: LakeTable) -> None:
    for number in range(1, 6):
        load(table, number)
    assert table.tidy(opened(table)).reason == "there are few small files"
    assert len(opened(table).data_files()) == 5


def test_compaction_keeps_rows_transactions_bounds_and_time_travel(table: LakeTable) -> None:
    for number in range(1, 5):
        load(table, number)
    before = opened(table).version
    done = table.optimize()
    assert (done.before, done.after, done.compacted) == (4, 1, True)
    handle = opened(table)
    assert values(table) == expected(4)
    assert handle.committed("app") == 4
    assert (handle.record("app") or {})["run_id"] == "4"
    assert handle.files("_batch", 3) == handle.files()
    assert handle.files("_batch", 4) == []
    old = table.open(before)
    assert old is not None
    assert len(old.data_files()) == 4
    assert old.delta.to_pyarrow_table().num_rows == 8


def test_compaction_keeps_rows_in_the_order_in_which_they_came(table: LakeTable) -> None:
    for number in range(1, 8):
        load(table, number)
    table.optimize()
    [file] = opened(table).files()
    assert pq.read_table(file)["_batch"].to_pylist() == [number for number in range(1, 8) for _ in range(2)]


def test_files_near_the_target_are_left_alone(table: LakeTable) -> None:
    for number in range(1, 4):
        load(table, number, rows=2000)
    size = opened(table).data_files()[0].size
    load(table, 4)
    assert not table.optimize(target_bytes=size).compacted
    load(table, 5)
    done = table.optimize(target_bytes=size)
    assert (done.before, done.after) == (5, 4)


def test_a_table_with_a_younger_schema_than_its_files_is_compacted(table: LakeTable) -> None:
    load(table, 1)
    wider = SCHEMA.append(pa.field("extra", pa.struct([("x", pa.int64())])))
    handle = table.evolve(opened(table), wider)
    with table.stage(handle, wider) as staged:
        row = {"_batch": 2, "value": "2-0", "extra": {"x": 1}}
        staged.write(pa.RecordBatch.from_pylist([row], schema=wider))
        table.append(handle, staged, Commit("app", 2))
    assert table.optimize().compacted
    rows = opened(table).delta.to_pyarrow_table().sort_by("value").to_pylist()
    assert [row["extra"] for row in rows] == [None, None, {"x": 1}]


def test_two_compactions_at_once_double_nothing(table: LakeTable) -> None:
    """With delta-rs' own, every row would be there twice."""
    for number in range(1, 16):
        load(table, number)
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: table.optimize(), range(4)))
    assert sum(done.compacted for done in outcomes) >= 1
    assert values(table) == expected(15)


def test_loads_go_on_while_a_table_is_compacted(table: LakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "MANY_FILES", 2)
    for number in range(1, 4):
        load(table, number)

    def write() -> None:
        for number in range(4, 16):
            load(table, number)

    def compact() -> list[str]:
        return [table.tidy(opened(table)).reason for _ in range(8)]

    with ThreadPoolExecutor(3) as pool:
        writing, compacting = pool.submit(write), [pool.submit(compact) for _ in range(2)]
        writing.result()
        reasons = {reason for task in compacting for reason in task.result()}
    assert values(table) == expected(15)
    few = {"there are few small files", "there are no small files to put together"}
    assert {reason.split(":")[0] for reason in reasons} <= {"", "not compacted now", *few}
    assert "" in reasons, "some were compacted"


@pytest.mark.parametrize("how", ["merge", "replace"])
def test_a_compaction_gives_way_to_a_run(table: LakeTable, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    for number in range(1, 4):
        load(table, number)
    copy = upkeep._copy

    def overtaken(*arguments: object) -> None:
        copy(*arguments)  # type: ignore[arg-type]
        handle = opened(table)
        if how == "merge":
            data = pa.table({"_batch": [2], "value": ["2-0"], "_action": ["delete"]})
            merged(table, handle, data.to_reader, ["value"], Commit("app", 4), Changes(0, 0, 1))
        else:
            with table.stage(handle, SCHEMA) as staged:
                staged.write(pa.RecordBatch.from_pydict({"_batch": [4], "value": ["4-0"]}, schema=SCHEMA))
                table.replace(handle, staged, Commit("app", 4))

    monkeypatch.setattr(upkeep, "_copy", overtaken)
    on_disk = files_on_disk(table)
    done = table.optimize()
    assert not done.compacted
    assert done.reason.startswith("not compacted now: another run changed the table")
    assert values(table) == (["4-0"] if how == "replace" else sorted(set(expected(3)) - {"2-0"}))
    assert files_on_disk(table) == on_disk + 1, "its own files are gone"


def test_a_compaction_that_would_lose_rows_is_not_committed(table: LakeTable) -> None:
    for number in range(1, 4):
        load(table, number)
    file = opened(table).files()[0]
    pq.write_table(pq.read_table(file).slice(0, 1), file)
    with pytest.raises(RowsNotConservedError, match="5 rows came out of a compaction of 6"):
        table.optimize()
    assert len(opened(table).data_files()) == 3


def test_upkeep_that_fails_is_no_failure_of_the_run(
    table: LakeTable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upkeep, "MANY_FILES", 1)
    for number in range(1, 4):
        load(table, number)
    Path(opened(table).files()[0]).unlink()
    done = table.tidy(opened(table))
    assert done.reason.startswith("not compacted now: ")
    assert "bronze/events was not compacted" in caplog.text


def test_vacuum_deletes_what_killed_runs_left_and_nothing_that_is_needed(table: LakeTable) -> None:
    for number in range(1, 4):
        load(table, number)
    staged = table.stage(opened(table), SCHEMA)
    staged.write(pa.RecordBatch.from_pydict({"_batch": [9], "value": ["9"]}, schema=SCHEMA))
    staged.finish()  # and then the process is killed
    table.optimize()
    assert files_on_disk(table) == 5
    assert table.vacuum() == [], "it may belong to a run that is still at work, and readers need the old files"
    assert len(table.vacuum(timedelta(0))) == 4
    assert files_on_disk(table) == 1
    assert values(table) == expected(3)
