"""Every step against its case table; and the case tables against steps that are broken on purpose."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from etl_assets.transforms.parameters import STEPS
from etl_assets.transforms.parameters.base import Cleaning, OnColumns
from tests.assets.transforms.casebook import CASES, Bench, Group, check, draft_of, groups_of

FILES = sorted(CASES.glob("*.yaml"))
GROUPS = [group for path in FILES for group in groups_of(path)]
TEXT_CONVERSIONS = {"synonyms", "phone", "email", "country", "currency", "number", "boolean", "date"}


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_dirty_becomes_clean(bench: Bench, group: Group) -> None:
    check(bench, group)


def test_every_step_has_a_case_table_with_enough_cases() -> None:
    assert {path.stem for path in FILES} == set(STEPS)
    rows = {path.stem: sum(len(group.given.rows) for group in groups_of(path)) for path in FILES}
    assert {name: count for name, count in rows.items() if count < 8} == {}


def is_cleaning(group: Group) -> bool:
    name = group.name.rpartition("-")[0]
    return group.values and (issubclass(STEPS[name], Cleaning) or name in TEXT_CONVERSIONS | {"fill", "min_max"})


@pytest.mark.parametrize("group", filter(is_cleaning, GROUPS), ids=lambda group: group.name)
def test_cleaning_twice_is_cleaning_once(bench: Bench, group: Group) -> None:
    """And that gives what the case table says, as `test_dirty_becomes_clean` sees to."""
    draft = draft_of(bench, group, times=2)
    twice = bench.run(draft)
    assert repr([[row["v"]] for row in twice]) == repr(bench.expected(group.gives))
    second = draft.flags[len(draft.flags) // 2 :]
    assert not any(row[flag.column] for row in twice for flag in second)


def test_every_cleaning_is_among_those_run_twice() -> None:
    twice = {group.name.rpartition("-")[0] for group in filter(is_cleaning, GROUPS)}
    assert {name for name, kind in STEPS.items() if issubclass(kind, Cleaning)} | TEXT_CONVERSIONS <= twice


@pytest.mark.parametrize("name", sorted(STEPS))
def test_case_table_fails_when_the_step_does_nothing(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(value: Any, *_: Any) -> Any:
        return value

    kind = STEPS[name]
    paths = {kind.runs} | ({f"{kind.runs}_from_rows"} if name == "fill" else set())
    for path in paths:
        module, _, function = path.partition(":")
        monkeypatch.setattr(import_module(module), function, nothing)

    def fails(group: Group) -> bool:
        try:
            check(bench, group)
        except AssertionError:
            return True
        except Exception:  # noqa: BLE001 - a conversion that does nothing has another type than the query needs
            return issubclass(kind, OnColumns)
        return False

    assert any(map(fails, groups_of(CASES / f"{name}.yaml")))


MUTANTS = {
    "trim only ASCII": ("trim", "text", "trim", lambda text, _: text.strip()),
    "title in every word": ("title", "title", "title", lambda text, _: text.capitalize()),
    "lower a stripped text": ("lower", "text", "lower", lambda text, _: text.strip().lower()),
    "drop all zero-width": ("strip_control", "text", "strip_control", lambda text, _: text.re_replace(r"\p{C}", "")),
    "digits only in a phone": ("phone", "phone", "phone", lambda text, _: "+" + text.re_replace("[^0-9]", "")),
    "round a half to even": ("round", "statistics", "round_", lambda value, p: value.round(p.digits)),
    "a cast that rounds": ("cast", "values", "_cast", lambda value, kind: value.try_cast(kind)),
    "key without kinds": ("surrogate_key", "keys", "_text", lambda value: ("", value.cast("string"))),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_case_table_notices_a_subtle_mistake(bench: Bench, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, module, function, wrong = MUTANTS[mutant]
    monkeypatch.setattr(import_module(f"etl_assets.transforms.{module}"), function, wrong)
    with pytest.raises(AssertionError):
        check_all(bench, name)


def check_all(bench: Bench, name: str) -> None:
    for group in groups_of(CASES / f"{name}.yaml"):
        check(bench, group)
