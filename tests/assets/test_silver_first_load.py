"""Rows that meet nothing stream into the files while they are judged: what goes wrong on the way publishes nothing."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl_assets import silver_keys
from etl_assets.errors import Budget
from etl_assets.silver_passing import Counting
from etl_checks.contract import Contract, load_contract
from etl_resources.engines.duckdb import DuckDB, Session
from etl_resources.exceptions import ContractViolationError, EngineError, ErrorBudgetExceededError
from tests.assets.doubles import Table
from tests.assets.shop import Shop, rebuild, run_shop
from tests.assets.truth import SCHEMA, STEPS, Row, Truth, write_contract
from tests.forks import KILLED, Forks, forking
from tests.soaking import some

__all__ = ["forking"]
SMALL = 50
"""Rows per batch of the engine, so that a load has many."""


@pytest.fixture(autouse=True)
def many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine give small batches, and the writer write each as a row group of its own."""
    stream = Session.stream
    monkeypatch.setattr(Session, "stream", lambda self, sql, rows=SMALL: stream(self, sql, rows))
    monkeypatch.setattr("etl_resources.delta.staging.ROW_GROUP_ROWS", SMALL)


@pytest.fixture(params=some(["rebuild", "first"], 1))
def how(request: pytest.FixtureRequest) -> dict[str, bool]:
    """Options of `refine`: the first load of a table, or one that is built anew."""
    return {"full_refresh": request.param == "rebuild"}


def row(key: int | None, v: str | None = "a", n: str | None = "1", o: int | None = 1, op: str = "read") -> Row:
    return {"id": key, "v": v, "n": n, "o": o, "_op": op}


def given(folder: Path, *batches: list[Row], **options: Any) -> tuple[Table, Truth]:
    """Return a table whose bronze has the batches, and what it must become."""
    contract = load_contract(write_contract(folder, 0))
    table = Table(folder, steps=STEPS, contract=contract, order=["o"], **options)
    truth = Truth(ordered=True)
    for batch in batches:
        table.source.give(batch, schema=SCHEMA)
        table.land()
        truth.land(batch)
    truth.refine()
    return table, truth


def hold(table: Table, truth: Truth) -> None:
    assert sorted(table.rows(), key=lambda found: found["id"]) == truth.table()
    assert {(error["batch"], error["row"]) for error in table.errors()} == truth.open()


