"""The answer to a commit can get lost: what was committed is never deleted, what was refused leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from etl_assets.run import Run
from etl_resources.exceptions import ConcurrentCommitError
from etl_resources.lake import Commit, Lake, LakeTable
from tests.assets.doubles import Table, new_run

SCHEMA = pa.schema([("id", pa.int64())])


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    return Lake(uri=str(tmp_path)).table("bronze", "test", "things")


def put(table: LakeTable, number: int, *, whole: bool = False) -> None:
    handle = table.ensure(SCHEMA)
    with table.stage(handle, SCHEMA) as staged:
        staged.write(pa.record_batch({"id": [number]}, schema=SCHEMA))
        (table.replace if whole else table.append)(handle, staged, Commit("app", number))


def ids(table: LakeTable) -> list[int]:
    handle = table.open()
    assert handle is not None
    return sorted(handle.delta.to_pyarrow_table()["id"].to_pylist())


def files(table: LakeTable) -> int:
    return len(list(Path(table.uri).glob("*.parquet")))


def lose_answer(monkeypatch: pytest.MonkeyPatch, error: BaseException, *, commit: bool = True) -> None:
    write = DeltaTable.create_write_transaction

    def lossy(self: DeltaTable, *args: Any, **options: Any) -> None:
        if commit:
            write(self, *args, **options)
        raise error

    monkeypatch.setattr(DeltaTable, "create_write_transaction", lossy)


@pytest.mark.parametrize("whole", [False, True], ids=["append", "replace"])
@pytest.mark.parametrize(
    "error",
    [OSError("timed out"), CommitFailedError("error performing the commit: timed out"), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
def test_a_commit_that_was_made_keeps_its_files_though_it_raised(
    table: LakeTable, monkeypatch: pytest.MonkeyPatch, error: BaseException, whole: bool
) -> None:
    put(table, 1)
    with monkeypatch.context() as patched:
        lose_answer(patched, error)
        with pytest.raises((OSError, ConcurrentCommitError, KeyboardInterrupt)):
            put(table, 2, whole=whole)
    assert ids(table) == ([2] if whole else [1, 2]), "readable, and committed"
    with pytest.raises(ConcurrentCommitError):
        put(table, 2, whole=whole)
    assert ids(table) == ([2] if whole else [1, 2]), "and not a second time"


def test_a_commit_that_was_not_made_leaves_no_files(table: LakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    put(table, 1)
    lose_answer(monkeypatch, OSError("refused"), commit=False)
    with pytest.raises(OSError, match="refused"):
        put(table, 2)
    assert (ids(table), files(table)) == ([1], 1)


def test_where_nobody_can_tell_the_files_stay(table: LakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    put(table, 1)

    def away(self: LakeTable) -> set[str]:
        raise OSError("the storage is away")

    with monkeypatch.context() as patched:
        lose_answer(patched, OSError("timed out"))
        patched.setattr(LakeTable, "_files", away)
        with pytest.raises(OSError, match="timed out"):
            put(table, 2)
    assert ids(table) == [1, 2]


@pytest.mark.parametrize("point", ["bronze:after_commit", "bronze:before_acknowledge"])
def test_an_error_behind_the_commit_of_bronze_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    table = Table(tmp_path)
    table.source.give([{"id": 1}, {"id": 2}])

    def broken(self: Run, name: str) -> None:
        if name == point:
            raise OSError("behind the commit")

    with monkeypatch.context() as patched:
        patched.setattr(Run, "point", broken)
        with pytest.raises(OSError, match="behind the commit"):
            table.bronze.land(table.source, new_run())
    table.source.give([{"id": 3}])
    table.land()
    assert sorted(row["id"] for row in table.rows("bronze")) == [1, 2, 3]
