"""The lake: every commit is there once, whole, with its record and its transaction."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from etl_resources.delta import handle as handle_module
from etl_resources.delta.rewriting import Changes
from etl_resources.exceptions import ConcurrentCommitError, RowsNotConservedError, UnavailableError
from etl_resources.lake import Commit, Handle, Lake, LakeTable
from tests.forks import Forks, forking, wait_for
from tests.resources.merges import merged

__all__ = ["forking"]  # a fixture
SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])
ACTIONS = SCHEMA.append(pa.field("_action", pa.string()))


def rows(*pairs: tuple[int, str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"id": key, "name": name} for key, name in pairs], schema=SCHEMA)


def actions(*triples: tuple[int, str | None, str]) -> Callable[[], pa.RecordBatchReader]:
    listed = [{"id": key, "name": name, "_action": action} for key, name, action in triples]
    return lambda: pa.Table.from_pylist(listed, schema=ACTIONS).to_reader()


def content(table: LakeTable, version: int | None = None) -> list[tuple[int, str]]:
    handle = table.open(version)
    assert handle is not None
    return sorted((row["id"], row["name"]) for row in handle.delta.to_pyarrow_table().to_pylist())


def append(table: LakeTable, handle: Handle, number: int, *pairs: tuple[int, str | None]) -> Handle:
    with table.stage(handle, SCHEMA) as staged:
        staged.write(rows(*pairs))
        return table.append(handle, staged, Commit("app", number, {"run_id": f"run-{number}"}))


def replace(table: LakeTable, handle: Handle, number: int, *pairs: tuple[int, str | None]) -> Handle:
    with table.stage(handle, SCHEMA) as staged:
        staged.write(rows(*pairs))
        return table.replace(handle, staged, Commit("app", number, {"run_id": f"run-{number}"}))


def merge(table: LakeTable, handle: Handle, number: int) -> Handle:
    """Update 1, insert 9."""
    source = actions((1, "one", "update"), (9, "nine", "insert"))
    return merged(table, handle, source, ["id"], Commit("app", number, {"run_id": f"run-{number}"}), Changes(1, 1, 0))


def replace_where(table: LakeTable, handle: Handle, number: int) -> Handle:
    """Put 3 in the place of 2 and whatever is above."""
    above = sum(key >= 2 for key, _ in content(table, handle.version))
    commit = Commit("app", number, {"run_id": f"run-{number}"})
    new = pa.Table.from_batches([rows((3, "three"))])
    return table.replace_where(handle, new.to_reader, "`id` >= 2", commit, Changes(1, 0, above))


WRITES: dict[str, Callable[[LakeTable, Handle, int], Handle]] = {
    "append": lambda table, handle, number: append(table, handle, number, (3, "c")),
    "replace": lambda table, handle, number: replace(table, handle, number, (3, "c")),
    "replace_where": replace_where,
    "merge": merge,
}
AFTER = {
    "append": [(1, "a"), (2, "b"), (3, "c")],
    "replace": [(3, "c")],
    "replace_where": [(1, "a"), (3, "three")],
    "merge": [(1, "one"), (2, "b"), (9, "nine")],
}


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    """A table with two rows, committed as number 1."""
    table = Lake(uri=str(tmp_path / "lake")).table("silver", "shop", "people")
    append(table, table.ensure(SCHEMA), 1, (1, "a"), (2, "b"))
    return table


def opened(table: LakeTable) -> Handle:
    handle = table.open()
    assert handle is not None
    return handle


@pytest.mark.parametrize("how", WRITES)
def test_each_way_of_writing_is_one_commit_with_record_and_transaction(table: LakeTable, how: str) -> None:
    before = opened(table)
    after = WRITES[how](table, before, 2)
    assert content(table) == AFTER[how]
    assert after.version == table.open(None).version == 2  # type: ignore[union-attr]
    assert after.committed("app") == 2
    record = after.record("app")
    assert record is not None
    assert (record["run_id"], record["version"], record["delta_version"]) == ("run-2", 2, 2)
    assert content(table, 1) == [(1, "a"), (2, "b")], "time travel shows the table as it was"


@pytest.mark.parametrize("how", WRITES)
def test_the_same_piece_of_work_is_refused_the_second_time(table: LakeTable, how: str) -> None:
    WRITES[how](table, opened(table), 2)
    with pytest.raises(ConcurrentCommitError, match="another run committed to app first, so number 2"):
        WRITES[how](table, opened(table), 2)
    assert content(table) == AFTER[how]


@pytest.mark.parametrize("late", WRITES)
@pytest.mark.parametrize("early", WRITES)
def test_a_handle_that_somebody_overtook_commits_nothing(table: LakeTable, early: str, late: str) -> None:
    stale = opened(table)
    WRITES[early](table, opened(table), 2)
    with pytest.raises(ConcurrentCommitError, match="another run committed to app first, so number 2"):
        WRITES[late](table, stale, 2)
    assert content(table) == AFTER[early]


@pytest.mark.parametrize("how", WRITES)
def test_two_threads_at_once_have_one_winner(table: LakeTable, how: str) -> None:
    handles = [opened(table) for _ in range(4)]

    def write(handle: Handle) -> str:
        try:
            WRITES[how](table, handle, 2)
        except ConcurrentCommitError as error:
            return str(error)
        return "won"

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(write, handles))
    assert outcomes.count("won") == 1
    assert all("so number 2 was not" in text for text in outcomes if text != "won")
    assert content(table) == AFTER[how]


def append_third(uri: str, name: str, gate: str) -> str:
    """Append a third row in another process, once the gate is open."""
    table = Lake(uri=uri).table("silver", "shop", "people")
    handle = opened(table)
    wait_for(gate)
    try:
        append(table, handle, 2, (3, name))
    except ConcurrentCommitError:
        return "lost"
    return name


def test_a_storage_that_loses_a_log_entry_is_found_out(table: LakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without conditional puts one writer's entry replaces another's, and both think that they have committed."""
    handle = opened(table)
    with table.stage(handle, SCHEMA) as staged:
        staged.write(rows((3, "c")))
        staged.finish()
        monkeypatch.setattr(DeltaTable, "create_write_transaction", lambda *_, **__: None)
        with pytest.raises(UnavailableError, match="number 2 of app was committed, but is not there"):
            table.append(handle, staged, Commit("app", 2))


