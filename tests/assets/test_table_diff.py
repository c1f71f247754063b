"""Changes found by comparing: held against a truth, and broken on purpose."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl_assets import table_diff, table_diff_columns, table_diff_compare, table_diff_look, table_diff_state
from etl_assets.table_diff import TableDiff
from etl_resources.exceptions import ConcurrentCommitError, RowsNotConservedError, SchemaConflictError
from etl_resources.source import unreadable_schema
from tests.assets.diff_table import DiffTable, TableSource, exactly, play
from tests.assets.doubles import new_run
from tests.forks import KILLED, Forks, forking
from tests.soaking import some

__all__ = ["forking"]
SCHEMA = pa.schema([("id", pa.int64()), ("v", pa.string())])
ABC = [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}, {"id": 3, "v": "c"}]


@pytest.fixture
def table(tmp_path: Path) -> DiffTable:
    return DiffTable(tmp_path)


@pytest.mark.parametrize("seed", some(range(60), 1))
def test_silver_is_the_table_and_the_log_has_real_changes_only(tmp_path: Path, seed: int) -> None:
    play(tmp_path, seed)


def test_inserts_updates_and_deletes_are_told_apart(table: DiffTable) -> None:
    assert str(table.look(ABC)) == "inserted 3"
    account = table.look([ABC[0], {"id": 2, "v": None}, {"id": 4, "v": "d"}])
    assert str(account) == "inserted 3 + unchanged 1"
    assert account.read == 4, "three rows, and a key that is gone"
    assert table.events("_pos, id, v, _op, _before.v") == [
        (1, 1, "a", "read", None),
        (1, 2, "b", "read", None),
        (1, 3, "c", "read", None),
        (2, 2, None, "update", "b"),
        (2, 3, None, "delete", "c"),
        (2, 4, "d", "insert", None),
    ]
    table.look([*ABC, {"id": 4, "v": "d"}])
    assert table.events()[-2:] == [(2, "update", 3), (3, "insert", 3)]


class QuietSource(TableSource):
    """Gives nothing at all."""

    def read(self, *_: Any, **__: Any) -> Any:
        return iter(())


@pytest.mark.parametrize("mutant", [False, True], ids=["as it is", "a mutant: hashed as they are"])
def test_decimals_of_many_digits(table: DiffTable, monkeypatch: pytest.MonkeyPatch, mutant: bool) -> None:
    monkeypatch.setattr(table_diff_columns, "NARROW", 38 if mutant else 18)
    schema = pa.schema([("id", pa.int64()), ("v", pa.decimal128(38, 0))])
    table.look([{"id": 1, "v": Decimal(0)}, {"id": 2, "v": Decimal(1)}], schema)
    found = str(table.look([{"id": 1, "v": Decimal(-1)}, {"id": 2, "v": Decimal(2**64)}], schema))
    assert found == ("unchanged 2" if mutant else "inserted 2")


def test_an_emptied_table_is_empty_and_a_source_that_says_nothing_is_not(table: DiffTable) -> None:
    table.look(ABC)
    TableDiff(table.bronze, table.key, table.engine).land(QuietSource(), new_run())
    assert len(table.state()) == 3
    table.look([], SCHEMA)
    assert table.state() == []


def test_half_a_read_deletes_nothing(table: DiffTable) -> None:
    table.look(ABC)
    with pytest.raises(RowsNotConservedError, match="without the position"):
        table.look(ABC, cuts=[2], ends=False)
    with pytest.raises(RowsNotConservedError):
        table.look(ABC, cuts=[2], loses=True)
    assert exactly(table.state()) == exactly(ABC)
    assert len(table.events()) == 3


def test_a_key_that_is_null_or_comes_twice_is_an_error_and_not_a_row(table: DiffTable) -> None:
    table.look(ABC)
    rows = [*ABC[:2], {"id": 2, "v": "x"}, {"id": None, "v": "y"}, {"id": 7, "v": "p"}, {"id": 7, "v": "p"}]
    assert str(table.look(rows)) == "inserted 1 + unchanged 1 + rejected:unreadable 5"
    assert table.errors() == {"bronze/test/things": 5}
    assert exactly(table.state()) == exactly(ABC[:2]), "the key that comes twice has its last state"
    table.look([*ABC, {"id": 7, "v": "p"}])
    assert table.errors() == {}
    assert exactly(table.state()) == exactly([*ABC, {"id": 7, "v": "p"}])


def unreadable(*raw: bytes) -> pa.RecordBatch:
    rows = [{"reason": "no such day", "raw": one} for one in raw]
    return pa.RecordBatch.from_pylist(rows, schema=unreadable_schema())


def test_a_row_that_cannot_be_read_is_not_gone(table: DiffTable) -> None:
    table.look(ABC)
    table.look(ABC[:1], SCHEMA, unreadable=unreadable(b'{"id": 3, "v": "infinity"}'))
    assert exactly(table.state()) == exactly([ABC[0], ABC[2]]), "2 is gone, 3 is only unreadable"
    table.look(ABC[:1], SCHEMA, unreadable=unreadable(b"1;;x;"))
    assert exactly(table.state()) == exactly([ABC[0], ABC[2]]), "nobody knows which row that is: nothing is gone"
    table.look(ABC[:1])
    assert exactly(table.state()) == exactly(ABC[:1])


def test_new_and_dropped_columns_are_no_updates(table: DiffTable) -> None:
    table.look(ABC)
    wide = pa.schema([("w", pa.float64()), *SCHEMA])
    assert str(table.look([{**row, "w": None} for row in ABC], wide)) == "unchanged 3"
    assert str(table.look([{**ABC[0], "w": 1.5}, *ABC[1:]], wide)) == "inserted 1 + unchanged 2"
    assert str(table.look(ABC)) == "unchanged 3"
    assert str(table.look(ABC)) == "unchanged 3"
    assert str(table.look([ABC[0], ABC[1], {"id": 3, "v": ""}])) == "inserted 1 + unchanged 2"


def test_another_version_of_the_hash_function_is_no_update(table: DiffTable, monkeypatch: pytest.MonkeyPatch) -> None:
    table.look(ABC)
    compared: list[int] = []
    keep = table_diff_compare.Comparison.keep

    def watched(self: Any, *args: Any) -> str:
        compared.append(self.counts.get("unknown", 0))
        return keep(self, *args)

    monkeypatch.setattr(table_diff_compare.Comparison, "keep", watched)
    monkeypatch.setattr(table_diff_look, "hash_sql", lambda schema: "CAST(hash(v) >> 2 AS BIGINT)")
    monkeypatch.setattr(table_diff_look, "hashed_by", lambda schema: "another")
    assert str(table.look(ABC)) == "unchanged 3"
    assert str(table.look([{"id": 1, "v": "x"}, *ABC[1:]])) == "inserted 1 + unchanged 2"
    assert str(table.look(ABC)) == "inserted 1 + unchanged 2"
    assert compared == [3, 0, 0], "by their values once, and then by the noted hashes"


def test_a_full_refresh_compares_by_value_and_rewrites_nothing(
    table: DiffTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_diff_look, "hash_sql", lambda schema: "CAST(id AS BIGINT)")
    table.look(ABC)
    changed = [{"id": 1, "v": "x"}, *ABC[1:]]
    assert str(table.look(changed)) == "unchanged 3", "a hash that sees nothing"
    assert str(table.look(changed, fresh=True)) == "inserted 1 + unchanged 2"
    assert str(table.look(changed)) == "unchanged 3"
    assert len(table.events()) == 4


def test_a_key_of_another_type_is_refused_and_a_wider_one_is_the_same(table: DiffTable) -> None:
    table.look(ABC, pa.schema([("id", pa.int16()), ("v", pa.string())]))
    assert str(table.look(ABC, pa.schema([("id", pa.int32()), ("v", pa.string())]))) == "unchanged 3"
    with pytest.raises(SchemaConflictError, match="the key 'id' is int64 in the lake and string"):
        table.look([{**row, "id": str(row["id"])} for row in ABC])
    assert len(table.events()) == 3


def test_a_column_whose_type_leaves_its_family_goes_on_beside_it(table: DiffTable) -> None:
    table.look([{"id": 1, "v": 5}, {"id": 2, "v": 6}])
    text = [{"id": 1, "v": "5"}, {"id": 2, "v": "six"}]
    assert str(table.look(text)) == "inserted 1 + unchanged 1"
    assert str(table.look(text)) == "unchanged 2"
    assert table.events("id, v, v__v2") == [(1, 5, None), (2, 6, None), (2, None, "six")]


@pytest.mark.parametrize("name", ["_pos", "_hash", "_before"])
def test_a_column_with_a_name_of_the_events_own_is_refused(table: DiffTable, name: str) -> None:
    with pytest.raises(SchemaConflictError, match=name):
        table.look([{"id": 1, name: 1}])


def test_of_two_runs_at_once_one_is_refused_and_each_change_is_there_once(table: DiffTable) -> None:
    table.look(ABC)
    changed = pa.Table.from_pylist([{"id": 1, "v": "x"}, *ABC[1:]])
    together, ended = threading.Barrier(2), []

    class Waiting(TableSource):
        def read(self, *args: Any, **more: Any) -> Any:
            together.wait(20)
            yield from super().read(*args, **more)

    def run() -> None:
        try:
            TableDiff(table.bronze, table.key, table.engine).land(Waiting().give(changed), new_run())
            ended.append("done")
        except ConcurrentCommitError:
            ended.append("refused")

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ended) == ["done", "refused"]
    assert table.events()[3:] == [(1, "update", 2)]


def looked_at(folder: str, rows: list[dict[str, Any]]) -> None:
    DiffTable(folder).look(rows, cuts=[1])


@pytest.mark.parametrize(
    "point", some(["bronze:before_commit", "diff:before_note", "bronze:before_errors", "bronze:after_commit"], 2)
)
def test_a_kill_between_read_and_commit_is_made_good_by_the_next_run(tmp_path: Path, forks: Forks, point: str) -> None:
    """The killed run also finds another column, so that it has hashes to note."""
    first = [*ABC, {"id": 9, "v": "i"}]
    changed = [{"id": 1, "v": "x", "w": 1}, {"id": 2, "v": "b", "w": None}, {"id": 3, "v": "c", "w": None}]
    bad = [{"id": 5, "v": "1", "w": None}, {"id": 5, "v": "2", "w": None}]
    looked_at(str(tmp_path), first)
    killed = forks.start(looked_at, env={"ETL_KILL_AT": point}, folder=str(tmp_path), rows=[*changed, *bad])
    assert killed.wait() == KILLED
    looked_at(str(tmp_path), [*changed, *bad])
    table = DiffTable(tmp_path)
    assert [event[:2] for event in table.events()[4:]] == [(1, "update"), (9, "delete")]
    assert exactly(table.state()) == exactly(changed)
    assert table.errors() == {"bronze/test/things": 2}
    schema = pa.schema([*SCHEMA, ("w", pa.int64())])
    assert str(table.look(changed, schema)) == "unchanged 3"


def _blind(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Return a mutant that does not see some differences."""
    distinguished = table_diff_columns.distinguished

    def plain(column: str, kind: pa.DataType) -> list[str]:
        if name == "empty is null" and pa.types.is_string(kind):
            return [f"coalesce({column}, '')"]
        if name == "zero is zero" and pa.types.is_floating(kind):
            return [column]
        if name == "no struct is a struct of nothing" and pa.types.is_nested(kind):
            return [column]
        return distinguished(column, kind)

    return lambda patch: patch.setattr(table_diff_columns, "distinguished", plain)


