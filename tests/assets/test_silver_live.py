"""Silver read live is what a refining would make of it, and reading it writes nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from etl_assets import silver_live
from etl_assets.errors import Budget
from etl_assets.silver_live import live
from etl_resources.exceptions import ErrorBudgetExceededError, NotFoundError
from tests.assets.doubles import ListSource, new_run
from tests.assets.doubles import Table as Plain
from tests.assets.test_captured_silver import COLUMNS, STRICT, Table, event, random_transaction
from tests.soaking import some


def seen(table: Table | Plain, columns: str = COLUMNS) -> list[tuple[Any, ...]]:
    silver = table.silver
    with silver.engine.session() as session:
        relation = live(silver, session)
        return sorted(session.execute(f"SELECT {columns} FROM {relation}"), key=str)


def versions(table: Table) -> list[int | None]:
    silver, lake = table.silver, table.captured.lake
    tables = [silver.table, silver.bronze, lake.table("ops", "errors"), lake.table("ops", "accounts")]
    opened = [one.open() for one in tables]
    return [None if handle is None else handle.version for handle in opened]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = Table(tmp_path)
    made.log.commit(event("insert", 1, "one", big="large"), event("insert", 2, "two"), event("insert", 3, "three"))
    made.load()
    return made


def test_pending_changes_are_seen_and_nothing_is_written(table: Table) -> None:
    table.commit("update", 1, "uno", unchanged=["big"]).commit("delete", 2).commit("insert", 4, "four")
    table.captured.follow()
    before = versions(table)
    assert seen(table) == [(1, "uno", "large"), (3, "three", None), (4, "four", None)] == table.truth()
    assert versions(table) == before
    assert table.rows() == [(1, "one", "large"), (2, "two", None), (3, "three", None)]


def test_a_truncation_that_is_pending_empties_it(table: Table) -> None:
    table.log.commit(event("truncate", None), event("insert", 9, "after"))
    table.captured.follow()
    assert seen(table) == [(9, "after", None)]


def test_with_nothing_pending_it_is_the_table(table: Table) -> None:
    assert seen(table) == table.rows()


def test_a_table_that_was_never_built_is_seen_as_well(tmp_path: Path) -> None:
    table = Table(tmp_path)
    with pytest.raises(NotFoundError):
        seen(table)
    table.commit("insert", 1, "one")
    table.captured.follow()
    assert seen(table) == [(1, "one", None)]
    assert table.silver.table.open() is None


def test_the_types_are_those_of_the_table(table: Table) -> None:
    table.commit("insert", 4, "four")
    table.captured.follow()
    with table.captured.engine.session() as session:
        fresh = session.types(live(table.silver, session))
    table.silver.refine(new_run())
    handle = table.silver.table.open()
    assert handle is not None
    with table.captured.engine.session() as session:
        assert session.types(session.lake_relation(handle)) == fresh


def test_two_tables_in_one_session_do_not_disturb_each_other(tmp_path: Path) -> None:
    tables = [Table(tmp_path / name) for name in "ab"]
    for number, one in enumerate(tables):
        one.commit("insert", 1, "one")
        one.load()
        one.commit("insert", 10 + number, "pending")
        one.captured.follow()
    with tables[0].captured.engine.session() as session:
        first, second = (live(one.silver, session) for one in tables)
        sql = f"SELECT (SELECT max(id) FROM {first}), (SELECT max(id) FROM {second})"
        assert session.execute(sql) == [(10, 11)]


def test_what_would_be_rejected_is_left_out(tmp_path: Path) -> None:
    table = Table(tmp_path, steps=STRICT)
    table.commit("insert", 1, "1")
    table.load()
    table.commit("update", 1, "no number").commit("insert", 2, "2")
    table.captured.follow()
    assert seen(table) == [(1, 1, None), (2, 2, None)]
    assert table.open_errors() == 0


@pytest.mark.parametrize("seed", some(range(40), 1))
def test_live_is_what_a_refining_makes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    table = Table(tmp_path)
    for _ in range(8 if seed else 3):
        for _ in range(chance.randint(1, 6)):
            table.log.commit(*random_transaction(chance, table.log.rows["a"]))
        table.log.per_tick = chance.randint(1, 4)
        table.captured.follow(fresh=chance.random() < 0.1)
        if table.silver.table.open() is None and not table.truth():
            continue  # transactions that did nothing: there is no table yet
        found = seen(table, f"{COLUMNS}, _pos, _seq")
        if chance.random() < 0.6:
            table.silver.refine(new_run())
            assert sorted(table.rows(f"{COLUMNS}, _pos, _seq"), key=str) == found
        assert [row[:3] for row in found] == sorted(table.truth(), key=str)


@pytest.mark.parametrize("snapshot", [True, False])
def test_tables_that_follow_no_log_are_seen_live_too(tmp_path: Path, snapshot: bool) -> None:
    table = Plain(tmp_path, snapshot=snapshot)
    readings = [[{"id": 1, "n": 1}, {"id": 2, "n": 2}], [{"id": 2, "n": 3}, {"id": 3, "n": 3}], [{"id": 3, "n": 4}]]
    table.load(readings[0])
    for rows in readings[1:]:
        if snapshot:
            table.source = ListSource()
        table.source.give(rows)
        table.land()
    found = seen(table, "id, n")
    table.refine()
    assert found == [(row["id"], row["n"]) for row in table.rows()]
    assert found == ([(3, 4)] if snapshot else [(1, 1), (2, 3), (3, 4)])


def test_what_a_refining_would_refuse_is_refused(tmp_path: Path) -> None:
    strict = Table(tmp_path / "strict", steps=STRICT)
    strict.commit("insert", 1, "1")
    strict.load()
    strict.silver.spec = replace(strict.silver.spec, budget=Budget(max_rows=0))
    strict.commit("insert", 2, "no number")
    strict.captured.follow()
    with pytest.raises(ErrorBudgetExceededError):
        seen(strict)


@pytest.mark.parametrize("mutant", some(["nothing goes", "nothing comes"], 1))
def test_a_merge_that_is_broken_on_purpose_is_found(table: Table, monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    whole = silver_live._merged

    def broken(refinement: Any) -> str:
        sql, session = whole(refinement), refinement.session
        name = "live_gone" if mutant == "nothing goes" else "live_rows"
        (found,) = [row[0] for row in session.execute("SHOW TABLES") if row[0].startswith(name)]
        session.execute(f"DELETE FROM {found}")
        return sql

    monkeypatch.setattr(silver_live, "_merged", broken)
    with pytest.raises(AssertionError):
        test_pending_changes_are_seen_and_nothing_is_written(table)


def test_the_example_of_the_page_runs(table: Table) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cdc.md").read_text("utf-8").split("## Fresh reads", 1)[1]
    code = page.split("```python\n", 1)[1].split("```", 1)[0]
    table.commit("insert", 4, "four")
    table.captured.follow()
    given: dict[str, Any] = {"silver": table.silver}
    exec(code, given)
    assert given["rows"] == [(4,)]
