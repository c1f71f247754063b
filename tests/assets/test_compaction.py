"""A compacted log gives the silver of the whole one: incremental, anew, replayed, and after kills at any point."""

from __future__ import annotations

import atexit
import json
import random
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from etl_assets import compaction, compaction_keeping, silver_work
from etl_assets.compaction import Outcome, compact
from etl_assets.compaction_record import compacted, compaction_of
from etl_assets.silver import Silver
from etl_assets.silver_replay import replay
from etl_assets.silver_work import BRONZE_MARK
from etl_resources.exceptions import RowsNotConservedError
from etl_resources.lake import LakeTable
from tests.assets.doubles import new_run
from tests.assets.test_captured_silver import LENIENT, STRICT, Table, event, random_transaction
from tests.forks import KILLED, Forks, forking
from tests.soaking import SOAK, some

__all__ = ["forking"]
TOMORROW = datetime.now(UTC) + timedelta(days=1)


def squeeze(table: Table, days: int = 0, now: datetime = TOMORROW, worth: float = 0) -> Outcome:
    return compact(table.silver, new_run(), days, now=now, worth=worth)


def events(table: Table) -> list[tuple[Any, ...]]:
    return table.captured.events("a", "id, _op, name, big")


def following(folder: Path, steps: list[Any] | None = None) -> Table:
    """Return a table whose first load is done, so that what is committed from now on comes as events."""
    shutil.copytree(_loaded(json.dumps(steps)), folder, dirs_exist_ok=True)
    return Table(folder, steps=steps)


