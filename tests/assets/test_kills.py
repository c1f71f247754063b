"""`kill -9` at any instant, then run again: tables, errors, accounts and the target are those of a run never killed."""

from __future__ import annotations

import json
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.assets.shop import STAGES, Shop, rebuild, run_shop
from tests.forks import KILLED, Forks, forking
from tests.soaking import SOAK, some

__all__ = ["forking"]
BATCHES = 3
KILLS = 50 if SOAK else 3
"""`make soak` kills more often."""
CHAINS = {
    "bronze": ["bronze:before_errors", "bronze:before_commit", "bronze:after_commit", "bronze:before_acknowledge"],
    "silver": ["silver:before_commit", "silver:before_settle"],
    "silver, once it is there": ["silver:after_commit"],
    "replay": ["replay:before_close"],
    "gold": ["gold:after_commit"],
    "publish": ["publish:before_errors", "publish:after_errors", "publish:after_write"],
}
"""Where a run is killed, then the next one, and so on."""
# At some of them nothing of the stage is to be seen yet.
EARLY = ["silver:before_errors", "gold:before_commit", "publish:before_write"]
ALONE = {point: [point] for points in (*CHAINS.values(), EARLY) for point in points}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake into which the first batch went, by strict rules: there are errors to replay."""
    folder = tmp_path_factory.mktemp("loaded")
    Shop(str(folder)).run("first", 1)
    return folder


@dataclass
class Calm:
    """A run with two more batches, by lenient rules and with a replay, that nobody killed."""

    before: dict[str, Path]
    """Stage -> the lake and the target as they were before it."""
    state: dict[str, Any]
    """What it made of them in the end."""


@pytest.fixture(scope="module")
def undisturbed(loaded: Path, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """A run never killed, kept before each of its stages."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(loaded, folder / "shop")
    shop = Shop(str(folder / "shop"), lenient=True)
    before = {stage: folder / stage for stage in STAGES}
    for stage, copy in before.items():
        shutil.copytree(folder / "shop", copy)
        shop.run("second", BATCHES, replays=True, start=stage, end=stage)
    return Calm(before, shop.state())


@pytest.mark.parametrize(
    "points", some([pytest.param(points, id=name) for name, points in {**CHAINS, **ALONE}.items()], len(CHAINS))
)
def test_kills_at_any_boundary_are_repaired_by_running_again(
    points: list[str], tmp_path: Path, undisturbed: Calm, forks: Forks
) -> None:
    """A run that repairs what one left that was killed is killed itself, further on."""
    stage = points[0].partition(":")[0]
    shutil.copytree(undisturbed.before[stage], tmp_path / "shop")
    again: dict[str, Any] = {"batches": BATCHES, "replays": True, "start": stage}
    arguments = {"folder": str(tmp_path / "shop"), "lenient": True, **again}
    for number, point in enumerate(points):
        run = forks.start(run_shop, env={"ETL_KILL_AT": point}, name=f"killed-{number}", **arguments)
        assert run.wait() == KILLED, point
    shop = Shop(str(tmp_path / "shop"), lenient=True)
    shop.run("again", **again)
    state = shop.state()
    shutil.rmtree(tmp_path / "shop")
    if points == ["replay:before_close"]:
        _drop_second_replay(state["accounts"]["silver/shop/customers"])
    if points == ["gold:after_commit"]:
        _drop_second_build(state)
    for what, value in undisturbed.state.items():
        assert state[what] == value, what


def _drop_second_replay(accounts: list[dict[str, Any]]) -> None:
    """Before the errors are closed they are replayed once more, which changes nothing in the table."""
    last = accounts.pop()
    assert last["inserted"] == last["updated"] == last["deleted"] == last["removed"] == 0
    assert last["unchanged"] + last["superseded"] + sum(_rules(last).values()) == last["read"] > 0


def _drop_second_build(state: dict[str, Any]) -> None:
    """A gold table that was built is built again, to the same, and published under the next number."""
    accounts = state["accounts"]
    first, second = accounts["gold/shop/totals"][-2:]
    assert {**first, "version": 0} == {**second, "version": 0}
    accounts["gold/shop/totals"].pop()
    number = second["version"]
    accounts["publish/shop/totals"][-1]["version"] = number - 1
    named = f"publish/shop/totals:{number}:"
    state["errors"] = [error.replace(named, f"publish/shop/totals:{number - 1}:") for error in state["errors"]]
    app_id, version, account = state["published"].pop()
    assert version == number
    state["published"].append((app_id, number - 1, account))


