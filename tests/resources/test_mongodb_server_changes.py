"""The MongoDB test server's change streams answer as the documentation says a real one does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from bson import Timestamp
from pymongo import errors

from tests.servers.mongo import MongoServer, running_mongo, shared_mongo


@pytest.fixture
def server() -> MongoServer:
    return shared_mongo()


@pytest.fixture
def database(server: MongoServer) -> Iterator[Any]:
    with server.client() as client:
        yield client[server.database()]


def drain(stream: Any, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    until = time.monotonic() + 5
    while len(found) < count and time.monotonic() < until:
        event = stream.try_next()
        found += [event] if event is not None else []
    return found


def test_every_write_is_an_event_in_order_and_the_clock_goes_on(database: Any) -> None:
    with database.watch(max_await_time_ms=50) as stream:
        database.c.insert_one({"_id": 1, "v": 1})
        database.c.update_one({"_id": 1}, {"$set": {"v": 2}})
        database.c.update_one({"_id": 1}, {"$set": {"v": 2}})  # changes nothing
        database.c.replace_one({"_id": 1}, {"w": 3})
        database.c.delete_one({"_id": 1})
        database.d.insert_one({"_id": 7})
        found = drain(stream, 5)
    assert [(e["operationType"], e["ns"]["coll"]) for e in found] == [
        ("insert", "c"), ("update", "c"), ("replace", "c"), ("delete", "c"), ("insert", "d"),
    ]  # fmt: skip
    times = [e["clusterTime"] for e in found]
    assert times == sorted(set(times))
    assert times[0].time == pytest.approx(time.time(), abs=60)
    assert found[1]["updateDescription"]["updatedFields"] == {"v": 2}
    tokens = [e["_id"]["_data"] for e in found]
    assert tokens == sorted(tokens)


def test_a_stream_is_taken_up_again_behind_any_event_also_within_a_transaction(database: Any) -> None:
    with database.watch(max_await_time_ms=50) as stream:
        start = stream.resume_token
        with database.client.start_session() as session, session.start_transaction():
            database.c.insert_many([{"_id": n} for n in range(3)], session=session)
            database.d.insert_one({"_id": 9}, session=session)
        database.c.insert_one({"_id": 4})
        found = drain(stream, 5)
    assert len({e["clusterTime"] for e in found[:4]}) == 1
    assert len({(e["lsid"]["id"], e["txnNumber"]) for e in found[:4]}) == 1
    assert "lsid" not in found[4]
    for n, token in enumerate([start, *(e["_id"] for e in found)]):
        with database.watch(resume_after=token, max_await_time_ms=20, batch_size=2) as again:
            assert [e["_id"] for e in drain(again, 5 - n)] == [e["_id"] for e in found[n:]]


def test_images_are_those_of_the_moment_and_a_lookup_is_of_later(database: Any) -> None:
    database.create_collection("c", changeStreamPreAndPostImages={"enabled": True})
    database.plain.insert_one({"_id": 1, "v": 0})
    how = {"full_document": "whenAvailable", "full_document_before_change": "whenAvailable"}
    with (
        database.watch(max_await_time_ms=50, **how) as stream,
        database.watch(max_await_time_ms=50, full_document="updateLookup") as lookup,
    ):
        database.c.insert_one({"_id": 1, "v": 1})
        for n in (2, 3):
            database.c.update_one({"_id": 1}, {"$set": {"v": n}})
        database.c.delete_one({"_id": 1})
        database.plain.update_one({"_id": 1}, {"$set": {"v": 1}})
        exact = [(e.get("fullDocumentBeforeChange"), e.get("fullDocument")) for e in drain(stream, 5)]
        later = [e.get("fullDocument") for e in drain(lookup, 5)]
    one, two, three = ({"_id": 1, "v": n} for n in (1, 2, 3))
    assert exact == [(None, one), (one, two), (two, three), (three, None), (None, None)]
    assert later == [one, None, None, None, {"_id": 1, "v": 1}]
    with database.watch(full_document="required", max_await_time_ms=50) as stream:
        database.plain.update_one({"_id": 1}, {"$set": {"v": 2}})
        with pytest.raises(errors.OperationFailure) as caught:
            drain(stream, 1)
    assert caught.value.code == 47


def test_a_dropped_database_ends_the_stream_and_startafter_goes_on(database: Any) -> None:
    database.c.insert_one({"_id": 1})
    with database.watch(max_await_time_ms=50) as stream:
        database.c.rename("d")
        database.client.drop_database(database.name)
        found = drain(stream, 4)
    assert [e["operationType"] for e in found] == ["rename", "drop", "dropDatabase", "invalidate"]
    database.c.insert_one({"_id": 2})
    with database.watch(start_after=found[-1]["_id"], max_await_time_ms=50) as stream:
        assert [e["documentKey"] for e in drain(stream, 1)] == [{"_id": 2}]
    with pytest.raises(errors.OperationFailure) as caught:
        database.watch(resume_after=found[-1]["_id"])
    assert caught.value.code == 260


def test_a_full_oplog_forgets_and_says_so() -> None:
    with running_mongo() as server, server.client() as client:
        database = client.shop
        with database.watch(max_await_time_ms=50) as stream:
            token = stream.resume_token
            database.c.insert_many([{"_id": n} for n in range(10)])
            found = drain(stream, 3)
        client.admin.command("testOplog", keep=2)
        for old in (token, found[0]["_id"]):
            with pytest.raises(errors.OperationFailure) as caught:
                database.watch(resume_after=old)
            assert caught.value.code == 286
        with pytest.raises(errors.OperationFailure) as caught:
            database.watch(start_at_operation_time=Timestamp(5, 1))
        assert caught.value.code == 286
        assert len(list(client.local["oplog.rs"].find())) == 3


def test_a_getmore_waits_for_an_event_and_its_token_goes_on_without_one(database: Any) -> None:
    with database.watch([{"$match": {"ns.coll": "c"}}], max_await_time_ms=400) as stream:
        before = stream.resume_token["_data"]
        database.other.insert_many([{}, {}])
        assert stream.try_next() is None
        assert stream.resume_token["_data"] > before
        started = time.monotonic()
        assert stream.try_next() is None
        assert time.monotonic() - started > 0.3


def test_a_server_that_is_killed_has_its_oplog_in_the_journal() -> None:
    with running_mongo(durable=True) as server:
        with server.client() as client:
            with client.shop.watch(max_await_time_ms=50) as stream:
                token = stream.resume_token
            client.shop.create_collection("c", changeStreamPreAndPostImages={"enabled": True})
            client.shop.c.insert_one({"_id": 1, "v": 1})
            client.shop.c.update_one({"_id": 1}, {"$set": {"v": 2}})
            client.shop.c.rename("d")
            identity = client.admin.command("replSetGetConfig")["config"]["settings"]["replicaSetId"]
        server.stop()
        server.start()
        with server.client() as client:
            with client.shop.watch(resume_after=token, full_document="required", max_await_time_ms=50) as stream:
                found = drain(stream, 3)
            assert [e.get("fullDocument") for e in found] == [{"_id": 1, "v": 1}, {"_id": 1, "v": 2}, None]
            assert client.shop.d.find_one() == {"_id": 1, "v": 2}
            assert client.admin.command("replSetGetConfig")["config"]["settings"]["replicaSetId"] == identity