@cache
def _loaded(steps: str) -> Path:
    """Return a lake as it is after the first load of an empty table."""
    folder = Path(tempfile.mkdtemp(prefix="etl-loaded-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Table(folder, steps=json.loads(steps)).load()
    return folder


def anew(table: Table) -> list[tuple[Any, ...]]:
    """Return the rows of silver, built anew from bronze as it is."""
    table.silver.refine(new_run(), full_refresh=True)
    return table.rows()


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return following(tmp_path)


def test_only_the_newest_event_of_a_key_stays_and_the_ledger_says_so(table: Table) -> None:
    table.commit("insert", 1, "one").commit("insert", 2, "two")
    table.load()
    table.commit("update", 1, "uno").commit("update", 1, "eins").commit("delete", 2)
    table.load()
    assert squeeze(table) == Outcome(kept=1, gone=4, upto=7)
    assert events(table) == [(1, "update", "eins", None)]
    (row,) = table.silver.ledger.rows(compaction_of("bronze/test/a"))
    assert (row["read"], row["unchanged"], row["superseded"]) == (5, 1, 4)
    assert anew(table) == table.truth() == [(1, "eins", None)]


def test_what_stays_keeps_its_name_and_its_place(table: Table) -> None:
    table.commit("insert", 1, "one").commit("update", 1, "uno").commit("insert", 2, "two")
    table.load()
    named = "id, _batch, _row, _pos, _seq, _read_at"
    before = table.captured.events("a", named)
    squeeze(table)
    assert table.captured.events("a", named) == [row for row in before if row[3] != before[0][3]]


def test_days_that_are_not_closed_stay(table: Table) -> None:
    table.commit("insert", 1, "one").commit("update", 1, "uno")
    table.load()
    for days, now in ((0, TOMORROW - timedelta(days=1)), (1, TOMORROW)):
        assert squeeze(table, days, now).reason == "no further day with changes is closed"
    assert len(events(table)) == 2
    assert squeeze(table, 1, TOMORROW + timedelta(days=1)).gone == 1


def test_what_silver_has_not_read_stays(table: Table) -> None:
    table.commit("insert", 1, "one")
    table.load()
    table.commit("update", 1, "uno").commit("update", 1, "eins")
    table.captured.follow()
    assert squeeze(table).gone == 0
    assert len(events(table)) == 3
    assert squeeze(table).reason == "silver has not read further"
    table.silver.refine(new_run())
    assert squeeze(table).gone == 2
    assert anew(table) == [(1, "eins", None)]


def test_a_silver_table_of_before_is_built_anew(table: Table) -> None:
    """Deletes between it and the compaction are no longer in the log."""
    table.commit("insert", 1, "one").commit("insert", 2, "two")
    table.load()
    old = table.silver.table.open()
    assert old is not None
    version = old.version
    table.commit("delete", 2).commit("update", 1, "uno")
    table.load()
    squeeze(table)
    restored = table.silver.table.open()
    assert restored is not None
    from deltalake import CommitProperties

    from etl_resources.delta.commit import transactions_of

    marks = transactions_of({BRONZE_MARK: 2})
    restored.delta.restore(version, commit_properties=CommitProperties(app_transactions=marks))
    assert table.rows() == [(1, "one", None), (2, "two", None)]
    table.commit("insert", 3, "three")
    table.load()
    assert table.rows() == table.truth()


def test_a_value_that_a_kept_event_left_out_is_filled(table: Table) -> None:
    table.commit("insert", 1, "one", big="large").commit("update", 1, "uno", unchanged=["big"])
    table.load()
    squeeze(table)
    assert events(table) == [(1, "update", "uno", "large")]
    table.commit("update", 1, "eins", unchanged=["big"])
    table.load()
    assert table.rows() == [(1, "eins", "large")] == anew(table)


def test_a_value_that_nobody_gave_stays_missing_and_others_of_the_event_do_not(tmp_path: Path) -> None:
    table = following(tmp_path)
    table.log.rows["a"][1] = {"id": 1, "name": "one", "big": "large"}
    table.commit("update", 1, "one", unchanged=["big"])
    table.load()
    assert table.open_errors() == 1
    table.commit("update", 1, None, unchanged=["big", "name"]).commit("insert", 2, "two").commit("delete", 2)
    table.load()
    squeeze(table)
    assert table.captured.events("a", "name, _unchanged") == [("one", ["big"]), ("one", ["big"])]
    table.commit("update", 1, None, big="new", unchanged=["name"])
    table.load()
    assert table.rows() == [(1, "one", "new")] == anew(table)


def test_a_rejected_event_leaves_the_one_before_it_in_the_log(tmp_path: Path) -> None:
    table = following(tmp_path, steps=STRICT)
    table.commit("insert", 1, "1").commit("update", 1, "2").commit("update", 1, "no number")
    table.load()
    assert squeeze(table) == Outcome(kept=2, gone=1, upto=5)
    assert anew(table) == [(1, 2, None)]
    assert table.open_errors() == 1
    table.steps(LENIENT)
    assert str(replay(table.silver, new_run())) == "updated 1"
    assert table.rows() == [(1, None, None)]


def test_a_delete_stays_as_long_as_an_older_event_of_its_key_could_be_replayed(tmp_path: Path) -> None:
    table = following(tmp_path, steps=STRICT)
    table.commit("insert", 1, "no number").commit("insert", 2, "2").commit("delete", 2)
    table.load()
    table.commit("delete", 1)
    table.captured.follow()
    from etl_assets import silver

    with pytest.MonkeyPatch.context() as killed:
        killed.setattr(silver, "heal", lambda *_: None)
        table.silver.refine(new_run())
    squeeze(table)
    assert [row[:2] for row in events(table)] == [(1, "insert"), (1, "delete")]
    table.steps(LENIENT)
    assert str(replay(table.silver, new_run())) == "superseded 1"
    assert table.rows() == []


def test_a_delete_stays_that_outranks_another_key_of_the_source_with_the_same_key_in_silver(tmp_path: Path) -> None:
    table = following(tmp_path, steps=[{"add": {"id": "id % 10"}}])
    table.commit("insert", 1, "one").commit("delete", 11)
    table.load()
    assert table.rows() == []
    squeeze(table)
    assert anew(table) == []


def test_what_came_before_the_last_truncation_goes(table: Table) -> None:
    table.commit("insert", 1, "one").commit("truncate", None).commit("insert", 2, "two").commit("truncate", None)
    table.commit("insert", 3, "three")
    table.load()
    squeeze(table)
    assert [row[:2] for row in events(table)] == [(None, "truncate"), (3, "insert")]
    assert anew(table) == [(3, "three", None)]


def test_events_without_a_key_stay(table: Table) -> None:
    table.commit("insert", None, "one").commit("insert", None, "two")
    table.load()
    assert squeeze(table).gone == 0
    assert len(events(table)) == 2
    assert table.open_errors() == 2


def test_deletes_of_a_gap_are_found_in_a_compacted_log(table: Table) -> None:
    table.log.commit(event("insert", 1, "one"), event("insert", 2, "two"), event("insert", 3, "three"))
    table.load()
    table.commit("update", 1, "uno").commit("delete", 3)
    table.load()
    squeeze(table)
    table.log.commit(event("delete", 2), logged=False)
    table.captured.follow(fresh=True)
    table.silver.refine(new_run())
    assert table.rows() == table.truth() == [(1, "uno", None)]
    squeeze(table)
    assert anew(table) == table.truth()


def test_rows_of_later_batches_in_the_same_file_stay_as_they_are(table: Table) -> None:
    table.commit("insert", 0, "old")
    table.load()
    bronze = table.silver.bronze
    table.commit("update", 0, "new")
    table.load()
    table.commit("update", 0, "newest")
    table.captured.follow()
    assert bronze.optimize().compacted
    assert squeeze(table).gone == 1
    assert [row[:3] for row in events(table)][-2:] == [(0, "update", "new"), (0, "update", "newest")]
    table.silver.refine(new_run())
    assert anew(table) == table.truth()


def test_a_run_compacts_only_what_is_worth_it(table: Table) -> None:
    table.log.commit(*(event("insert", key, "one") for key in range(40)))
    table.load()
    assert squeeze(table, worth=0.1).reason == "too few of the events would go"
    handle = table.silver.bronze.open()
    assert handle is not None
    version = handle.version
    table.commit("update", 1, "uno")
    table.load()
    assert "only 1 events" in squeeze(table, worth=0.1).reason
    table.log.commit(*(event("update", key, "two") for key in range(40)))
    table.load()
    assert squeeze(table, worth=0.1).gone == 41
    assert handle.refresh().version > version
    assert anew(table) == table.truth()


def test_a_table_that_lost_rows_is_not_compacted(table: Table) -> None:
    table.commit("insert", 1, "one").commit("update", 1, "uno")
    table.load()
    handle = table.silver.bronze.open()
    assert handle is not None
    handle.delta.delete("name = 'one'")
    with pytest.raises(RowsNotConservedError):
        squeeze(table)
    assert len(events(table)) == 1


def test_rows_lost_on_the_way_are_noticed_and_nothing_is_committed(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.commit("insert", 1, "one").commit("update", 1, "uno").commit("insert", 2, "two")
    table.load()
    whole = compaction.completed
    monkeypatch.setattr(compaction, "completed", lambda *given: f"(FROM {whole(*given)} LIMIT 1)")
    with pytest.raises(RowsNotConservedError):
        squeeze(table)
    assert len(events(table)) == 3


def test_an_append_meanwhile_stays_and_a_rewriting_meanwhile_wins(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "uno"):
        table.commit("insert" if name == "one" else "update", 1, name)
        table.load()
    inner = compaction._Compacting._copy_newer

    def meanwhile(what: Any) -> None:
        def go_on(self: Any, *given: Any) -> None:
            what()
            inner(self, *given)

        monkeypatch.setattr(compaction._Compacting, "_copy_newer", go_on)

    meanwhile(table.silver.bronze.optimize)
    assert squeeze(table).reason.startswith("another run changed the table")
    assert len(events(table)) == 2
    table.commit("update", 2, "two")
    meanwhile(table.captured.follow)
    assert squeeze(table).gone == 1
    assert [row[:3] for row in events(table)] == [(1, "update", "uno"), (2, "update", "two")]
    table.silver.refine(new_run())
    assert anew(table) == table.truth()


def test_of_two_compactions_at_once_one_is_done(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.commit("insert", 1, "one").commit("update", 1, "uno")
    table.load()
    inner = compaction._Compacting._copy_newer
    done: list[int] = []

    def another(self: Any, *given: Any) -> None:
        if not done:
            done.append(1)
            assert squeeze(table).gone == 1
        inner(self, *given)

    monkeypatch.setattr(compaction._Compacting, "_copy_newer", another)
    assert squeeze(table).reason.startswith("another run changed the table")
    assert len(events(table)) == 1


def test_an_error_whose_event_was_compacted_is_closed_by_a_replay(tmp_path: Path) -> None:
    """A rebuild by other steps that began before a compaction may open such errors."""
    table = following(tmp_path, steps=LENIENT)
    table.commit("insert", 1, "no number").commit("update", 1, "nor this")
    table.load()
    bronze = table.silver.bronze.open()
    squeeze(table)
    table.steps(STRICT)
    with pytest.MonkeyPatch.context() as before:
        opened = LakeTable.open
        before.setattr(
            LakeTable, "open", lambda self, *given: bronze if self.key[0] == "bronze" else opened(self, *given)
        )
        table.silver.refine(new_run(), full_refresh=True)
    assert table.open_errors() == 2
    table.steps(LENIENT)
    assert str(replay(table.silver, new_run())) == "inserted 1"
    assert table.open_errors() == 0
    assert table.rows() == [(1, None, None)]


def squeeze_there(folder: str) -> None:
    """Compact in another process."""
    squeeze(Table(Path(folder)))


@pytest.mark.parametrize(("point", "left"), some([("before_commit", 3), ("after_commit", 2)], 1))
def test_a_kill_leaves_the_old_or_the_new(tmp_path: Path, forks: Forks, point: str, left: int) -> None:
    table = following(tmp_path)
    table.commit("insert", 1, "one").commit("update", 1, "uno").commit("insert", 2, "two")
    table.load()
    killed = forks.start(squeeze_there, env={"ETL_KILL_AT": f"compaction:{point}"}, folder=str(tmp_path))
    assert killed.wait() == KILLED
    assert len(events(table)) == left
    table.commit("delete", 2)
    table.load()
    assert table.rows() == anew(table) == table.truth()
    squeeze(table)
    assert len(events(table)) == 1
    bronze = table.silver.bronze.open()
    assert bronze is not None
    last = compacted(table.silver.ledger, bronze)
    assert last is not None
    assert (last.number, last.kept) == ((1, 1) if point == "before_commit" else (2, 1))


def live_through(folder: Path, seed: int, steps: list[Any] | None = None, rounds: int = 8) -> None:
    """Follow a random log with compactions and rebuilds in between; silver has to be the truth all the time."""
    chance = random.Random(seed)
    table, whole = Table(folder / "compacted", steps=steps), Table(folder / "whole", steps=steps)
    whole.captured.log = whole.log = table.log
    for _ in range(rounds):
        for _ in range(chance.randint(1, 6)):
            table.log.commit(*spoiled(chance, random_transaction(chance, table.log.rows["a"]), steps))
        table.log.per_tick, fresh = chance.randint(1, 4), chance.random() < 0.1
        for one in (table, whole):
            one.captured.follow(fresh=fresh)
            one.silver.refine(new_run())
        assert table.rows() == whole.rows()
        if chance.random() < 0.6:
            squeeze(table)
            if chance.random() < 0.5:
                assert anew(table) == whole.rows()
    assert anew(table) == anew(whole)
    if not steps:
        assert table.rows() == table.truth()
        return
    for one in (table, whole):
        one.steps(LENIENT)
        replay(one.silver, new_run())
    assert table.rows() == whole.rows()


def spoiled(chance: random.Random, changes: list[Any], steps: list[Any] | None) -> list[Any]:
    """Let names be numbers, most of the time, so that a strict step rejects some events."""
    if steps:
        for change in changes:
            change["name"] = str(chance.randint(0, 99)) if chance.random() < 0.7 else "no number"
    return changes


@pytest.mark.parametrize("steps", [pytest.param(None, marks=pytest.mark.soak), STRICT], ids=["plain", "rejecting"])
@pytest.mark.parametrize("seed", some([1, 0, *range(2, 30)], 1))
def test_silver_never_shows_that_the_log_was_compacted(tmp_path: Path, seed: int, steps: list[Any] | None) -> None:
    live_through(tmp_path, seed, steps, rounds=8 if SOAK else 2)


def _drop_every_delete(silver: Silver, session: Any, bronze: Any, log: str) -> None:
    session.execute(f"DELETE FROM kept WHERE (_batch, _row) IN (SELECT (_batch, _row) FROM {log} WHERE _op = 'delete')")


MUTANTS: dict[str, tuple[Any, str, Any, Any]] = {
    "values that were left out are not filled": (
        compaction, "completed", lambda session, relation, *_: relation,
        lambda folder: test_a_value_that_a_kept_event_left_out_is_filled(following(folder)),
    ),
    "every delete goes": (
        compaction_keeping, "_drop_idle_deletes", _drop_every_delete,
        test_a_delete_stays_that_outranks_another_key_of_the_source_with_the_same_key_in_silver,
    ),
    "events that wait for a replay go": (
        compaction_keeping, "_find_rejected",
        lambda silver, session, upto: session.execute(
            "CREATE OR REPLACE TEMP TABLE rejected AS SELECT 0 AS batch, 0 AS row, true AS waits LIMIT 0"
        ),
        test_a_delete_stays_as_long_as_an_older_event_of_its_key_could_be_replayed,
    ),
    "truncations are forgotten": (
        compaction_keeping, "truncated_at", lambda *_: None,
        lambda folder: test_what_came_before_the_last_truncation_goes(following(folder)),
    ),
    "an older silver table goes on": (
        silver_work, "COMPACTED_MARK", "nothing",
        lambda folder: test_a_silver_table_of_before_is_built_anew(following(folder)),
    ),
    "rows are counted as they were": (
        silver_work, "compacted", lambda *_: None,
        lambda folder: test_only_the_newest_event_of_a_key_stays_and_the_ledger_says_so(following(folder)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", some(MUTANTS, 1))
def test_a_compaction_that_is_broken_on_purpose_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module, attribute, broken, check = MUTANTS[name]
    monkeypatch.setattr(module, attribute, broken)
    with pytest.raises((AssertionError, RowsNotConservedError)):
        check(tmp_path)