def _half(patch: pytest.MonkeyPatch) -> None:
    """Take half a read for a whole one."""
    read = TableSource.read

    def ended(self: TableSource, *args: Any, **more: Any) -> Any:
        for batch in read(self, *args, **more):
            yield table_diff.replace(batch, position=batch.position or {"read": 0})

    patch.setattr(TableSource, "read", ended)


def _no_deletes(patch: pytest.MonkeyPatch) -> None:
    def none(self: Any) -> None:
        self.session.execute("CREATE TEMP TABLE gone AS SELECT * FROM live WHERE false")

    patch.setattr(table_diff_compare.Comparison, "find_gone", none)


def _dead_live(patch: pytest.MonkeyPatch) -> None:
    """Forget that a key was deleted."""
    patch.setattr(table_diff_state, "DELETE", "never")


def _mass_update(patch: pytest.MonkeyPatch) -> None:
    """Take every row whose hash is not known for changed."""
    patch.setattr(table_diff_compare, "differs", lambda row, old, schema, log: "true")


def _stale_notes(patch: pytest.MonkeyPatch) -> None:
    """Trust hashes that were made by something else."""

    def trusting(self: Any, event: str, hashed_by: str) -> str:
        return f"{event}.stored"

    patch.setattr(table_diff_state.State, "_current", trusting)


