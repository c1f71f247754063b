"""What is new in a MongoDB collection: everything, once, however late it was written."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from etl_assets.bronze import Bronze
from etl_resources.exceptions import ConfigurationError, UnavailableError
from etl_resources.lake import Lake
from etl_resources.source import Incremental, Position, Snapshot, Stream
from etl_resources.sources import mongodb_horizon
from etl_resources.sources.mongodb import MongoSource, MongoStreamOptions
from tests.assets.doubles import new_run
from tests.servers.mongo import MongoServer, failing, shared_mongo

START = datetime(2024, 7, 1, 12, tzinfo=UTC)


@pytest.fixture
def server() -> MongoServer:
    return shared_mongo()


@pytest.fixture
def database(server: MongoServer) -> Iterator[Any]:
    with server.client() as client:
        yield client[server.database()]


class Follower:
    """Reads a collection again and again, each time from where it was."""

    def __init__(self, server: MongoServer, database: Any, cursor: str = "at", **options: Any) -> None:
        self.source = MongoSource(**server.settings(database=database.name))
        self.stream = Stream("s", MongoStreamOptions(collection="c", **options), Incremental(cursor=cursor))
        self.position: Position | None = None

    def new(self) -> list[Any]:
        """Return the ids that the next read gives."""
        ids: list[Any] = []
        for batch in self.source.read(self.stream, self.position, batch_rows=100):
            ids += batch.data.column("_id").to_pylist()
            assert batch.rows_read == len(ids)
            self.position = json.loads(json.dumps(batch.position)) if batch.position else self.position
        return ids


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_late_documents_are_read_and_the_boundary_is_not_read_twice(server: MongoServer, database: Any) -> None:
    database.c.insert_many([{"_id": n, "at": at(n)} for n in range(1000)])
    follower = Follower(server, database, late_by=60)
    assert follower.new() == list(range(1000))
    assert follower.new() == []
    equal, late, just, too_late, new = range(1001, 1006)
    times = {equal: at(999), late: at(960), just: at(999 - 60), too_late: at(900), new: at(1001)}
    database.c.insert_many([{"_id": n, "at": moment} for n, moment in times.items()])
    assert follower.new() == [equal, late, just, new]
    assert follower.new() == []
    remembered = mongodb_horizon.Horizon.load(follower.position or {}, "at", 60, "").seen
    assert len(remembered) == database.c.count_documents({"at": {"$gte": at(1001 - 60)}})


def test_documents_without_a_cursor_or_with_another_type_are_not_forgotten(server: MongoServer, database: Any) -> None:
    database.c.insert_many([{"_id": 0, "at": at(0)}, {"_id": 1, "at": None}, {"_id": 2}, {"_id": 3, "at": "x"}])
    follower = Follower(server, database)
    assert follower.new() == [0, 1, 2, 3]
    assert follower.new() == []
    database.c.insert_many([{"_id": 4, "at": None}, {"_id": 5}, {"_id": 6, "at": 7}, {"_id": 7, "at": [at(0)]}])
    naive = [d["_id"] for d in database.c.find({"at": {"$gt": at(0)}})]
    assert naive == []
    assert follower.new() == [4, 5, 6, 7]
    database.c.update_one({"_id": 1}, {"$set": {"v": 1}})
    assert follower.new() == [1]
    assert follower.new() == []


def test_a_cursor_in_the_future_does_not_push_the_horizon(server: MongoServer, database: Any) -> None:
    now = datetime.now(UTC)
    database.c.insert_many([{"_id": 0, "at": now}, {"_id": 1, "at": now + timedelta(days=3650)}])
    follower = Follower(server, database)
    assert follower.new() == [0, 1]
    database.c.insert_one({"_id": 2, "at": now + timedelta(seconds=1)})
    assert follower.new() == [2]
    assert follower.new() == []


@pytest.mark.parametrize("kind", ["number", "large", "double", "id", "nested"])
def test_cursors_of_every_kind(server: MongoServer, database: Any, kind: str) -> None:
    base = int(START.timestamp())
    make = {
        "number": lambda n: {"u": n}, "large": lambda n: {"u": 2**62 + n}, "double": lambda n: {"u": n + 0.25},
        "id": lambda n: {"u": ObjectId((base + n).to_bytes(4, "big") + bytes(8))},
        "nested": lambda n: {"u": {"at": at(n)}},
    }[kind]  # fmt: skip
    follower = Follower(server, database, "u.at" if kind == "nested" else "u", late_by=10)
    database.c.insert_many([{"_id": n, **make(n)} for n in range(100)])
    assert follower.new() == list(range(100))
    assert follower.new() == []
    database.c.insert_many([{"_id": 100 + n, **make(n)} for n in (50, 90, 99, 100)])
    assert follower.new() == [190, 199, 200]
    assert follower.new() == []


def test_ids_of_several_clients_are_no_order_of_writing(server: MongoServer, database: Any) -> None:
    """An ObjectId begins with the clock of the client that made it: the naive reader loses what the look-back finds."""

    def identity(seconds: int, machine: int) -> ObjectId:
        return ObjectId((int(START.timestamp()) + seconds).to_bytes(4, "big") + machine.to_bytes(8, "big"))

    database.c.insert_many([{"_id": identity(n, 1)} for n in range(10)])
    follower = Follower(server, database, "_id", late_by=30)
    assert len(follower.new()) == 10
    slow = identity(3, 2)
    database.c.insert_one({"_id": slow})
    assert list(database.c.find({"_id": {"$gt": identity(9, 1)}})) == []
    assert follower.new() == [str(slow)]


def test_writers_that_commit_late_lose_nothing(server: MongoServer, database: Any) -> None:
    """Three writers take the time first and commit a while later; a reader by `cursor > last` misses some of them."""
    database.create_collection("c")
    follower, stop = Follower(server, database, late_by=30), threading.Event()
    written: list[str] = []

    def write(name: str, seed: int) -> None:
        chance = random.Random(seed)
        with server.client() as client, client.start_session() as session:
            for n in range(16):
                with session.start_transaction():
                    document = {"_id": f"{name}{n}", "at": datetime.now(UTC)}
                    client[database.name].c.insert_one(document, session=session)
                    time.sleep(chance.uniform(0, 0.06))
                written.append(document["_id"])

    writers = [threading.Thread(target=write, args=(name, seed)) for seed, name in enumerate("abc")]
    for writer in writers:
        writer.start()
    read: list[str] = []
    naive: list[str] = []
    last = datetime(1970, 1, 1, tzinfo=UTC)
    while not stop.is_set():
        if not any(writer.is_alive() for writer in writers):
            stop.set()
        read += follower.new()
        for document in database.c.find({"at": {"$gt": last}}).sort("at"):
            naive.append(document["_id"])
            last = max(last, document["at"])
    assert len(written) == 48
    assert sorted(read) == sorted(written)
    assert len(set(naive)) < len(written), "the test shows nothing if the naive reader loses nothing"


def test_what_is_changed_while_a_first_read_goes_on_comes_once_more(server: MongoServer, database: Any) -> None:
    database.c.insert_many([{"_id": n, "at": at(n)} for n in range(500)])
    follower = Follower(server, database, late_by=10)
    batches = follower.source.read(follower.stream, None, batch_rows=100)
    ids = next(batches).data.column("_id").to_pylist()
    database.c.update_one({"_id": 400}, {"$set": {"at": at(600)}})
    database.c.insert_one({"_id": -1, "at": at(495)})
    for batch in batches:
        ids += batch.data.column("_id").to_pylist()
        follower.position = batch.position
    assert ids == list(range(500))
    assert follower.new() == [-1, 400]
    assert follower.new() == []


def test_more_than_can_be_remembered_comes_again_and_is_not_lost(
    server: MongoServer, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongodb_horizon, "MOST_SEEN", 10)
    database.c.insert_many([{"_id": n, "at": at(n)} for n in range(20)])
    follower = Follower(server, database)
    assert len(follower.new()) == 20
    database.c.insert_one({"_id": 20, "at": at(0)})
    assert follower.new() == [*range(10), 20]


def test_what_cannot_be_a_cursor_is_refused(server: MongoServer, database: Any) -> None:
    database.c.insert_one({"_id": 1, "at": "2024-01-01", "ok": at(0)})
    with pytest.raises(ConfigurationError, match="'at' is a str"):
        Follower(server, database).new()
    database.c.insert_one({"_id": 2, "a": [{"at": at(0)}]})
    with pytest.raises(ConfigurationError, match="array"):
        Follower(server, database, "a.at").new()
    follower = Follower(server, database, "ok")
    follower.new()
    other = Follower(server, database, "_id")
    other.position = follower.position
    with pytest.raises(ConfigurationError, match="--full-refresh"):
        other.new()


def test_latest_moves_when_something_is_written(server: MongoServer, database: Any) -> None:
    database.c.insert_one({"_id": 1, "at": at(0)})
    follower = Follower(server, database)
    first = follower.source.latest(follower.stream)
    assert first == follower.source.latest(follower.stream)
    database.c.insert_one({"_id": 2, "at": at(1)})
    assert first != follower.source.latest(follower.stream)


def test_a_first_read_that_breaks_off_goes_on_in_the_next_run(
    server: MongoServer, database: Any, tmp_path: Path
) -> None:
    """Two runs into bronze with a failure between, and documents written meanwhile: all of them, each once."""
    database.c.insert_many([{"_id": n, "at": at(n), "text": f"document {n}"} for n in range(1000)])
    quick = {"attempts": 1, "timeout": 2}
    source = MongoSource(**server.settings(database=database.name, resilience=quick))
    stream = Stream("c", MongoStreamOptions(collection="c", late_by=100), Incremental(cursor="at"))
    reads = type(source).read

    class Small(MongoSource):
        def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 0) -> Any:
            return reads(self, stream, since, batch_rows=100)

    lake = Lake(uri=str(tmp_path / "lake"))
    small = Small(**source.model_dump())
    bronze = Bronze(lake, "test", stream, commit_rows=200)
    breaks = failing(database.client, {"times": 1, "skip": 5}, failCommands=["getMore"], closeConnection=True)
    with breaks, pytest.raises(UnavailableError):
        bronze.land(small, new_run())
    kept = bronze.table.open()
    assert kept is not None
    assert 0 < kept.delta.to_pyarrow_table().num_rows < 1000
    database.c.insert_many([{"_id": 2000 + n, "at": at(990 + n)} for n in range(20)])
    bronze.land(small, new_run())
    bronze.land(small, new_run())
    assert bronze.land(small, new_run()).account.read == 0
    landed = bronze.table.open()
    assert landed is not None
    ids = sorted(landed.delta.to_pyarrow_table().column("_id").to_pylist())
    assert ids == sorted(d["_id"] for d in database.c.find())


def test_a_snapshot_after_an_increment_and_back_is_whole(server: MongoServer, database: Any) -> None:
    database.c.insert_many([{"_id": n, "at": at(n)} for n in range(10)])
    follower = Follower(server, database)
    follower.new()
    whole = Stream("s", follower.stream.options, Snapshot())
    (batch,) = follower.source.read(whole, follower.position)
    assert batch.data.num_rows == 10
    follower.position = batch.position
    assert len(follower.new()) == 10
