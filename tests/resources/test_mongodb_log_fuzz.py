"""Writers with a ledger of their true changes, a reader that is killed everywhere, and mutants that must be found."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pymongo.errors import PyMongoError

from etl_assets.bronze import Bronze
from etl_assets.capture import Capture
from etl_assets.run import Run
from etl_assets.silver import Silver, SilverSpec
from etl_resources.change_log import LogTable, event_fields
from etl_resources.changes import mongodb as log_module
from etl_resources.changes import mongodb_feed, mongodb_follow, mongodb_rows
from etl_resources.changes.mongodb import MongodbLog
from etl_resources.changes.mongodb_snapshot import Chunks
from etl_resources.engines.duckdb import DuckDB
from etl_resources.exceptions import UnavailableError
from etl_resources.lake import Lake
from tests.resources.mongodb_landing import Killed, Landing
from tests.resources.test_mongodb_log import IMAGES, log_of, truth
from tests.servers.mongo import MongoServer, running_mongo, shared_mongo
from tests.soaking import some

NAMES = ("a", "b")


class Writer:
    """Changes documents, each of which counts its own changes in `n`; `ledger`: how many there truly were."""

    def __init__(self, database: Any, seed: int) -> None:
        self.database, self.random, self.serial = database, random.Random(seed), 1000
        self.ledger: Counter[str] = Counter()

    def prepare(self, rows: int) -> None:
        for name in NAMES:
            self.database.create_collection(name, **IMAGES)
            self.database[name].insert_many([{"_id": n, "n": 0} for n in range(rows)])

    def write(self) -> None:
        """Make one change, or a transaction of some."""
        with self.database.client.start_session() as session:
            if self.random.random() < 0.6:
                self._one(None)
                return
            session.start_transaction()
            before = self.ledger.copy()
            for key in self.random.sample(range(20), self.random.randint(2, 9)):
                name = self.random.choice(NAMES)
                if self.database[name].find_one({"_id": key}):
                    self.database[name].update_one({"_id": key}, {"$inc": {"n": 1}}, session=session)
                    self.ledger[name] += 1
            if self.random.random() < 0.2:
                session.abort_transaction()
                self.ledger = before
            else:
                session.commit_transaction()

    def _one(self, session: Any) -> None:
        name, kind = self.random.choice(NAMES), self.random.random()
        collection = self.database[name]
        if kind < 0.2:
            self.serial += 1
            collection.insert_one({"_id": self.serial, "n": 0}, session=session)
            self.ledger[name] += 1
        elif kind < 0.35:
            self.ledger[name] += collection.delete_one({"_id": self.random.randint(0, self.serial)}).deleted_count
        else:
            key = self.random.randint(0, 19)
            self.ledger[name] += collection.update_one({"_id": key}, {"$inc": {"n": 1}}).modified_count


def judge(lake: Landing, writer: Writer, *, complete: bool) -> None:
    """Hold what was landed against the truth; `complete`: the log was followed from the first change on."""
    for name in NAMES:
        assert not lake.doubled(name)
        events = lake.events(name)
        if complete:
            assert sum(e["_op"] != "read" for e in events) == writer.ledger[name]
        seen: dict[Any, int] = {}
        for event in events:
            if event["_op"] == "update":
                assert event["_id"] not in seen or event["n"] == seen[event["_id"]] + 1, "a change is missing"
            if event["_op"] == "delete":
                seen.pop(event["_id"], None)
            else:
                seen[event["_id"]] = event["n"]
        assert lake.state(name) == truth(writer.database[name])


def fuzz(server: MongoServer, database: Any, seed: int, *, rounds: int = 7, loaded: bool = False) -> Landing:
    """Follow two collections while they change at every step, killed at random; return what was landed."""
    chance = random.Random(seed)
    writer, lake = Writer(database, seed), Landing(NAMES)
    writer.prepare(20)
    log = log_of(server, database, *NAMES, chunk=6)
    if not loaded:
        lake.land(log)

    def kill(_: str) -> bool:
        for _n in range(chance.randint(0, 4)):
            writer.write()
        return chance.random() < 0.15

    for _ in range(rounds):
        with suppress(Killed):
            lake.land(log, kill=kill)
    lake.land(log)
    judge(lake, writer, complete=not loaded)
    return lake


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let replies and ticks be so small that transactions lie across them."""
    monkeypatch.setattr(mongodb_feed, "_BATCH", 3)
    monkeypatch.setattr(mongodb_follow, "_MOST", 8)


@pytest.fixture
def server() -> MongoServer:
    return shared_mongo()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("loaded", some([True, False], 1))