def test_two_processes_at_once_have_one_winner(table: LakeTable, tmp_path: Path, forks: Forks) -> None:
    gate = tmp_path / "gate"
    uri = str(tmp_path / "lake")
    writers = [forks.start(append_third, uri=uri, name=name, gate=str(gate)) for name in ("x", "y")]
    gate.touch()
    outcomes = {writer.result() for writer in writers}
    winner = (outcomes - {"lost"}).pop()
    assert outcomes == {"lost", winner}
    assert content(table) == [(1, "a"), (2, "b"), (3, winner)]


def test_first_writers_of_a_table_that_does_not_exist_create_it_once(tmp_path: Path) -> None:
    table = Lake(uri=str(tmp_path)).table("bronze", "new")
    with ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(lambda _: table.ensure(SCHEMA), range(8)))
    assert {handle.version for handle in handles} == {0}
    assert len(list((tmp_path / "bronze" / "new" / "_delta_log").glob("*.json"))) == 1


def test_a_partition_that_stays_empty_keeps_its_transaction(table: LakeTable) -> None:
    empty = pa.Table.from_pylist([], schema=SCHEMA)
    after = table.replace_where(opened(table), empty.to_reader, "`id` > 100", Commit("app", 2), Changes())
    assert after.committed("app") == 2
    assert content(table) == [(1, "a"), (2, "b")]


