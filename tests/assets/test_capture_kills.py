"""Runs that follow a log are killed at every point, at random, and in twos: no change is lost, none is there twice."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from signal import SIGQUIT
from typing import Any

import psycopg
import pytest

from etl_assets.landing import Landing
from etl_resources.engines.duckdb import DuckDB
from etl_resources.exceptions import RowsNotConservedError
from etl_resources.lake import Lake
from tests.assets import capture_worker
from tests.assets.capture_worker import PIPELINE, silver, worker
from tests.forks import KILLED, Forks, forking
from tests.resources.postgres_fuzz import _BIG, _SCHEMA, TABLES, Writers
from tests.servers.postgres import PostgresServer, running_postgres, shared_postgres
from tests.soaking import SOAK

__all__ = ["forking"]
SECONDS = 240 if SOAK else 0
LASTS = 2.0 if SOAK else 0.35
"""How long a run follows the log, unless it is killed before."""
POINTS = [
    "silver:before_commit",
    "capture:before_sweep",
    "silver:after_commit",
    "bronze:before_commit",
    "bronze:after_commit",
    "capture:after_a",
    "capture:before_acknowledge",
    *(["capture:after_b"] if SOAK else []),
]


class Case:
    """A server with the fuzzer's tables, and a lake; `positions`: where the last run of `finish` has come to."""

    def __init__(self, server: PostgresServer, folder: Path, forks: Forks, mutant: str = "", *, rows: int = 30) -> None:
        self.server, self.folder, self.forks, self.mutant = server, str(folder), forks, mutant
        self.database, self.positions = server.database(), dict[str, Any]()
        with server.connect(self.database) as connection:
            drop_slot(connection)  # of the case before
            connection.execute(_SCHEMA)
            connection.execute(f"INSERT INTO a SELECT g, 0, {_BIG.format('g')} FROM generate_series(1, {rows}) g")
            connection.execute(f"INSERT INTO b SELECT 'k' || (g % 7), g, 0, NULL FROM generate_series(1, {rows}) g")

    def start(self, seconds: float, point: str = "") -> Any:
        """Start a run for some seconds (0: to the end of the log); `point` is where it is killed."""
        settings = self.server.settings(self.database)
        return self.forks.start(
            worker,
            env={"ETL_KILL_AT": point},
            settings=settings,
            folder=self.folder,
            seconds=seconds,
            mutant=self.mutant,
        )

    def finish(self) -> None:
        """Run until the snapshots are whole and nothing is left."""
        for _ in range(40):
            result: dict[str, Any] = self.start(0).result()
            self.positions = result["positions"]
            whole = all(self.positions.get(name, {}).get("snapshot", 1) is None for name in TABLES)
            if whole and result["refused"] is None:
                return
        raise AssertionError(f"it comes to no end: {result['refused']}")

    def check(self) -> None:
        """Compare bronze with the ledger, and silver with the tables."""
        lake, engine = Lake(uri=self.folder), DuckDB()
        for name in TABLES:
            handle = lake.table("bronze", PIPELINE, name).open()
            assert handle is not None
            with engine.session() as session, self.server.connect(self.database) as connection:
                relation = session.lake_relation(handle)
                twice = session.execute(
                    f"SELECT _pos, _seq, count(*) FROM {relation} GROUP BY 1, 2 HAVING count(*) > 1"
                )
                assert not twice, f"{name}: doubled {twice[:3]}"
                told = dict(session.execute(f"SELECT _xid, count(*) FROM {relation} WHERE _op <> 'read' GROUP BY 1"))
                ledger = connection.execute(
                    "SELECT xid, sum(changes)::int8 FROM ledger WHERE name = %s GROUP BY 1 HAVING sum(changes) > 0",
                    [name],
                ).fetchall()
                assert Counter(told) == Counter(dict(ledger)), f"{name}: {len(told)} of {len(ledger)} transactions"
                opened = silver(lake, engine, name).table.open()
                assert opened is not None
                columns = "id, v, big" if name == "a" else "x, y, v, note"
                have = sorted(session.execute(f"SELECT {columns} FROM {session.lake_relation(opened)}"))
                want = sorted(connection.execute(f"SELECT {columns} FROM {name}").fetchall())
                assert have == want, f"{name}: {len(set(have) ^ set(want))} rows differ"