def _rules(account: dict[str, Any]) -> dict[str, int]:
    return {**json.loads(account["filtered"]), **json.loads(account["rejected"])}


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path: Path, forks: Forks) -> None:
    """While the source grows, every run but the last is killed somewhere, anywhere."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance, folder, killed = random.Random(seed), str(tmp_path / "shop"), 0
    Path(folder).mkdir()
    batches = 1
    while killed < KILLS:
        run = forks.start(run_shop, folder=folder, name=f"run-{killed}", batches=batches, replays=chance.random() < 0.3)
        time.sleep(chance.uniform(0, 0.8))
        run.kill()
        if run.wait() == KILLED:
            killed += 1
        batches = min(batches + chance.choice([0, 0, 0, 1]), 12)
    shop, calm = Shop(folder), Shop(str(tmp_path / "calm"))
    shop.run("last", batches)
    calm.folder.mkdir()
    calm.run("only", batches)
    assert shop.rows("bronze", "shop", "customers") == calm.rows("bronze", "shop", "customers")
    assert shop.accounts()["bronze/shop/customers"] == calm.accounts()["bronze/shop/customers"]
    assert shop.table() == calm.table()
    assert shop.rows("gold", "shop", "totals") == calm.rows("gold", "shop", "totals")
    assert shop.published(tokens=False) == calm.published(tokens=False)
    assert shop.errors(layers=("bronze", "silver")) == calm.errors(layers=("bronze", "silver"))
    refused = {row.split(", ")[2] for row in shop.errors(layers=("publish",))}
    assert len(shop.errors(layers=("publish",))) == len(calm.errors(layers=("publish",))), refused
    for asset, accounts in shop.accounts().items():
        assert all(_balanced(account) for account in accounts), asset
    came = sum(a["inserted"] - a["deleted"] - a["removed"] for a in shop.accounts()["silver/shop/customers"])
    assert came == len(shop.table())


def _balanced(account: dict[str, Any]) -> bool:
    single = sum(account[name] for name in ("inserted", "updated", "deleted", "unchanged", "superseded"))
    return bool(account["read"] == single + sum(_rules(account).values()))


@pytest.mark.parametrize("point", ["silver:before_commit", "silver:after_commit"])
def test_errors_that_the_repetition_does_not_find_are_withdrawn(
    point: str, tmp_path: Path, undisturbed: Calm, forks: Forks
) -> None:
    """Killed after its errors were written; then the code changed, and finds other errors."""
    shutil.copytree(undisturbed.before["silver"], tmp_path / "shop")
    folder = str(tmp_path / "shop")
    arguments = {"folder": folder, "name": "killed", "batches": BATCHES, "start": "silver"}
    assert forks.start(run_shop, env={"ETL_KILL_AT": point}, **arguments).wait() == KILLED
    shop = Shop(folder, lenient=True)
    shop.run("again", BATCHES, start="silver", end="silver")
    found = [error.split("'")[1] for error in shop.errors(layers=("silver",))]
    withdrawn = [error.split("'")[1] for error in shop.errors("withdrawn", layers=("silver",))]
    rejected = sum(sum(json.loads(a["rejected"]).values()) for a in shop.accounts()["silver/shop/customers"])
    assert len(found) == rejected, "as many as the accounts say"
    ages = [f"silver/shop/customers:{batch}:8" for batch in (2, 3)]
    if point == "silver:before_commit":
        assert withdrawn == ages
    else:
        assert withdrawn == []
        assert set(ages) <= set(found), "the data of the killed run are there, and so are its errors"


def test_an_error_that_was_open_before_a_killed_rebuild_is_open_after_it(
    loaded: Path, tmp_path: Path, forks: Forks
) -> None:
    """The killed rebuild judged the same rows again; what it wrote is taken back, not what was there before it."""
    shutil.copytree(loaded, tmp_path / "shop")
    folder = str(tmp_path / "shop")
    shop = Shop(folder)
    before, table = shop.errors(layers=("silver",)), shop.table()
    assert before
    assert forks.start(rebuild, env={"ETL_KILL_AT": "silver:before_commit"}, folder=folder).wait() == KILLED
    assert shop.table() == table
    shop.run("normal", 2, end="silver")
    assert set(before) <= set(shop.errors(layers=("silver",)))
    rejected = sum(sum(json.loads(a["rejected"]).values()) for a in shop.accounts()["silver/shop/customers"])
    assert len(shop.errors(layers=("silver",))) == rejected
