"""Merging by key: what is to be done is counted before the commit, and what others did meanwhile is seen after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from etl_resources.delta.merging import Merge
from etl_resources.delta.rewriting import Changes
from etl_resources.engines.duckdb import DuckDB, Session
from etl_resources.exceptions import ConcurrentCommitError, ConfigurationError, RowsNotConservedError
from etl_resources.lake import Commit, Handle, Lake, LakeTable
from tests.resources.merges import merged

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])
ACTIONS = SCHEMA.append(pa.field("_action", pa.string()))


def actions(*triples: tuple[int, str | None, str]) -> Callable[[], pa.RecordBatchReader]:
    listed = [{"id": key, "name": name, "_action": action} for key, name, action in triples]
    return lambda: pa.Table.from_pylist(listed, schema=ACTIONS).to_reader()


def content(table: LakeTable) -> list[tuple[int, str]]:
    return sorted((row["id"], row["name"]) for row in opened(table).delta.to_pyarrow_table().to_pylist())


def opened(table: LakeTable) -> Handle:
    handle = table.open()
    assert handle is not None
    return handle


def append(table: LakeTable, number: int, *pairs: tuple[int, str]) -> None:
    with table.stage(opened(table), SCHEMA) as staged:
        staged.write(pa.RecordBatch.from_pylist([{"id": key, "name": name} for key, name in pairs], schema=SCHEMA))
        table.append(opened(table), staged, Commit("app", number))


def data_files(table: LakeTable) -> set[str]:
    return {file.path for file in opened(table).data_files()}


def on_disk(table: LakeTable) -> set[str]:
    return {path.name for path in Path(table.uri).glob("*.parquet")}


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    """A table with two rows in one file, committed as number 1."""
    table = Lake(uri=str(tmp_path / "lake")).table("silver", "shop", "people")
    table.ensure(SCHEMA)
    append(table, 1, (1, "a"), (2, "b"))
    return table


ONE_OF_EACH = actions((1, "one", "update"), (2, None, "delete"), (9, "nine", "insert"))


def one_of_each(table: LakeTable, handle: Handle | None = None) -> Handle:
    return merged(table, handle or opened(table), ONE_OF_EACH, ["id"], Commit("app", 2), Changes(1, 1, 1))


def test_rows_are_inserted_updated_and_deleted_in_one_commit(table: LakeTable) -> None:
    before = opened(table).version
    after = one_of_each(table)
    assert content(table) == [(1, "one"), (9, "nine")]
    assert (after.version, after.rows(), after.committed("app")) == (before + 1, 2, 2)


def test_only_files_that_have_a_changed_row_are_written_anew(table: LakeTable) -> None:
    append(table, 2, (3, "c"), (4, "d"))
    append(table, 3, (5, "e"), (6, "f"))
    before = data_files(table)
    merged(
        table, opened(table), actions((4, "D", "update"), (7, "g", "insert")), ["id"], Commit("app", 4), Changes(1, 1)
    )
    assert len(before & data_files(table)) == 2
    assert content(table) == [(1, "a"), (2, "b"), (3, "c"), (4, "D"), (5, "e"), (6, "f"), (7, "g")]


def test_a_file_of_which_no_row_stays_is_gone(table: LakeTable) -> None:
    merged(
        table,
        opened(table),
        actions((1, None, "delete"), (2, None, "delete")),
        ["id"],
        Commit("app", 2),
        Changes(0, 0, 2),
    )
    assert data_files(table) == set()
    assert content(table) == []


def test_rows_are_merged_into_an_empty_table(tmp_path: Path) -> None:
    table = Lake(uri=str(tmp_path)).table("empty")
    merged(table, table.ensure(SCHEMA), actions((1, "a", "insert")), ["id"], Commit("app", 1), Changes(1))
    assert content(table) == [(1, "a")]


def test_a_merge_that_changes_nothing_keeps_its_transaction(table: LakeTable) -> None:
    """The position that has been reached is in it."""
    commit = Commit("app", 2, {"run_id": "r"}, {"bronze": 7})
    after = merged(table, opened(table), actions(), ["id"], commit, Changes())
    assert (after.committed("app"), after.committed("bronze")) == (2, 7)
    assert (after.record("app") or {})["run_id"] == "r"


def test_of_two_merges_that_change_nothing_one_is_refused(table: LakeTable) -> None:
    stale = opened(table)
    merged(table, opened(table), actions(), ["id"], Commit("app", 2), Changes())
    with pytest.raises(ConcurrentCommitError):
        merged(table, stale, actions(), ["id"], Commit("app", 2), Changes())


def test_a_merge_deletes_by_key_alone_and_leaves_columns_it_was_not_given(table: LakeTable) -> None:
    handle = table.evolve(opened(table), pa.schema([("extra", pa.int64())]))
    wide = pa.table({"id": [1, 5], "name": ["a", "e"], "extra": [10, 50], "_action": ["update", "insert"]})
    handle = merged(table, handle, wide.to_reader, ["id"], Commit("app", 2), Changes(1, 1, 0))
    narrow = pa.table({"id": [1, 2], "name": ["A", None], "_action": ["update", "delete"]})
    merged(table, handle, narrow.to_reader, ["id"], Commit("app", 3), Changes(0, 1, 1))
    found = opened(table).delta.to_pyarrow_table().sort_by("id").to_pylist()
    assert found == [{"id": 1, "name": "A", "extra": 10}, {"id": 5, "name": "e", "extra": 50}]


def test_composite_keys_and_names_that_need_quotes_merge(tmp_path: Path) -> None:
    table = Lake(uri=str(tmp_path)).table("odd")
    schema = pa.schema([("order", pa.string()), ("line no", pa.int64()), ("välue", pa.string())])
    handle = table.ensure(schema)
    data = pa.table({"order": ["a", "a"], "line no": [1, 2], "välue": ["x", "y"], "_action": ["insert"] * 2})
    handle = merged(table, handle, data.to_reader, ["order", "line no"], Commit("app", 1), Changes(2))
    data = pa.table({"order": ["a"], "line no": [2], "välue": ["z"], "_action": ["update"]})
    merged(table, handle, data.to_reader, ["order", "line no"], Commit("app", 2), Changes(0, 1))
    assert [row["välue"] for row in opened(table).delta.to_pyarrow_table().sort_by("line no").to_pylist()] == ["x", "z"]


@pytest.mark.parametrize("expected", [Changes(2, 1, 0), Changes(1, 2, 0)])
def test_a_source_that_loses_rows_on_the_way_into_a_merge_stops_the_commit(table: LakeTable, expected: Changes) -> None:
    source = actions((1, "one", "update"), (9, "nine", "insert"))
    with pytest.raises(RowsNotConservedError, match="2 rows were to be written, but the account says 3"):
        merged(table, opened(table), source, ["id"], Commit("app", 2), expected)
    assert opened(table).version == 1
    assert content(table) == [(1, "a"), (2, "b")]


DISAGREE = {
    "an update meets nothing": (
        actions((1, "one", "update"), (7, "seven", "update")),
        Changes(0, 2, 0),
        "1 of 2 rows that",
    ),
    "a deletion meets nothing": (actions((7, None, "delete")), Changes(0, 0, 1), "0 of 1 that are to be deleted"),
    "what is inserted is there": (actions((2, "two", "insert")), Changes(1), "and 1 that are to be inserted"),
    "other actions than the account has": (
        actions((1, "one", "update")),
        Changes(0, 0, 1),
        "0 of 1 that are to be deleted",
    ),
    "a key comes twice": (actions((1, "x", "update"), (1, "y", "update")), Changes(0, 2, 0), "written instead of"),
}


@pytest.mark.parametrize(("source", "expected", "message"), DISAGREE.values(), ids=DISAGREE)
def test_what_the_table_does_not_agree_with_is_not_committed(
    table: LakeTable, source: Callable[[], pa.RecordBatchReader], expected: Changes, message: str
) -> None:
    files = on_disk(table)
    with pytest.raises(RowsNotConservedError, match=message) as error:
        merged(table, opened(table), source, ["id"], Commit("app", 2), expected)
    assert "nothing was committed" in str(error.value)
    assert (opened(table).version, content(table), on_disk(table)) == (1, [(1, "a"), (2, "b")], files)


def test_a_key_that_the_table_has_twice_is_not_updated(table: LakeTable) -> None:
    append(table, 2, (1, "again"))
    with pytest.raises(RowsNotConservedError, match="has 2 of 1 rows that are to be updated"):
        merged(table, opened(table), actions((1, "one", "update")), ["id"], Commit("app", 3), Changes(0, 1))


@pytest.mark.parametrize("stream", [0, 1], ids=["of rows that stay", "of rows that change"])
def test_rows_that_the_engine_loses_stop_the_commit(
    table: LakeTable, monkeypatch: pytest.MonkeyPatch, stream: int
) -> None:
    """Counted in the footers of the files, before the commit."""
    append(table, 2, (3, "c"))
    real, streams = Session.stream, []

    def losing(self: Session, sql: str, rows: int = 1) -> pa.RecordBatchReader:
        reader = real(self, sql, rows)
        streams.append(sql)
        return reader.schema.empty_table().to_reader() if len(streams) == stream + 1 else reader

    files = on_disk(table)
    monkeypatch.setattr(Session, "stream", losing)
    with pytest.raises(RowsNotConservedError, match="rows were written instead of"):
        merged(table, opened(table), actions((1, "one", "update")), ["id"], Commit("app", 3), Changes(0, 1))
    assert (opened(table).version, on_disk(table)) == (2, files)


def test_a_file_that_is_not_what_the_log_says_stops_the_commit(table: LakeTable) -> None:
    """Somebody has put another one in its place, with a row less."""
    import pyarrow.parquet as pq

    append(table, 2, (3, "c"), (4, "d"))
    path = Path(table.uri) / max(opened(table).data_files(), key=lambda file: file.modified).path
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(RowsNotConservedError, match="files of the table have 3 rows, but its log says 4; nothing was"):
        merged(table, opened(table), actions((1, "one", "update")), ["id"], Commit("app", 3), Changes(0, 1))
    assert opened(table).version == 2


def test_a_value_that_does_not_fit_its_column_is_an_error_and_no_other_value(table: LakeTable) -> None:
    wrong = pa.table({"id": [1.0, 2.5], "name": ["x", "y"], "_action": ["update", "insert"]})
    with pytest.raises(Exception, match="does not fit"):
        merged(table, opened(table), wrong.to_reader, ["id"], Commit("app", 2), Changes(1, 1))
    assert content(table) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("foreign", ["compacted", "appended"])
def test_what_somebody_else_did_meanwhile_is_seen_and_the_merge_taken_back(table: LakeTable, foreign: str) -> None:
    """Delta sees no conflict with these, which have not our mark: rows would be there twice."""
    append(table, 2, (3, "c"))
    stale = opened(table)
    if foreign == "compacted":
        DeltaTable(table.uri).optimize.compact()
    else:
        write_deltalake(table.uri, pa.table({"id": [8], "name": ["other"]}), mode="append")
    meanwhile = content(table)
    with pytest.raises(RowsNotConservedError, match="somebody else changed the table at the same time; the commit was"):
        merged(table, stale, ONE_OF_EACH, ["id"], Commit("app", 3), Changes(1, 1, 1))
    assert (content(table), opened(table).committed("app")) == (meanwhile, 2)
    merged(table, opened(table), ONE_OF_EACH, ["id"], Commit("app", 3), Changes(1, 1, 1))
    assert {(1, "one"), (3, "c"), (9, "nine")} <= set(content(table)), "the work can be done again"


def test_rows_that_somebody_else_deleted_meanwhile_are_missed(table: LakeTable) -> None:
    """Delta sees this conflict; the merge is tried on the table as it is now, which the account is not of."""
    stale = opened(table)
    DeltaTable(table.uri).delete("id = 1")
    with pytest.raises(RowsNotConservedError, match="has 0 of 1 rows that are to be updated"):
        merged(table, stale, ONE_OF_EACH, ["id"], Commit("app", 2), Changes(1, 1, 1))
    assert content(table) == [(2, "b")]


def test_our_own_compaction_is_a_conflict_that_the_merge_outlives(table: LakeTable) -> None:
    append(table, 2, (3, "c"))
    stale = opened(table)
    assert table.optimize().compacted
    merged(table, stale, ONE_OF_EACH, ["id"], Commit("app", 3), Changes(1, 1, 1))
    assert content(table) == [(1, "one"), (3, "c"), (9, "nine")]


def test_a_table_that_is_more_than_its_files_is_refused(tmp_path: Path) -> None:
    table = Lake(uri=str(tmp_path)).table("parted")
    write_deltalake(table.uri, pa.table({"id": [1], "name": ["a"]}), partition_by=["name"])
    with pytest.raises(ConfigurationError, match="deletion vectors or partition columns"):
        merged(table, opened(table), actions((2, "b", "insert")), ["id"], Commit("app", 1), Changes(1))


def test_what_the_merge_made_in_the_session_is_gone(table: LakeTable) -> None:
    with DuckDB(threads=1).session() as session:
        session.connection.register("changes", ONE_OF_EACH().read_all())
        table.merge(opened(table), Merge(session, "changes", SCHEMA.names, ["id"], Changes(1, 1, 1)), Commit("app", 2))
        assert session.execute("SELECT table_name FROM duckdb_tables() WHERE temporary") == []


def test_a_column_that_has_become_personal_leaves_no_bounds(table: LakeTable) -> None:
    with DuckDB(threads=1).session() as session:
        session.connection.register("changes", ONE_OF_EACH().read_all())
        what = Merge(session, "changes", SCHEMA.names, ["id"], Changes(1, 1, 1), personal=["name"])
        handle = table.merge(opened(table), what, Commit("app", 2))
    actions = pa.table(handle.delta.get_add_actions(flatten=True))
    assert actions["max.id"].to_pylist() == [9]
    assert "max.name" not in actions.column_names or actions["max.name"].to_pylist() == [None]