def drop_slot(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [f"etl_{PIPELINE}"]
    )


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() if SOAK else nullcontext(shared_postgres()) as running:
        yield running
        with running.connect("postgres") as connection:
            drop_slot(connection)


@pytest.mark.slow
@pytest.mark.timeout(900 if SOAK else 240)
def test_killed_at_every_point_and_at_random_and_beside_each_other(
    server: PostgresServer, tmp_path: Path, forks: Forks
) -> None:
    case, chance = Case(server, tmp_path, forks, rows=600), random.Random(1)
    # The slot is made before anybody writes, so that ledger and log begin at the same place.
    case.start(0.1).wait()
    points, kills, began = [*POINTS, ""], 0, time.monotonic()
    crash = began + SECONDS / 2
    with Writers(server, case.database, seed=1, count=2, rest=0.0 if SOAK else 0.03):
        while time.monotonic() < began + SECONDS or points:
            if SOAK and time.monotonic() > crash:
                crash += 20
                server.stop(SIGQUIT)
                server.start()
            kills += _killed(case, chance, points.pop(0) if points else "")
    case.finish()
    case.check()
    assert kills >= len(POINTS) / 2


def _killed(case: Case, chance: random.Random, point: str) -> int:
    # There is something to sweep where a first load ends, and a short run need not come so far.
    first = case.start(0 if point == "capture:before_sweep" else LASTS, point)
    beside = chance.random() < 0.3 if SOAK else point in {"", "bronze:before_commit"}
    second = case.start(LASTS / 2) if beside else None
    if not point:
        time.sleep(chance.random() * LASTS)
        first.kill()
    kills = int(first.wait() == KILLED)
    if second is not None:
        second.wait()
    return kills


@pytest.fixture(scope="module")
def loaded(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Case:
    """A case whose first load is done."""
    case = Case(server, tmp_path_factory.mktemp("loaded"), forks)
    case.finish()
    return case


def test_a_table_that_is_quiet_does_not_hold_the_log_back(loaded: Case) -> None:
    assert _moves_on(loaded)


def _moves_on(case: Case) -> bool:
    """Tell whether the position of a quiet table moves along with that of a busy one."""
    before = case.positions["b"]["lsn"]
    with case.server.connect(case.database) as connection:
        connection.execute("UPDATE a SET v = v + 1 WHERE id < 5")
    after: int = case.start(0.1).result()["positions"]["b"]["lsn"]
    return after > before


@pytest.mark.parametrize("mutant", ["", "handle opened anew"], ids=["correct", "mutant"])
def test_two_runs_that_read_the_same_changes(server: PostgresServer, loaded: Case, mutant: str) -> None:
    """One commits while the other stands right before its commit; who decides by an old handle has to be refused."""
    case = loaded  # which the mutant, the last of the tests that have it, leaves broken
    with server.connect(case.database) as connection:
        connection.execute("UPDATE a SET v = v + 1")
        connection.execute("INSERT INTO ledger SELECT pg_current_xact_id()::text, 'a', 0")
    settings, raced = server.settings(case.database), []
    commit = Landing.commit

    def overtaken(self: Landing, *args: Any, **more: Any) -> None:
        if not raced:
            raced.append(case.start(0.1).wait())
        commit(self, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        if mutant:
            patch.setattr(Landing, "commit", Landing.commit)  # put back what the mutant changes
            capture_worker._forget_the_handle()
            commit = Landing.commit
        patch.setattr(Landing, "commit", overtaken)
        if mutant:
            # The account of silver does not balance either: rows bear the number of a piece that they are not of.
            with pytest.raises(RowsNotConservedError):
                worker(settings, case.folder, 0.2)
        else:
            assert "another run committed" in str(worker(settings, case.folder, 0.2)["refused"])
    lake = Lake(uri=case.folder).table("bronze", PIPELINE, "a").open()
    assert lake is not None
    with DuckDB().session() as session:
        sql = f"SELECT count(*), count(DISTINCT (_pos, _seq)) FROM {session.lake_relation(lake)}"
        ((events, distinct),) = session.execute(sql)
    assert (events == distinct) is not bool(mutant)


@pytest.mark.soak
def test_mutant_idle_tables_stay_behind(server: PostgresServer, tmp_path: Path, forks: Forks) -> None:
    case = Case(server, tmp_path, forks, "idle tables stay behind")
    case.finish()
    assert not _moves_on(case)