def test_every_change_once_whatever_is_killed(server: MongoServer, *, loaded: bool) -> None:
    with server.client() as client:
        lake = fuzz(server, client[server.database()], 1 + loaded, loaded=loaded)
    assert lake.repeated or loaded


def _each_batch_from_zero(self: Any, pos: NDArray[Any]) -> Any:
    self._pos = -1
    return _PLACES(self, pos)


def _newest(cursors: Any) -> Any:
    return max((c.token for c in cursors.values() if c.token), key=lambda t: str(t["_data"]), default=None)


def _late(self: Any, raws: Any, progress: Any, at: int, read: int) -> Any:
    return _ROWS(self, raws, progress, at + (60 << 32), read)


_PLACES, _ROWS = mongodb_rows.Rows._places, Chunks.rows
MUTANTS = {
    "the position is not held against what comes": (mongodb_follow, "_old", lambda *_: 0),
    "_seq is counted per batch": (mongodb_rows.Rows, "_places", _each_batch_from_zero),
    "the newest token is taken, and not the oldest": (log_module, "_oldest", _newest),
    "a chunk is said to be of a later moment": (Chunks, "rows", _late),
}


def _several(server: MongoServer, client: Any) -> None:
    for seed in range(1, 5):
        fuzz(server, client[server.database()], seed, loaded=seed % 2 == 0, rounds=5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("mutant", some(MUTANTS, 1))
def test_a_mutant_is_found(server: MongoServer, monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    place, name, wrong = MUTANTS[mutant]
    monkeypatch.setattr(place, name, wrong)
    with server.client() as client, pytest.raises(AssertionError):
        _several(server, client)


@pytest.mark.parametrize("seconds", some([2, 120], 1))
def test_beside_a_writer_and_a_server_that_is_killed(seconds: int) -> None:
    """The writer is another thread; who is killed comes back with its journal, and the reader goes on."""
    seed = int(os.environ.get("SEED", time.time_ns() % 10_000))
    chance = random.Random(seed)
    with running_mongo(durable=True) as server, server.client() as client:
        writer, lake, over = Writer(client.shop, seed), Landing(NAMES), threading.Event()
        writer.prepare(20)
        log = log_of(server, client.shop, *NAMES, chunk=6)
        unsure: list[Exception] = []

        def write() -> None:
            while not over.is_set():
                try:
                    writer.write()
                except PyMongoError as error:  # killed in the middle: whether it was written is not known
                    unsure.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        ends, crash = time.monotonic() + seconds, time.monotonic() + seconds / 2
        try:
            while time.monotonic() < ends:
                with suppress(Killed, UnavailableError):
                    lake.land(log, kill=lambda _: chance.random() < 0.03)
                if time.monotonic() > crash:
                    server.stop()
                    server.start()
                    crash += 20
        finally:
            over.set()
            thread.join(30)
        lake.land(log)
        judge(lake, writer, complete=False)
        assert sum(writer.ledger.values()) > 50
        assert len(unsure) < 10, f"seed {seed}: {unsure[0]}"


def test_all_the_way_to_silver_with_a_kill_between(server: MongoServer, tmp_path: Path) -> None:
    with server.client() as client:
        writer = Writer(client[server.database()], 7)
        writer.prepare(20)
        log = log_of(server, writer.database, *NAMES, chunk=6, id_column="key", before_images="whenAvailable")
        lake, engine = Lake(uri=str(tmp_path)), DuckDB(threads=1)
        bronzes = {t.name: Bronze(lake, "p", t.stream) for t in log.tables}
        schemas = {t.name: _schema_of(log, t) for t in log.tables}
        kills = iter([True, False, True, False])

        def follow(run: str) -> None:
            def after(*_: Any) -> None:
                for _n in range(3 if run != "four" else 0):
                    writer.write()
                if next(kills, False):
                    raise Killed

            Capture(bronzes, log, engine).follow(Run(run), schemas, after=after)

        for run in ("one", "two"):
            with pytest.raises(Killed):
                follow(run)
        follow("three")
        follow("four")
        for name in NAMES:
            Silver(lake, engine, SilverSpec("p", name, ("key",), log_key=("key",))).refine(Run("five"))
            found = lake.table("silver", "p", name).open()
            assert found is not None
            rows = found.delta.to_pyarrow_table().select(["key", "n"]).to_pylist()
            assert {row["key"]: {"_id": row["key"], "n": row["n"]} for row in rows} == truth(writer.database[name])


def _schema_of(log: MongodbLog, table: LogTable) -> Callable[[], pa.Schema]:
    def schema() -> pa.Schema:
        row = log.source.read_schema(table.stream)
        return pa.schema([*row, *event_fields(row)])

    return schema
