"""Change streams as a change log: every change once, in its order, as it was; and first loads beside them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from threading import Timer
from typing import Any

import bson
import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Timestamp
from bson.raw_bson import RawBSONDocument

from etl_resources.change_log import Boundary, LogTable
from etl_resources.changes import mongodb_feed, mongodb_follow, mongodb_position
from etl_resources.changes.mongodb import MongodbLog
from etl_resources.changes.mongodb_settings import MongoLogCapture
from etl_resources.exceptions import ConfigurationError, EtlError, LogLostError, UnavailableError
from etl_resources.source import Snapshot, Stream
from etl_resources.sources.mongodb import MongoSource, MongoStreamOptions
from tests.resources.mongodb_landing import Killed, Landing
from tests.servers.mongo import MongoServer, failing, running_mongo, shared_mongo
from tests.servers.proxy import wire_to

IMAGES = {"changeStreamPreAndPostImages": {"enabled": True}}


@pytest.fixture
def server() -> MongoServer:
    return shared_mongo()


@pytest.fixture
def database(server: MongoServer) -> Iterator[Any]:
    with server.client() as client:
        made = client[server.database()]
        for name in ("a", "b"):
            made.create_collection(name, **IMAGES)
        yield made


def log_of(
    server: MongoServer, database: Any, *names: str, settings: dict[str, Any] | None = None, **capture: Any
) -> MongodbLog:
    source = MongoSource(**server.settings(database=database.name, **settings or {}))
    how = MongoLogCapture(**{"id_column": "_id", **capture})
    tables = [
        LogTable(Stream(name, MongoStreamOptions(collection=name), how), (how.id_column,)) for name in names or ("a",)
    ]
    log = source.change_log("p", tables, how)
    assert isinstance(log, MongodbLog)
    return log


def truth(collection: Any) -> dict[Any, dict[str, Any]]:
    return {d["_id"]: d for d in collection.find()}


def filled(state: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Return a state without what is null, which a collection does not have."""
    return {k: {n: v for n, v in row.items() if v is not None} for k, row in state.items()}


def test_every_operation_is_an_event_as_it_was(server: MongoServer, database: Any) -> None:
    database.a.insert_one({"_id": 0, "v": 0})
    lake, log = Landing(["a"]), log_of(server, database, before_images="required")
    lake.land(log)
    database.a.insert_one({"_id": 1, "v": 1})
    database.a.update_one({"_id": 1}, {"$set": {"v": 2, "w": "x"}})
    database.a.update_one({"_id": 1}, {"$unset": {"w": 1}})
    database.a.replace_one({"_id": 1}, {"v": 4})
    database.a.delete_one({"_id": 1})
    database.b.insert_one({"_id": 9})
    started = time.time()
    lake.land(log)
    found = lake.events("a")
    assert [(e["_op"], e["_id"], e["v"], e.get("w")) for e in found[1:]] == [
        ("insert", 1, 1, None), ("update", 1, 2, "x"), ("update", 1, 2, None), ("update", 1, 4, None),
        ("delete", 1, None, None),
    ]  # fmt: skip
    before = [e["_before"] and e["_before"]["v"] for e in found[1:]]
    assert before == [None, 1, 2, 2, 4]
    assert found[0]["_op"] == "read"
    assert found[0]["_seq"] < 0
    assert all(e["_seq"] == 0 and e["_unchanged"] is None and e["_xid"] is None for e in found[1:])
    assert len({(e["_pos"], e["_seq"]) for e in found}) == 6
    assert abs(found[-1]["_commit_ts"].timestamp() - started) < 30
    assert filled(lake.state("a")) == truth(database.a)
    lake.land(log)
    assert len(lake.events("a")) == 6
    assert not lake.doubled("a")


def test_a_transaction_has_one_place_and_its_events_are_numbered_per_collection(
    server: MongoServer, database: Any
) -> None:
    lake, log = Landing(["a", "b"]), log_of(server, database, "a", "b")
    lake.land(log)
    with database.client.start_session() as session, session.start_transaction():
        database.a.insert_many([{"_id": n} for n in range(3)], session=session)
        database.b.insert_one({"_id": 5}, session=session)
        database.a.insert_one({"_id": 4}, session=session)
        number = session.session_id["id"].as_uuid()
    lake.land(log)
    a, b = lake.events("a"), lake.events("b")
    assert [e["_seq"] for e in a] == [0, 1, 2, 3]
    assert [e["_seq"] for e in b] == [0]
    assert len({e["_pos"] for e in a + b}) == 1
    assert {e["_xid"] for e in a + b} == {f"{number}:1"}


