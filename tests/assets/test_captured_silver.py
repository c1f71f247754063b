"""Silver over a change log is the source's table, however the log is cut into ticks, runs and commits."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from etl_assets.errors import ErrorTable, newest
from etl_assets.silver import Silver, SilverSpec
from etl_assets.silver_replay import replay
from etl_assets.transforms import parse_steps
from tests.assets.doubles import new_run
from tests.assets.log_double import Captured, Event, ListLog
from tests.soaking import SOAK, some

COLUMNS = "id, name, big"


class Table:
    """A log, its bronze table and the silver table over it."""

    silver: Silver

    def __init__(self, folder: Path, *, steps: list[Any] | None = None) -> None:
        self.log = ListLog("a")
        self.captured = Captured(folder, self.log)
        self.steps(steps or [])

    def load(self) -> Any:
        self.captured.follow()
        return self.silver.refine(new_run()).account

    def commit(self, op: str, key: int | None, name: str | None = None, **more: Any) -> Table:
        self.log.commit(event(op, key, name, **more))
        return self

    def rows(self, columns: str = COLUMNS) -> list[tuple[Any, ...]]:
        handle = self.silver.table.open()
        if handle is None:
            return []
        with self.captured.engine.session() as session:
            return sorted(session.execute(f"SELECT {columns} FROM {session.lake_relation(handle)}"))

    def steps(self, steps: list[Any]) -> None:
        """Go on with other steps."""
        parsed = parse_steps(steps, layer="silver", where="test")
        spec = SilverSpec("test", "a", ["id"], parsed, log_key=["id"])
        self.silver = Silver(self.captured.lake, self.captured.engine, spec)

    def open_errors(self) -> int:
        with self.captured.engine.session() as session:
            return sum(ErrorTable(self.captured.lake).open_counts(session).values())

    def reopen(self) -> None:
        """Let all errors be open again, so that a replay takes them up."""
        errors = ErrorTable(self.captured.lake)
        errors.close(newest(errors.events({})), "open", "", new_run())

    def truth(self) -> list[tuple[Any, ...]]:
        return sorted((row["id"], row["name"], row["big"]) for row in self.log.rows["a"].values())


def event(op: str, key: int | None, name: str | None = None, **more: Any) -> Event:
    return {"stream": "a", "op": op, "id": key, "name": name, **more}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path)


def test_the_state_follows_inserts_updates_and_deletes(table: Table) -> None:
    table.log.commit(event("insert", 1, "one"), event("insert", 2, "two"), logged=False)
    table.load()
    table.commit("update", 1, "uno").commit("delete", 2).commit("insert", 3, "three")
    account = table.load()
    assert table.rows() == [(1, "uno", None), (3, "three", None)]
    assert str(account) == "inserted 1 + updated 1 + deleted 1"


def test_a_column_that_was_left_out_keeps_its_value(table: Table) -> None:
    table.commit("insert", 1, "one", big="large")
    table.load()
    table.commit("update", 1, "uno", unchanged=["big"])
    table.load()
    assert table.rows() == [(1, "uno", "large")] == table.truth()


def test_steps_see_the_value_as_the_source_gave_it(tmp_path: Path) -> None:
    table = Table(tmp_path, steps=[{"add": {"loud": "big || '!'"}}])
    table.commit("insert", 1, "one", big="large")
    table.load()
    table.commit("update", 1, "uno", unchanged=["big"])
    table.load()
    assert table.rows("name, loud") == [("uno", "large!")]


def test_an_event_that_cannot_be_made_whole_is_an_error_until_its_key_is_read_anew(table: Table) -> None:
    table.load()
    table.log.rows["a"][1] = {"id": 1, "name": "one", "big": "large"}
    table.commit("update", 1, "uno", unchanged=["big"])
    assert str(table.load()) == "rejected:capture.incomplete 1"
    assert table.rows() == []
    table.commit("insert", 2, "two")
    table.captured.follow(fresh=True)
    table.silver.refine(new_run())
    assert table.rows() == table.truth()
    assert table.open_errors() == 0


def test_a_truncation_empties_what_came_before_it(table: Table) -> None:
    table.log.commit(*(event("insert", key, "old") for key in range(5)))
    table.load()
    table.log.commit(event("insert", 9, "before"), event("truncate", None), event("insert", 1, "after"))
    account = table.load()
    assert table.rows() == [(1, "after", None)] == table.truth()
    assert str(account) == "updated 1 + superseded 1 + filtered:truncate 1"
    assert account.removed == 4


def test_a_truncation_in_the_first_load(table: Table) -> None:
    table.load()
    table.commit("insert", 1, "one").commit("truncate", None).commit("insert", 2, "two")
    table.load()
    assert table.rows() == [(2, "two", None)]


STRICT, LENIENT = [{"cast": {"name": "int64"}}], [{"cast": {"columns": {"name": "int64"}, "on_error": "null"}}]


def test_a_replayed_event_from_before_a_truncation_does_not_come_back(tmp_path: Path) -> None:
    table = Table(tmp_path, steps=STRICT)
    table.load()
    table.commit("insert", 1, "no number").commit("truncate", None)
    assert str(table.load()) == "filtered:truncate 1 + rejected:cast.name 1"
    assert table.open_errors() == 0
    table.reopen()
    table.steps(LENIENT)
    assert str(replay(table.silver, new_run())) == "superseded 1"
    assert table.rows() == []


def test_a_rejected_event_leaves_its_key_behind_and_a_later_one_heals_it(tmp_path: Path) -> None:
    table = Table(tmp_path, steps=STRICT)
    table.commit("insert", 1, "1").commit("insert", 2, "2")
    table.load()
    table.commit("update", 1, "no number").commit("update", 2, "22").commit("insert", 3, "nor this")
    table.load()
    assert table.rows() == [(1, 1, None), (2, 22, None)]
    assert table.open_errors() == 2
    table.commit("update", 1, "1")
    table.load()
    assert table.rows() == [(1, 1, None), (2, 22, None)]
    assert table.open_errors() == 1
    table.commit("delete", 3)
    table.load()
    assert table.open_errors() == 0


def test_a_later_event_that_is_rejected_too_heals_nothing(tmp_path: Path) -> None:
    table = Table(tmp_path, steps=STRICT)
    table.load()
    table.commit("insert", 1, "no number").commit("update", 1, "no number either")
    table.load()
    assert table.open_errors() == 2


def test_replay_never_puts_an_older_event_over_a_newer_one(tmp_path: Path) -> None:
    table = Table(tmp_path, steps=STRICT)
    table.load()
    table.commit("insert", 1, "no number").commit("update", 1, "7").commit("insert", 2, "no number")
    table.load()
    table.reopen()
    table.steps(LENIENT)
    assert str(replay(table.silver, new_run())) == "inserted 1 + superseded 1"
    assert table.rows() == [(1, 7, None), (2, None, None)]


def test_idle_ticks_make_no_commit_of_silver(table: Table) -> None:
    table.commit("insert", 1, "one")
    table.load()
    handle = table.silver.table.open()
    assert handle is not None
    version = handle.version
    table.log.transactions.append([])
    table.load()
    assert handle.refresh().version == version
    assert table.captured.capture().positions()["a"] == {"pos": 20}


def random_transaction(chance: random.Random, rows: dict[Any, Event]) -> list[Event]:
    """Return some changes of ten keys: their columns, their absence, their keys themselves."""
    events: list[Event] = []
    living = set(rows)
    for _ in range(chance.randint(1, 4)):
        dice, value = chance.random(), f"v{chance.randint(0, 9999)}"
        if dice < 0.03:
            events.append(event("truncate", None))
            living.clear()
        elif dice < 0.4 or not living:
            key = chance.randint(0, 9)
            events.append(event("update" if key in living else "insert", key, value, big=value * 2))
            living.add(key)
        elif dice < 0.6:
            events.append(event("update", chance.choice(sorted(living)), value, unchanged=["big"]))
        elif dice < 0.8:
            key = chance.choice(sorted(living))
            events.append(event("delete", key))
            living.discard(key)
        else:
            old, new = chance.choice(sorted(living)), chance.choice(sorted(set(range(12)) - living))
            moved = event("update", new, value, unchanged=["big"], before={"id": old})
            events += [event("delete", old), moved]
            living ^= {old, new}
    return events


@pytest.mark.parametrize("seed", some(range(40), 1))
def test_silver_is_the_table_however_the_log_is_cut(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    table = Table(tmp_path)
    for _ in range(8 if SOAK else 5):
        for _ in range(chance.randint(1, 6)):
            table.log.commit(*random_transaction(chance, table.log.rows["a"]))
        table.log.per_tick = chance.randint(1, 4)
        table.captured.follow(fresh=chance.random() < 0.1)
        if chance.random() < 0.6:
            table.silver.refine(new_run(), full_refresh=chance.random() < 0.2)
            assert table.rows() == table.truth()
    table.silver.refine(new_run())
    assert table.rows() == table.truth()


def test_the_key_may_have_another_name_in_silver(tmp_path: Path) -> None:
    table = Table(tmp_path)
    steps = parse_steps([{"rename": {"id": "number"}}], layer="silver", where="test")
    table.silver = Silver(
        table.captured.lake, table.captured.engine, SilverSpec("test", "a", ["number"], steps, log_key=["id"])
    )
    table.commit("insert", 1, "one", big="large").commit("insert", 2, "two")
    table.load()
    table.commit("update", 1, "uno", unchanged=["big"]).commit("delete", 2)
    table.load()
    assert table.rows("number, name, big") == [(1, "uno", "large")]