def test_what_cannot_be_taken_back_any_more_is_said(table: LakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run has built on the wrong commit: to restore would drop its rows."""
    from etl_resources.delta import rewriting

    taken_back = rewriting.taken_back

    def late(handle: Handle, before: int, commit: Commit, what: str) -> RowsNotConservedError:
        append(table, opened(table), 3, (5, "e"))
        return taken_back(handle, before, commit, what)

    monkeypatch.setattr(rewriting, "taken_back", late)
    one = pa.Table.from_batches([rows((3, "three"))])
    with pytest.raises(RowsNotConservedError, match=r"version 2 of the table is WRONG.*\n.*\n.*restore version 1"):
        table.replace_where(opened(table), one.to_reader, "`id` >= 2", Commit("app", 2), Changes(1, 0, 0))
    assert (5, "e") in content(table)


def test_a_partition_that_loses_rows_is_not_committed(table: LakeTable) -> None:
    one = pa.Table.from_batches([rows((3, "three"))])
    with pytest.raises(RowsNotConservedError, match="1 rows were to be written, but the account says 2"):
        table.replace_where(opened(table), one.to_reader, "`id` >= 2", Commit("app", 2), Changes(2, 0, 1))
    assert content(table) == [(1, "a"), (2, "b")]


def test_a_partition_that_removed_more_than_it_should_is_taken_back(table: LakeTable) -> None:
    one = pa.Table.from_batches([rows((3, "three"))])
    with pytest.raises(RowsNotConservedError, match="2 rows instead of 3; the commit was taken back"):
        table.replace_where(opened(table), one.to_reader, "`id` >= 2", Commit("app", 2), Changes(1, 0, 0))
    assert content(table) == [(1, "a"), (2, "b")]
    assert opened(table).committed("app") == 1


def test_a_replacement_takes_the_new_schema_with_it(table: LakeTable) -> None:
    handle = opened(table)
    schema = pa.schema([("id", pa.string()), ("price", pa.decimal128(12, 2))])
    with table.stage(handle, schema) as staged:
        staged.write(pa.RecordBatch.from_pylist([{"id": "x", "price": None}], schema=schema))
        after = table.replace(handle, staged, Commit("app", 2))
    assert after.schema().equals(schema)
    assert after.delta.to_pyarrow_table().to_pylist() == [{"id": "x", "price": None}]


def test_readers_of_an_old_version_are_not_disturbed_by_a_replacement(table: LakeTable) -> None:
    reading = opened(table)
    replace(table, opened(table), 2, (7, "g"))
    assert reading.delta.to_pyarrow_table().num_rows == 2


def test_a_failed_write_leaves_no_file_and_no_commit(table: LakeTable, tmp_path: Path) -> None:
    handle = opened(table)
    before = sorted(path.name for path in (tmp_path / "lake/silver/shop/people").rglob("*.parquet"))

    def write_and_fail() -> None:
        with table.stage(handle, SCHEMA) as staged:
            staged.write(rows((3, "c")))
            staged.finish()
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        write_and_fail()
    assert sorted(path.name for path in (tmp_path / "lake/silver/shop/people").rglob("*.parquet")) == before
    assert opened(table).version == 1


@pytest.mark.parametrize("how", WRITES)
def test_a_column_that_another_run_adds_meanwhile_does_not_fail_a_write(table: LakeTable, how: str) -> None:
    stale = opened(table)
    table.evolve(opened(table), pa.schema([("extra", pa.int64())]))
    WRITES[how](table, stale, 2)
    assert content(table) == AFTER[how]


@pytest.mark.parametrize("how", WRITES)
def test_a_compaction_beside_a_write_doubles_nothing(table: LakeTable, how: str) -> None:
    """By itself Delta sees no conflict between a compaction and a replacement, and keeps the rows of both."""
    append(table, opened(table), 2, (3, "x"))
    replace(table, opened(table), 3, (1, "a"))
    append(table, opened(table), 4, (2, "b"))
    stale = opened(table)
    assert table.optimize().compacted
    WRITES[how](table, stale, 5)
    assert content(table) == AFTER[how]


def test_records_come_newest_first_however_long_the_history_is(
    table: LakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at in pieces, of which there are three here."""
    monkeypatch.setattr(handle_module, "FIRST_LOOK", 4)
    for number in range(2, 14):
        append(table, opened(table), number, (number, "x"))
    records = list(opened(table).records())
    assert [record["version"] for record in records] == list(range(13, 0, -1))
    assert opened(table).record("nobody") is None


def test_marks_outlive_the_cleaning_of_the_log_and_records_do_not(table: LakeTable) -> None:
    handle = opened(table)
    for number in range(2, 6):
        handle = table.mark(handle, Commit("app", number, {"run_id": "r"}, {"bronze": number * 10}))
    handle.delta.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    opened(table).delta.create_checkpoint()
    opened(table).delta.cleanup_metadata()
    handle = opened(table)
    assert (handle.committed("app"), handle.committed("bronze")) == (5, 50)
    assert handle.record("app") is None


def test_only_files_that_may_hold_newer_rows_are_listed(table: LakeTable) -> None:
    append(table, opened(table), 2, (10, "j"))
    append(table, opened(table), 3, (20, "t"))
    handle = opened(table)
    assert len(handle.files()) == 3
    assert len(handle.files("id", 2)) == 2
    assert len(handle.files("id", 10)) == 1
    assert len(handle.files("id", 20)) == 0
    assert len(handle.files("unknown", 20)) == 3


def test_a_table_that_is_not_there_opens_as_none(tmp_path: Path) -> None:
    lake = Lake(uri=str(tmp_path))
    assert lake.table("silver", "none").open() is None
    (tmp_path / "silver" / "half" / "_delta_log").mkdir(parents=True)
    assert lake.table("silver", "half").open() is None, "somebody is just creating it"


def test_a_conflict_that_does_not_end_is_reported_and_not_as_another_commit(
    table: LakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_table = LakeTable.open

    def always_behind(self: LakeTable, version: int | None = None) -> Handle | None:
        handle = open_table(self, version)
        delta = DeltaTable(self.uri)
        new = pa.schema([(f"column_{len(delta.schema().fields)}", pa.int64())]).empty_table()
        write_deltalake(delta, new, mode="append", schema_mode="merge")
        return handle

    stale = opened(table)
    monkeypatch.setattr(LakeTable, "open", always_behind)
    table.open()
    with pytest.raises(ConcurrentCommitError, match="the table was changed while number 2 of app was being committed"):
        append(table, stale, 2, (3, "c"))


def test_what_a_foreign_compaction_doubles_is_taken_back(table: LakeTable) -> None:
    """delta-rs' own compaction carries no mark, so a replacement beside it is only found out by counting."""
    append(table, opened(table), 2, (3, "x"))
    stale = opened(table)
    opened(table).delta.optimize.compact()
    with pytest.raises(RowsNotConservedError, match="has 4 rows instead of 1; the commit was taken back"):
        replace(table, stale, 3, (7, "g"))
    assert content(table) == [(1, "a"), (2, "b"), (3, "x")]
    assert opened(table).committed("app") == 2


def test_secrets_of_the_store_are_in_no_repr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_KEY", "hunter2")
    lake = Lake(uri="s3://lake", secrets={"AWS_SECRET_ACCESS_KEY": {"env": "LAKE_KEY"}})
    table = lake.table("silver", "x")
    assert table.storage_options["AWS_SECRET_ACCESS_KEY"] == "hunter2"
    assert "hunter2" not in repr(lake) + repr(table) + json.dumps(lake.model_dump(), default=str)


def test_vacuum_keeps_what_versions_within_the_retention_need(table: LakeTable, tmp_path: Path) -> None:
    replace(table, opened(table), 2, (7, "g"))
    assert table.vacuum() == []
    assert content(table, 1) == [(1, "a"), (2, "b")]
    assert len(table.vacuum(timedelta(0))) == 1
    assert content(table) == [(7, "g")]