def test_a_great_transaction_is_never_cut_by_a_boundary(
    server: MongoServer, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the replies of the server cut it, and the line breaks in its middle."""
    monkeypatch.setattr(mongodb_feed, "_BATCH", 7)
    monkeypatch.setattr(mongodb_follow, "_MOST", 10)
    lake, log = Landing(["a"]), log_of(server, database)
    lake.land(log)
    with database.client.start_session() as session, session.start_transaction():
        database.a.insert_many([{"_id": n} for n in range(100)], session=session)
    database.a.insert_many([{"_id": n} for n in range(100, 150)])
    before = lake.boundaries
    with failing(database.client, {"times": 2, "skip": 4}, failCommands=["getMore"], closeConnection=True):
        lake.land(log)
    found = lake.events("a")
    assert [e["_seq"] for e in found] == [*range(100), *[0] * 50]
    assert [e["_id"] for e in found] == list(range(150))
    assert lake.boundaries - before > 3
    assert not lake.repeated


def test_a_first_load_in_chunks_joins_with_the_log(server: MongoServer, database: Any) -> None:
    """Every chunk is followed by changes of keys before, in and behind it; a kill between any two of them."""
    database.a.insert_many([{"_id": n, "v": 0} for n in range(30)])
    lake, log = Landing(["a"]), log_of(server, database, chunk=7)
    steps = 0

    def kill(_: str) -> bool:
        nonlocal steps
        steps += 1
        if steps % 3 == 0 and steps < 60:
            for n in (steps % 30, 29 - steps % 30):
                database.a.update_one({"_id": n}, {"$inc": {"v": 1}})
            database.a.delete_one({"_id": (steps * 7) % 30})
            database.a.insert_one({"_id": 100 + steps, "v": 0})
        return steps % 6 == 0 and steps < 60

    for _ in range(200):
        try:
            lake.land(log, kill=kill)
            break
        except Killed:
            pass
    lake.land(log)
    assert lake.state("a") == truth(database.a)
    assert not lake.doubled("a")
    assert steps > 15
    assert len(lake.sweeps["a"]) == 1


def test_a_stream_that_is_added_is_loaded_while_the_others_go_on(server: MongoServer, database: Any) -> None:
    alone, both = log_of(server, database, "a"), log_of(server, database, "a", "b", chunk=3)
    lake = Landing(["a"])
    database.b.insert_many([{"_id": n, "v": 0} for n in range(10)])
    lake.land(alone)
    database.a.insert_many([{"_id": n} for n in range(5)])
    database.b.update_many({}, {"$set": {"v": 1}})
    lake.names.append("b")
    lake.rows["b"], lake.unreadable["b"], lake.positions["b"], lake.sweeps["b"] = [], [], None, []
    lake.land(both)
    assert [e["_op"] for e in lake.events("a")] == ["insert"] * 5
    assert [e["_op"] for e in lake.events("b")] == ["read"] * 10
    assert lake.state("b") == truth(database.b)
    database.b.delete_one({"_id": 3})
    # A stream that waits loses nothing: each has its own cursor.
    lake.names.remove("b")
    database.a.insert_one({"_id": 99})
    lake.land(alone)
    lake.names.append("b")
    lake.land(both)
    assert lake.events("b")[-1]["_op"] == "delete"
    assert [e["_id"] for e in lake.events("a")] == [0, 1, 2, 3, 4, 99]


def test_a_kill_between_two_commits_makes_no_double(server: MongoServer, database: Any) -> None:
    lake, log = Landing(["a", "b"]), log_of(server, database, "a", "b")
    lake.land(log)
    for n in range(4):
        database.a.insert_one({"_id": n})
        database.b.insert_one({"_id": n})
        with pytest.raises(Killed):
            lake.land(log, kill=lambda step: step == "commit b")
    assert len(lake.rows["a"]) == 4
    assert not lake.rows["b"]
    lake.land(log)
    assert [e["_id"] for e in lake.events("b")] == [0, 1, 2, 3]
    assert not lake.doubled("a")
    assert lake.repeated == 3 + 2 + 1 + 4


def test_drop_and_rename_empty_a_stream_and_what_takes_its_name_is_read(server: MongoServer, database: Any) -> None:
    database.a.insert_many([{"_id": n} for n in range(3)])
    lake, log = Landing(["a"]), log_of(server, database)
    lake.land(log)
    database.a.drop()
    database.a.insert_one({"_id": 7})
    lake.land(log)
    assert [e["_op"] for e in lake.events("a")[3:]] == ["truncate", "insert"]
    assert list(lake.state("a")) == [7]
    database.other.insert_many([{"_id": n, "x": "y"} for n in range(20, 24)])
    database.other.rename("a", dropTarget=True)  # as $out does
    lake.land(log)
    assert filled(lake.state("a")) == truth(database.a)
    database.a.rename("gone")
    lake.land(log)
    assert lake.state("a") == {}
    database.client.drop_database(database.name)
    lake.land(log)
    database.create_collection("a", **IMAGES)
    database.a.insert_one({"_id": 1})
    database.a.update_one({"_id": 1}, {"$set": {"x": "z"}})
    lake.land(log)
    assert filled(lake.state("a")) == {1: {"_id": 1, "x": "z"}}
    assert not lake.doubled("a")


def test_values_arrive_as_the_source_reads_them(server: MongoServer, database: Any) -> None:
    document = {
        "_id": ObjectId(), "i": 1, "l": Int64(2**60), "f": 2.5, "s": "ü", "b": b"\0\xff", "t": True, "n": None,
        "d": datetime(2024, 7, 1, 12, 0, 0, 123000, UTC), "p": Decimal128("12.50"), "e": {"x": [1, 2], "y": {"z": "q"}},
        "a": [{"k": 1}, {"k": None}], "u": Binary(b"x" * 16, 4),
    }  # fmt: skip
    database.a.insert_one(document)
    log = log_of(server, database, before_images="whenAvailable")
    table = log.tables[0]
    (snapshot,) = log.source.read(replace(table.stream, capture=Snapshot()), None)
    lake = Landing(["a"])
    lake.land(log)
    database.a.replace_one({"_id": document["_id"]}, {**document, "i": 2, "_id": document["_id"]})
    batches = [c.batch.data for c in log.read(lake.positions) if not isinstance(c, Boundary)]
    (batch,) = batches
    names = snapshot.data.schema.names
    assert [batch.schema.field(n).type for n in names] == [snapshot.data.schema.field(n).type for n in names]
    (was,), (row,) = snapshot.data.to_pylist(), batch.to_pylist()
    assert {n: row[n] for n in names} == {**was, "i": 2}
    assert row["_before"] == was
    assert {n: lake.rows["a"][0][n] for n in names} == was


def test_what_does_not_fit_is_told_and_blocks_nobody(server: MongoServer, database: Any) -> None:
    database.a.insert_many([{"_id": n, "v": n} for n in range(2)])
    lake, log = Landing(["a"]), log_of(server, database)
    lake.land(log)
    database.a.update_one({"_id": 0}, {"$set": {"v": "text"}})
    database.a.update_one({"_id": 1}, {"$set": {"v": 5, "new": [1]}})
    lake.land(log)
    (told,) = lake.unreadable["a"]
    raw = json.loads(told["raw"])
    assert (raw["key"], raw["op"], raw["seq"]) == ({"_id": {"$numberInt": "0"}}, "update", 0)
    assert raw["values"]["v"] == "text"
    assert "does not fit" in told["reason"]
    assert lake.state("a")[1]["new"] == [1]
    database.a.update_one({"_id": 0}, {"$set": {"v": 9}})
    lake.land(log)
    assert lake.state("a")[0]["v"] == 9


def test_a_document_that_is_no_sound_bson_is_told_alone(server: MongoServer, database: Any) -> None:
    raw = bytearray(bson.encode({"_id": 2, "v": "ab"}))
    raw[raw.index(b"ab")] = 0xFF  # no UTF-8
    lake, log = Landing(["a"]), log_of(server, database)
    lake.land(log)
    database.a.insert_many([{"_id": 1, "v": "x"}, RawBSONDocument(bytes(raw)), {"_id": 3, "v": "y"}])
    lake.land(log)
    assert [e["_id"] for e in lake.events("a")] == [1, 3]
    assert json.loads(lake.unreadable["a"][0]["raw"])["key"] == {"_id": {"$numberInt": "2"}}


def test_a_lookup_shows_the_newest_state_and_none_that_is_wrong_at_the_end(server: MongoServer, database: Any) -> None:
    lake, log = Landing(["a"]), log_of(server, database, full_document="updateLookup")
    lake.land(log)
    database.a.insert_many([{"_id": 1, "v": 1}, {"_id": 2, "v": 1}])
    for n in (2, 3):
        database.a.update_many({}, {"$set": {"v": n}})
    database.a.delete_one({"_id": 2})
    lake.land(log)
    found = [(e["_op"], e["_id"], e["v"], e["_unchanged"]) for e in lake.events("a")]
    assert found == [
        ("insert", 1, 1, None), ("insert", 2, 1, None), ("update", 1, 3, None), ("update", 2, None, ["v"]),
        ("update", 1, 3, None), ("update", 2, None, ["v"]), ("delete", 2, None, None),
    ]  # fmt: skip
    assert lake.state("a") == truth(database.a)
    assert [f.level for f in log.preflight() if "updateLookup" in f.what] == ["warning"]


def test_an_update_without_its_image_is_never_a_row(server: MongoServer, database: Any) -> None:
    database.plain.insert_one({"_id": 1, "v": 0})
    exact = log_of(server, database, "plain")
    weak = log_of(server, database, "plain", full_document="whenAvailable")
    lake = Landing(["plain"])
    lake.land(exact)
    database.plain.update_one({"_id": 1}, {"$set": {"v": 1}})
    with pytest.raises(LogLostError, match="post-image"):
        lake.land(exact)
    lake.land(weak)
    assert lake.state("plain") == {1: {"_id": 1, "v": 0}}
    assert json.loads(lake.unreadable["plain"][0]["raw"])["key"] == {"_id": {"$numberInt": "1"}}
    found = {f.level for f in exact.preflight() if f.stream == "plain"}
    assert found == {"error"}


def test_lost_history_is_said_and_mended_by_one_load_that_finds_the_deletes() -> None:
    with running_mongo() as server, server.client() as client:
        database = client.shop
        database.create_collection("a", **IMAGES)
        database.a.insert_many([{"_id": n, "v": 0} for n in range(5)])
        lake, log = Landing(["a"]), log_of(server, database)
        lake.land(log)
        assert log.state(lake.positions).state == "ok"
        database.a.delete_one({"_id": 3})
        database.a.update_many({}, {"$inc": {"v": 1}})
        client.admin.command("testOplog", keep=1)
        assert log.state(lake.positions).state == "lost"
        with pytest.raises(LogLostError, match="286"):
            lake.land(log)
        lake.positions["a"] = log.renewed(lake.positions["a"])
        lake.land(log)
        assert lake.state("a") == truth(database.a)
        assert len(lake.sweeps["a"]) == 2
        lake.land(log)
        assert len(lake.sweeps["a"]) == 2
        assert log.state(lake.positions).state == "ok"


def test_a_load_that_is_asked_for_loses_no_change_that_the_log_still_has(server: MongoServer, database: Any) -> None:
    database.a.insert_many([{"_id": n, "v": 0} for n in range(3)])
    lake, log = Landing(["a"]), log_of(server, database)
    lake.land(log)
    database.a.update_many({}, {"$inc": {"v": 1}})
    lake.positions["a"] = log.renewed(lake.positions["a"])
    lake.land(log)
    assert [e["_op"] for e in lake.events("a")] == ["read"] * 3 + ["update"] * 3 + ["read"] * 3
    assert lake.state("a") == truth(database.a)
    assert log.renewed(None) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [({"set": ObjectId()}, "another deployment"), ({"clock": (int(time.time()) - 3600) << 32}, "restored")],
)
def test_another_server_and_a_restored_one_are_noticed(change: dict[str, Any], message: str) -> None:
    with running_mongo() as server, server.client() as client:
        client.shop.create_collection("a", **IMAGES)
        client.shop.a.insert_one({"_id": 1})
        lake, log = Landing(["a"]), log_of(server, client.shop)
        lake.land(log)
        client.admin.command("testOplog", **change)
        with pytest.raises(LogLostError, match=message):
            lake.land(log)


def test_a_server_that_is_alone_has_no_log() -> None:
    with running_mongo(standalone=True) as server, server.client() as client:
        log = log_of(server, client.shop)
        (found,) = log.preflight()
        assert (found.level, "replica set" in found.what) == ("error", True)
        with pytest.raises(ConfigurationError, match="replica set"):
            Landing(["a"]).land(log)


def test_preflight_and_state_say_how_it_is(server: MongoServer, database: Any) -> None:
    log = log_of(server, database, "a", "b", before_images="whenAvailable")
    assert {f.level for f in log.preflight()} == {"ok"}
    lake = Landing(["a", "b"])
    assert log.state(lake.positions).state == "none"
    boundary = lake.land(log)
    assert boundary is not None
    assert (boundary.caught_up, boundary.lag.seconds) == (True, 0.0)
    database.other.insert_one({})
    found = log.state(lake.positions)
    assert (found.state, found.news, found.lag.seconds) == ("ok", False, 0.0)
    database.b.insert_one({})
    assert log.state(lake.positions).news
    missing = log_of(server, database, "nothing_here")
    assert any("no collection" in f.what and f.stream == "nothing_here" for f in missing.preflight())


@pytest.mark.parametrize(
    "options", [{"filter": {"v": 1}}, {"with_id": False}, {"fields": ("a.b",)}, {"collection": "a", "key": ("v",)}]
)
def test_what_cannot_be_followed_truly_is_refused(server: MongoServer, options: dict[str, Any]) -> None:
    key = options.pop("key", ("_id",))
    stream = Stream("a", MongoStreamOptions(**{"collection": "a", **options}))
    with pytest.raises(ConfigurationError):
        MongoSource(**server.settings()).change_log("p", [LogTable(stream, key)], MongoLogCapture(id_column="_id"))


def test_only_the_named_fields_are_followed(server: MongoServer, database: Any) -> None:
    source = MongoSource(**server.settings(database=database.name))
    database.a.insert_one({"_id": 1, "v": 1, "secret": "s"})
    stream = Stream("a", MongoStreamOptions(collection="a", fields=("v",)))
    log = source.change_log(
        "p", [LogTable(stream, ("_id",))], MongoLogCapture(before_images="required", id_column="_id")
    )
    lake = Landing(["a"])
    lake.land(log)
    database.a.update_one({"_id": 1}, {"$set": {"v": 2, "secret": "t"}})
    lake.land(log)
    assert "secret" not in json.dumps(lake.rows["a"], default=str)
    assert lake.state("a") == {1: {"_id": 1, "v": 2}}


def test_a_broken_line_is_mended_and_a_dead_server_is_said(server: MongoServer, database: Any) -> None:
    lake = Landing(["a"])
    database.a.insert_many([{"_id": n, "v": "x" * 1000} for n in range(200)])
    for cut in (9_000, 90_000):
        with wire_to(server.port, cut_after=cut) as wire:
            log = log_of(
                server, database, chunk=50,
                settings={"port": wire.port, "resilience": {"attempts": 2, "first_wait": 0.01, "timeout": 0.5}},
            )  # fmt: skip
            with pytest.raises(UnavailableError) as caught:
                lake.land(log)
            assert isinstance(caught.value, EtlError)
        database.a.update_many({"_id": {"$lt": 3}}, {"$set": {"v": f"{cut}"}})
    lake.land(log_of(server, database))
    assert lake.state("a") == truth(database.a)
    assert not lake.doubled("a")


@pytest.mark.parametrize("code", [43, 189, 136])
def test_a_cursor_that_is_lost_is_opened_again_behind_what_was_given(
    server: MongoServer, database: Any, code: int
) -> None:
    lake, log = Landing(["a"]), log_of(server, database)
    lake.land(log)
    database.a.insert_many([{"_id": n} for n in range(10)])
    with failing(database.client, {"times": 1, "skip": 1}, failCommands=["getMore"], errorCode=code):
        lake.land(log)
    assert [e["_id"] for e in lake.events("a")] == list(range(10))
    assert not lake.repeated


def test_continuously_a_change_is_there_soon_and_the_run_ends_when_its_time_is_up(
    server: MongoServer, database: Any
) -> None:
    lake, log = Landing(["a"]), log_of(server, database, mode="continuous", every=5, lasts=0.6)
    lake.land(log_of(server, database))
    Timer(0.2, lambda: database.a.insert_one({"_id": 1})).start()
    started = time.monotonic()
    lake.land(log, until=lambda: bool(lake.rows["a"]))
    assert time.monotonic() - started < 2
    lake.land(log_of(server, database, mode="continuous", every=0.1, lasts=0.3))
    assert len(lake.rows["a"]) == 1


def test_a_place_fits_int64_until_2072_and_keeps_the_order() -> None:
    moments = [
        Timestamp(s, i) for s in (1_100_000_000, 2_000_000_000, 2**31 + 5, 3_220_000_000) for i in (0, 2**32 - 1)
    ]
    places = [mongodb_position.pos_of(m) for m in moments]
    assert places == sorted(places)
    assert places[-1] < 2**63
    assert [mongodb_position.moment_of(p) for p in places] == moments
    assert mongodb_position.token_pos({"_data": f"82{moments[1].time:08X}{moments[1].inc:08X}2B04"}, "") == places[1]
