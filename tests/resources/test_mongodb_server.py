"""The MongoDB test server answers as a real one does, where the tests lean on it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pymongo
import pytest
from bson import MaxKey, MinKey, ObjectId, Timestamp
from pymongo import errors

from tests.servers.mongo import USER, MongoServer, failing, running_mongo, shared_mongo


@pytest.fixture
def server() -> MongoServer:
    return shared_mongo()


@pytest.fixture
def database(server: MongoServer) -> Iterator[Any]:
    with server.client() as client:
        yield client[server.database()]


@pytest.mark.parametrize(("user", "password"), [(USER, "wrong"), ("nobody", "the right wörd"), (None, None)])
def test_who_has_no_right_password_gets_nothing(server: MongoServer, user: str | None, password: str | None) -> None:
    with pymongo.MongoClient(
        "127.0.0.1", server.port, username=user, password=password, directConnection=True
    ) as client:
        assert client.admin.command("hello")["ok"] if user is None else True
        with pytest.raises(errors.OperationFailure) as caught:
            client.shop.c.find_one()
    assert caught.value.code == (13 if user is None else 18)


def test_documents_are_written_found_changed_and_deleted(database: Any) -> None:
    database.c.insert_many([{"_id": n, "v": n % 3} for n in range(10)])
    with pytest.raises(errors.BulkWriteError):
        database.c.insert_many([{"_id": 3}])
    assert database.c.update_many({"v": 0}, {"$inc": {"v": 10}}).modified_count == 4
    assert database.c.delete_one({"_id": 9}).deleted_count == 1
    assert [d["_id"] for d in database.c.find({"v": 10}, sort=[("_id", -1)], limit=2)] == [6, 3]
    assert database.c.count_documents({"v": {"$lt": 3}}) == 6
    assert database.list_collection_names() == ["c"]


def test_ids_are_in_the_order_of_their_types_and_bounds_are_inclusive_below(database: Any) -> None:
    ids = [MinKey(), None, 1, 2.5, "a", {"x": 1}, b"b", ObjectId(), False, True, datetime(2024, 1, 1, tzinfo=UTC),
           Timestamp(1, 1), MaxKey()]  # fmt: skip
    database.c.insert_many([{"_id": identity} for identity in reversed(ids)])
    assert [d["_id"] for d in database.c.find()] == ids
    found = database.c.find().hint([("_id", 1)]).min([("_id", 2.5)]).max([("_id", b"b")])
    assert [d["_id"] for d in found] == [2.5, "a", {"x": 1}]


def test_a_comparison_leaves_out_other_types_and_its_negation_does_not(database: Any) -> None:
    database.c.insert_many(
        [{"_id": 0, "v": 1}, {"_id": 1, "v": 9}, {"_id": 2, "v": "x"}, {"_id": 3, "v": None}, {"_id": 4}]
    )
    assert [d["_id"] for d in database.c.find({"v": {"$gte": 5}})] == [1]
    assert [d["_id"] for d in database.c.find({"v": {"$not": {"$lt": 5}}})] == [1, 2, 3, 4]


def test_a_snapshot_session_sees_one_moment(database: Any) -> None:
    database.c.insert_many([{"_id": n} for n in range(5)])
    with database.client.start_session(snapshot=True) as session:
        cursor = database.c.find({}, session=session, batch_size=2)
        next(cursor)
        database.c.delete_many({})
        assert len(list(cursor)) == 4
    assert database.c.count_documents({}) == 0


def test_a_transaction_is_seen_when_it_is_committed(database: Any) -> None:
    with database.client.start_session() as session:
        with session.start_transaction():
            database.c.insert_one({"_id": 1}, session=session)
            assert database.c.count_documents({}) == 0
        assert database.c.count_documents({}) == 1
        session.start_transaction()
        database.c.insert_one({"_id": 2}, session=session)
        session.abort_transaction()
    assert database.c.count_documents({}) == 1


def test_it_fails_when_it_is_told_to(database: Any) -> None:
    database.c.insert_many([{"_id": n} for n in range(5)])
    with failing(database.client, {"times": 1, "skip": 1}, failCommands=["getMore"], errorCode=43):
        cursor = database.c.find({}, batch_size=2)
        with pytest.raises(errors.CursorNotFound):
            list(cursor)
    cursor = database.c.find({}, batch_size=2)
    next(cursor)
    database.command("killCursors", "c", cursors=[cursor.cursor_id])
    with pytest.raises(errors.CursorNotFound):
        list(cursor)


def test_a_durable_server_has_after_a_kill_what_it_had_acknowledged() -> None:
    with running_mongo(durable=True) as server:
        with server.client() as client:
            client.shop.c.insert_many([{"_id": n} for n in range(3)])
            client.shop.c.delete_one({"_id": 1})
        server.stop()
        server.start()
        with server.client() as client:
            assert [d["_id"] for d in client.shop.c.find()] == [0, 2]


def test_without_a_replica_set_there_is_no_snapshot() -> None:
    with running_mongo(standalone=True) as server, server.client() as client:
        client.shop.c.insert_one({"_id": 1})
        with (
            client.start_session(snapshot=True) as session,
            pytest.raises(errors.OperationFailure, match="replica set"),
        ):
            client.shop.c.find_one({}, session=session)