def streamed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list into which every query goes that streams rows past the count."""
    seen: list[str] = []
    kept = Counting.kept

    def watched(self: Counting) -> Any:
        seen.append(self.sql)
        return kept(self)

    monkeypatch.setattr(Counting, "kept", watched)
    return seen


def mixed(seed: int, rows: int = 600) -> list[Row]:
    """Return rows of every fate, many keys several times; some keys are NULL."""
    chance = random.Random(seed)
    return [
        row(
            chance.choice([None, *range(1, rows // 2)]),
            chance.choice(["a", "a", "b", "test", None]),
            chance.choice(["1", "2", "x", "-3", None]),
            chance.choice([None, 1, 2, 3]),
            chance.choice(["read", "read", "read", "delete"]),
        )
        for _ in range(rows)
    ]


@pytest.mark.parametrize(("hashes", "anew"), some([(100, False), (10**6, True), (10**6, False), (100, True)], 2))
def test_keys_that_come_again_leave_the_newest_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: int, anew: bool
) -> None:
    """Superseded, deleted, filtered and rejected versions of a key, in one batch and over several.

    The hashes of the keys are counted in one pass, or in several.
    """
    monkeypatch.setattr(silver_keys, "HASHES", hashes)
    seen = streamed(monkeypatch)
    table, truth = given(tmp_path, mixed(1), mixed(2), mixed(3))
    account = table.refine(full_refresh=anew).account
    hold(table, truth)
    assert account.read == 1800 == account.accounted
    assert min(account.inserted, account.superseded, account.filtered["not_a_test"]) > 50
    assert account.rejected_rows == len(truth.open()) > 50
    assert len(seen) == 1


def test_a_hash_that_two_keys_share_supersedes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repeated = silver_keys._repeated
    shared = pa.compute.unique

    def colliding(reader: pa.RecordBatchReader) -> Any:
        whole = reader.read_all()
        everything = shared(whole["h"]).to_numpy()
        assert len(repeated(pa.RecordBatchReader.from_batches(whole.schema, whole.to_batches()))) == 1
        return everything

    monkeypatch.setattr(silver_keys, "_repeated", colliding)
    table, truth = given(tmp_path, [row(1), row(2), row(3, o=1), row(3, "b", o=2)])
    assert table.refine().account.superseded == 1
    hold(table, truth)


def test_an_equal_key_has_an_equal_hash(tmp_path: Path) -> None:
    """Also where its bits differ, and in a key of two columns."""
    table = Table(tmp_path, key=("x", "y"))
    nan = float("nan")
    rows = [(0.0, "a"), (-0.0, "a"), (0.0, "b"), (nan, "a"), (nan, "a"), (None, "a"), (None, "a"), (1.0, None)]
    account = table.load([{"x": x, "y": y} for x, y in rows]).account
    assert (account.inserted, account.superseded, account.rejected_rows) == (3, 2, 3)


def test_rows_without_a_key_are_rejected_each_for_itself(tmp_path: Path) -> None:
    table, truth = given(tmp_path, [row(None) for _ in range(3 * SMALL)])
    account = table.refine().account
    assert account.rejected == {"key.id": 3 * SMALL}
    hold(table, truth)


def test_all_rows_are_rejected(tmp_path: Path, how: dict[str, bool]) -> None:
    """Each with its rules and its record as it came; the table is there, and is empty."""
    rows = [row(key, n="x" if key % 2 else "-1") for key in range(4 * SMALL)]
    table, truth = given(tmp_path, rows)
    account = table.refine(**how).account
    assert account.rejected == {"type.n": 2 * SMALL, "range.n": 2 * SMALL}
    hold(table, truth)
    assert table.lake.table("silver", "test", "things").open() is not None
    for error in table.errors():
        record = json.loads(error["record"])
        assert (record["id"], record["n"]) == (error["row"], rows[error["row"]]["n"])
        assert error["rules"] == [error["rule"]]
        assert error["rule"] == ("type.n" if record["n"] == "x" else "range.n")


def test_a_newest_version_that_is_filtered_keeps_its_key_out(tmp_path: Path) -> None:
    older, newer = [row(key, o=1) for key in range(SMALL)], [row(key, "test", o=2) for key in range(0, SMALL, 2)]
    table, truth = given(tmp_path, older, newer)
    account = table.refine().account
    assert (account.inserted, account.superseded) == (SMALL // 2, SMALL // 2)
    assert account.filtered == {"not_a_test": SMALL // 2}
    hold(table, truth)


def nothing_published(table: Table, before: list[Row]) -> None:
    """The table and its errors are as before, and no file is left of what was staged."""
    assert table.rows() == before
    assert table.errors() == []
    handle = table.silver.table.open()
    named = len(handle.files()) if handle is not None else 0
    assert len(list(Path(table.silver.table.uri).glob("*.parquet"))) == named


@pytest.fixture
def half(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Table, list[Row], dict[str, bool]]:
    """A table of good rows and then bad ones; built anew if it has been built when all were good."""
    anew = request.param == "rebuild"
    table, _ = given(tmp_path, [row(key) for key in range(4 * SMALL)])
    if anew:
        table.refine()
    table.source.give([row(key, n="-1") for key in range(1000, 1000 + 4 * SMALL)], schema=SCHEMA)
    table.land()
    return table, table.rows(), {"full_refresh": anew}


@pytest.mark.parametrize("half", some(["rebuild", "first"], 1), indirect=True)
def test_a_budget_that_is_exceeded_after_half_is_written(half: tuple[Table, list[Row], dict[str, bool]]) -> None:
    table, before, how = half
    table.budget = Budget(max_share=0.1)
    with pytest.raises(ErrorBudgetExceededError, match=f"{4 * SMALL} of {8 * SMALL} rows were rejected"):
        table.refine(**how)
    nothing_published(table, before)
    table.budget = Budget()
    assert table.refine(**how).account.inserted == 4 * SMALL


@pytest.mark.parametrize("half", some(["first", "rebuild"], 1), indirect=True)
def test_a_rule_that_must_not_fail_does_after_half_is_written(
    half: tuple[Table, list[Row], dict[str, bool]], tmp_path: Path
) -> None:
    table, before, how = half
    table.contract = watching(tmp_path, "fail")
    with pytest.raises(ContractViolationError, match=f"{4 * SMALL} of {8 * SMALL} rows"):
        table.refine(**how)
    nothing_published(table, before)
    table.contract = watching(tmp_path, "warn")
    refined = table.refine(**how)
    assert list(refined.watched.values()) == [4 * SMALL]
    assert refined.account.inserted == 8 * SMALL


def watching(folder: Path, on_fail: str) -> Contract:
    """Return the contract with a rule that lets the rows through."""
    path = write_contract(folder, 0)
    rule = (
        "quality: [{id: not_negative, type: sql, query: 'n >= 0', mustBe: 0, customProperties: "
        f"[{{property: on_fail, value: {on_fail}}}]}}]"
    )
    path.write_text(path.read_text().replace("logicalTypeOptions: {minimum: 0}", rule))
    return load_contract(path)


@pytest.mark.parametrize("half", some(["first", "rebuild"], 1), indirect=True)
def test_an_engine_that_fails_after_half_is_written(
    half: tuple[Table, list[Row], dict[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, before, how = half
    stream = Session.stream

    def breaking(self: Session, sql: str, rows: int = SMALL) -> pa.RecordBatchReader:
        if "__fate FROM fated" in sql:
            sql = sql.replace('j."v"', 'CASE WHEN j."id" = 1150 THEN error(\'broken\') ELSE j."v" END AS v')
            sql = sql.replace("FROM fated j", "FROM fated j WHERE j.__action IS NOT NULL")
        return stream(self, sql, rows)

    monkeypatch.setattr(Session, "stream", breaking)
    table.contract = watching(table.folder, "warn")
    with pytest.raises(EngineError, match="broken"):
        table.refine(**how)
    nothing_published(table, before)
    monkeypatch.setattr(Session, "stream", stream)
    assert table.refine(**how).account.inserted == 8 * SMALL


POINTS = ("silver:before_errors", "silver:after_commit", "silver:before_settle", "silver:before_commit")


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with bronze and nothing else; for copies."""
    folder = tmp_path_factory.mktemp("landed")
    Shop(str(folder)).run("first", 2, end="bronze")
    return folder