def _one_epoch(patch: pytest.MonkeyPatch) -> None:
    """Give all events the same place."""
    patch.setattr(table_diff_state.State, "newest", property(lambda self: 1))


def _only_first(patch: pytest.MonkeyPatch) -> None:
    """Compare with any event of a key, and not with the newest."""
    patch.setattr(table_diff_state, "_ORDER", "(-_pos)")


MUTANTS = {
    "empty is null": _blind("empty is null"),
    "zero is zero": _blind("zero is zero"),
    "no struct is a struct of nothing": _blind("no struct is a struct of nothing"),
    "half a read is whole": _half,
    "no deletes": _no_deletes,
    "deleted keys live": _dead_live,
    "unknown hashes are updates": _mass_update,
    "stale hashes are trusted": _stale_notes,
    "one epoch for all": _one_epoch,
    "not the newest event": _only_first,
}


def drill(folder: Path) -> None:
    """Fail unless a few looks, each at something that is easily done wrong, find what they have to."""
    kinds = [("id", pa.int64()), ("s", pa.string()), ("f", pa.float64()), ("r", pa.struct([("x", pa.int64())]))]
    schema, table = pa.schema(kinds), DiffTable(folder)
    one, two = {"id": 1, "s": None, "f": 0.0, "r": None}, {"id": 2, "s": "", "f": None, "r": {"x": None}}
    three = {"id": 3, "s": "c", "f": 0.0, "r": {"x": 1}}

    def look(found: str, *rows: dict[str, Any], columns: pa.Schema = schema) -> None:
        assert str(table.look(rows, columns)) == found
        table.agree(rows)

    look("inserted 3", one, two, three)
    look("inserted 3", {**one, "s": ""}, {**two, "r": None}, {**three, "f": -0.0})
    look("inserted 3", one, two, three)
    with pytest.raises(RowsNotConservedError):
        table.look([one, two, three], schema, cuts=[2], ends=False)
    look("inserted 1 + unchanged 2", one, two)
    look("unchanged 2", one, two)
    look("inserted 1 + unchanged 2", one, two, three)
    wide = pa.schema([*schema, ("w", pa.string())])
    look("unchanged 3", one, two, three, columns=wide)
    look("inserted 1 + unchanged 2", {**one, "w": "new"}, two, three, columns=wide)


def test_the_drill_finds_nothing_wrong_with_the_comparison_as_it_is(tmp_path: Path) -> None:
    drill(tmp_path)


@pytest.mark.parametrize("mutant", some(MUTANTS, 2))
def test_the_drill_finds_a_comparison_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: str
) -> None:
    MUTANTS[mutant](monkeypatch)
    with pytest.raises((AssertionError, RowsNotConservedError, pytest.fail.Exception)):
        drill(tmp_path)