@pytest.fixture(scope="module")
def calm(landed: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop that ran once, undisturbed; for copies."""
    shop = Shop(str(shutil.copytree(landed, tmp_path_factory.mktemp("calm"), dirs_exist_ok=True)))
    shop.run("first", 2, start="silver")
    return shop


CHAINS = [pytest.param(points, id="+".join(points)) for points in (POINTS[:2], *((point,) for point in POINTS))]


@pytest.mark.parametrize("points", some(CHAINS, 1))
def test_a_kill_in_the_first_load_is_repaired_by_running_again(
    tmp_path: Path, forks: Forks, landed: Path, calm: Shop, points: tuple[str, ...]
) -> None:
    killed = Shop(str(shutil.copytree(landed, tmp_path, dirs_exist_ok=True)))
    arguments = {"folder": str(killed.folder), "name": "killed", "batches": 2, "start": "silver"}
    for point in points:
        assert forks.start(run_shop, env={"ETL_KILL_AT": point}, **arguments).wait() == KILLED
    killed.run("again", 2, start="silver")
    # The tokens of what is published name the one lake or the other.
    states = [{**shop.state(), "published": shop.published(tokens=False)} for shop in (killed, calm)]
    assert states[0] == states[1]


@pytest.mark.parametrize("point", some(POINTS[2:] + POINTS[:2], 1))
def test_a_kill_while_a_table_is_built_anew(tmp_path: Path, forks: Forks, calm: Shop, point: str) -> None:
    """The table is the old one or the new one, and either way the same rows."""
    shutil.copytree(calm.folder, tmp_path, dirs_exist_ok=True)
    shop = Shop(str(tmp_path))
    table, errors = shop.table(), shop.errors()
    assert forks.start(rebuild, env={"ETL_KILL_AT": point}, folder=str(tmp_path)).wait() == KILLED
    assert shop.table() == table
    rebuild(str(tmp_path))
    assert shop.table() == table
    assert [error.split("'")[1] for error in shop.errors()] == [error.split("'")[1] for error in errors]


def test_no_personal_value_gets_into_the_log(tmp_path: Path) -> None:
    """Though the files are written before the table says on what it keeps statistics, and by a rule that is new."""
    table, _ = given(tmp_path, [row(key, f"private-{key}") for key in range(SMALL)])
    path = write_contract(tmp_path, 0)
    public = path.read_text()
    path.write_text(public.replace("classification: confidential", "classification: restricted"))
    table.contract = load_contract(path)
    table.refine()
    assert '\\"id\\":0' in log(table), "there are statistics"
    assert "private-" not in log(table)
    path.write_text(public.replace("primaryKey: true", "primaryKey: true, classification: restricted"))
    table.contract = load_contract(path)
    known = len(log(table))
    table.refine(full_refresh=True)
    assert '\\"o\\":1' in log(table)[known:]
    assert '\\"id\\":0' not in log(table)[known:]


def test_a_column_that_has_become_personal_is_so_for_the_next_rows(tmp_path: Path) -> None:
    """They are appended to a table that was opened before it knew."""
    table, _ = given(tmp_path, [row(1, "public")])
    table.refine()
    path = write_contract(tmp_path, 0)
    path.write_text(path.read_text().replace("classification: confidential", "classification: restricted"))
    table.contract = load_contract(path)
    table.source.give([row(2, "private-2")], schema=SCHEMA)
    table.land()
    assert table.refine().account.inserted == 1
    assert "public" in log(table)
    assert "private-" not in log(table)


def log(table: Table) -> str:
    """Return the Delta log, oldest entry first."""
    return "".join(path.read_text() for path in sorted(Path(table.silver.table.uri).glob("_delta_log/*.json")))


def test_a_first_load_needs_no_room_for_all_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine may keep less than the data in memory, and nothing on disk."""
    monkeypatch.undo()
    session = DuckDB.session

    @contextmanager
    def narrow(self: DuckDB) -> Iterator[Session]:
        with session(self) as opened:
            opened.execute("SET max_temp_directory_size = '0KiB'")
            yield opened

    table = Table(tmp_path)
    rows = "SELECT i AS id, " + ", ".join(f"md5(concat(i, '{name}')) AS {name}" for name in "abcdefgh")
    with table.engine.session() as made:
        data = made.table(f"{rows} FROM range(250000) r(i)").combine_chunks().to_batches()[0]
    table.source._batches.append(data)
    table.land()
    table.engine = DuckDB(memory_limit="64MB", threads=1)
    monkeypatch.setattr(DuckDB, "session", narrow)
    assert table.refine().account.inserted == 250000
