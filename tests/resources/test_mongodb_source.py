"""Reading MongoDB: exact values, one moment, nothing lost where a cursor breaks, and errors that say what to do."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import bson
import pyarrow as pa
import pytest
import trustme
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.raw_bson import RawBSONDocument

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.secret import Secret
from etl_resources.source import Batch, Incremental, Snapshot, Stream, Window
from etl_resources.sources.mongodb import MongoSource, MongoStreamOptions
from tests.servers.mongo import MongoServer, failing, running_mongo, shared_mongo
from tests.servers.proxy import wire_to

IDENTITY = ObjectId("65f000000000000000000001")
UNIQUE = uuid.UUID("6f0e9f0e-0000-4000-8000-000000000001")
NOON = datetime(2024, 7, 1, 12, 0, 0, 123000, UTC)


@pytest.fixture
def server() -> MongoServer:
    return shared_mongo()


@pytest.fixture
def database(server: MongoServer) -> Iterator[Any]:
    with server.client() as client:
        yield client[server.database()]


def source_of(server: MongoServer, database: Any, **settings: Any) -> MongoSource:
    return MongoSource(**server.settings(database=database.name, **settings))


def stream(collection: str = "c", window: Window | None = None, **options: Any) -> Stream:
    return Stream("s", MongoStreamOptions(collection=collection, **options), Snapshot(), window)


def drain(batches: Iterator[Batch]) -> tuple[pa.Table, list[dict[str, Any]], Any]:
    """Return the records, the unreadable ones, and the last position, having checked the counts."""
    tables, unreadable, position, rows_read = [], [], None, 0
    for batch in batches:
        tables.append(pa.Table.from_batches([batch.data]))
        unreadable += batch.unreadable.to_pylist() if batch.unreadable else []
        position, rows_read = batch.position, batch.rows_read
    table = pa.concat_tables(tables, promote_options="default") if tables else pa.table({})
    assert rows_read == table.num_rows + len(unreadable)
    return table, unreadable, position


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        ([1, Int64(2**60), None], pa.int64(), [1, 2**60, None]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([float("inf"), -0.0, 5e-324], pa.float64(), [float("inf"), -0.0, 5e-324]),
        ([IDENTITY, None], pa.string(), [str(IDENTITY), None]),
        ([Decimal128("1.50"), Decimal128("-12345678901234567890123456789.012")], pa.decimal128(38, 3),
         [Decimal("1.500"), Decimal("-12345678901234567890123456789.012")]),
        ([Decimal128("0.1"), 7], pa.decimal128(38, 1), [Decimal("0.1"), Decimal(7)]),
        # No decimal holds these, nor a double beside a decimal: every digit is kept as text.
        ([Decimal128("NaN"), Decimal128("1.0")], pa.string(), ["NaN", "1.0"]),
        ([Decimal128("1E+40")], pa.string(), ["1E+40"]),
        ([Decimal128("0.10"), 0.1], pa.string(), ["0.10", "0.1"]),
        ([NOON, datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999000, UTC)],
         pa.timestamp("us", "UTC"),
         [NOON, datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999000, UTC)]),
        ([b"\x00\xff", Binary(b"old", 2), Binary(b"own", 128)], pa.binary(), [b"\x00\xff", b"old", b"own"]),
        ([UNIQUE], pa.string(), [str(UNIQUE)]),
        ([UNIQUE, b"x"], pa.binary(), [UNIQUE.bytes, b"x"]),
        ([{"a": 1, "b": {"c": "x"}}, {"b": None, "d": True}, None],
         pa.struct([("a", pa.int64()), ("b", pa.struct([("c", pa.string())])), ("d", pa.bool_())]),
         [{"a": 1, "b": {"c": "x"}, "d": None}, {"a": None, "b": None, "d": True}, None]),
        ([[1, 2], [], [None, 3.5], None], pa.list_(pa.float64()), [[1.0, 2.0], [], [None, 3.5], None]),
        ([[{"sku": "a", "n": [1]}, None], [{"sku": None}]],
         pa.list_(pa.struct([("sku", pa.string()), ("n", pa.list_(pa.int64()))])),
         [[{"sku": "a", "n": [1]}, None], [{"sku": None, "n": None}]]),
        ([[[1], []], [[2, 3]]], pa.list_(pa.list_(pa.int64())), [[[1], []], [[2, 3]]]),
        # Mixed types in one field: text, in which every value can be told.
        (["x", 1, 2.5, True, NOON, IDENTITY, UNIQUE, {"a": [1, IDENTITY]}], pa.string(),
         ["x", "1", "2.5", "true", "2024-07-01T12:00:00.123Z", str(IDENTITY), str(UNIQUE),
          '{"a": [1, {"$oid": "65f000000000000000000001"}]}']),
        ([Regex("^a", "i")], pa.string(), ['{"$regularExpression": {"pattern": "^a", "options": "i"}}']),
        ([Code("f()", {"x": 1}), Code("g()")], pa.string(),
         ['{"$code": "f()", "$scope": {"x": 1}}', '{"$code": "g()"}']),
        ([MinKey(), MaxKey(), Timestamp(5, 6)], pa.string(),
         ['{"$minKey": 1}', '{"$maxKey": 1}', '{"$timestamp": {"t": 5, "i": 6}}']),
        ([{}, {}], pa.string(), ["{}", "{}"]),
        ([[], []], pa.list_(pa.string()), [[], []]),
    ],
)  # fmt: skip
def test_values_arrive_exactly(
    server: MongoServer, database: Any, values: list[Any], type_: Any, expected: Any
) -> None:
    with_options = database.c.with_options(codec_options=database.codec_options)
    with_options.insert_many([{"_id": n, "v": value} for n, value in enumerate(values)])
    table, unreadable, _ = drain(source_of(server, database).read(stream(), None))
    assert not unreadable
    assert table.schema.field("v").type == type_
    assert repr(table.column("v").to_pylist()) == repr(pa.array(expected, type_).to_pylist())


def test_nan_is_no_null_and_a_missing_field_is_one(server: MongoServer, database: Any) -> None:
    database.c.insert_many([{"_id": 0, "v": float("nan")}, {"_id": 1, "v": None}, {"_id": 2}])
    table, _, _ = drain(source_of(server, database).read(stream(), None))
    assert str(table.column("v").to_pylist()) == "[nan, None, None]"


def test_what_does_not_fit_goes_to_unreadable_and_the_rest_is_read(server: MongoServer, database: Any) -> None:
    """The types of the first read stay; values that they cannot hold exactly set their document aside, whole."""
    good = {"_id": 0, "n": 1, "f": 0.5, "t": NOON, "d": {"x": 1}, "l": [1], "p": Decimal128("1.25")}
    database.c.insert_one(good)
    source = source_of(server, database)
    _, _, position = drain(source.read(stream(), None))
    odd = [
        {"n": 1.5}, {"n": "1"}, {"f": Int64(2**53 + 1)}, {"t": DatetimeMS(2**60)}, {"t": "soon"}, {"d": {"x": "y"}},
        {"d": [1]}, {"l": [1, "two"]}, {"l": 3}, {"p": Decimal128("1.255")}, {"p": Decimal128("NaN")}, {"N": 5},
    ]  # fmt: skip
    database.c.insert_many([{"_id": n, **values} for n, values in enumerate(odd, 1)])
    # These are other types, and fit all the same.
    database.c.insert_one({"_id": 99, "n": 2.0, "f": 3, "p": Decimal128("1.5000"), "d": {"y": 1}, "new": "x"})
    table, unreadable, _ = drain(source.read(stream(), json.loads(json.dumps(position))))
    assert table.column("_id").to_pylist() == [0, 99]
    last = table.to_pylist()[1]
    assert last == {"_id": 99, "n": 2, "f": 3.0, "t": None, "d": {"x": None, "y": 1}, "l": None, "p": Decimal("1.50"),
                    "new": "x"}  # fmt: skip
    assert len(unreadable) == len(odd)
    for record, values in zip(unreadable, odd, strict=True):
        (key,) = values
        assert repr(key) in record["reason"] if key == "N" else record["reason"].startswith(key)
        assert key in json.loads(record["raw"])
        assert record["origin"] == f"{database.name}.c"
    assert json.loads(unreadable[0]["raw"]) == {"_id": {"$numberInt": "1"}, "n": {"$numberDouble": "1.5"}}


def test_text_that_is_not_utf8_and_a_key_twice_are_unreadable(server: MongoServer, database: Any) -> None:
    invalid = bson.encode({"_id": 1, "v": "XY"}).replace(b"XY", b"\xff\xfe")
    twice = bson.encode({"_id": 2, "a": 1, "b": 2}).replace(b"\x10b\0", b"\x10a\0")
    database.c.insert_many([{"_id": 0, "v": "fine"}])
    for raw in (invalid, twice):
        database.command("insert", "c", documents=[RawBSONDocument(raw)])
    table, unreadable, _ = drain(source_of(server, database).read(stream(), None))
    assert table.to_pylist() == [{"_id": 0, "v": "fine"}]
    assert [("UTF-8" in u["reason"], "twice" in u["reason"]) for u in unreadable] == [(True, False), (False, True)]
    assert unreadable[0]["raw"] == invalid


def test_declared_types_come_before_those_found(server: MongoServer, database: Any) -> None:
    database.c.insert_one({"_id": 1, "v": Decimal128("1.5"), "day": datetime(2024, 2, 29), "at": "2024-01-01T00:00:00Z",
                           "d": {"x": 1}, "l": [1]})  # fmt: skip
    columns = {"v": "decimal(12,2)", "day": "date", "at": "timestamptz", "d": "string", "l": ["float64"]}
    table, unreadable, _ = drain(source_of(server, database).read(stream(columns=columns), None))
    assert not unreadable
    assert table.schema.names == ["_id", "v", "day", "at", "d", "l"]
    expected = {"_id": 1, "v": Decimal("1.50"), "day": date(2024, 2, 29), "at": datetime(2024, 1, 1, tzinfo=UTC),
                "d": '{"x": 1}', "l": [1.0]}  # fmt: skip
    assert table.to_pylist() == [expected]
    with pytest.raises(ConfigurationError, match="no type 'number'"):
        source_of(server, database).read_schema(stream(columns={"v": "number"}))


def test_filter_and_fields(server: MongoServer, database: Any) -> None:
    database.c.insert_many(
        [{"_id": n, "at": NOON + timedelta(days=n), "a": {"x": n, "y": n}, "z": n} for n in range(4)]
    )
    chosen = {"at": {"$gte": {"$date": "2024-07-03T00:00:00Z"}}}
    source = source_of(server, database)
    table, _, _ = drain(source.read(stream(filter=chosen, fields=["a.x"]), None))
    assert table.to_pylist() == [{"_id": 2, "a": {"x": 2}}, {"_id": 3, "a": {"x": 3}}]
    estimate = source.estimate(stream(filter=chosen), None)
    assert estimate.rows == 2
    with pytest.raises(ConfigurationError, match="filter"):
        source.read_schema(stream(filter={"at": {"$date": "yesterday"}}))


def test_a_window_is_half_open_and_has_no_position(server: MongoServer, database: Any) -> None:
    edges = [
        NOON - timedelta(milliseconds=1),
        NOON,
        NOON + timedelta(hours=1, milliseconds=-1),
        NOON + timedelta(hours=1),
    ]
    database.c.insert_many([{"_id": n, "at": at, "s": "x"} for n, at in enumerate(edges)])
    source = source_of(server, database)
    # Half a millisecond later than a value that BSON can hold: the value before it is outside.
    for shift, expected in ((timedelta(0), [1, 2]), (timedelta(microseconds=500), [2, 3])):
        window = Window("at", NOON + shift, NOON + timedelta(hours=1) + shift)
        table, _, _ = drain(source.read(stream(window=window), None))
        assert table.column("_id").to_pylist() == expected
    with pytest.raises(ConfigurationError, match="no date"):
        drain(source.read(stream(window=Window("s", NOON, NOON)), None))
    with pytest.raises(NotFoundError, match="no_such"):
        drain(source.read(stream(window=Window("no_such", NOON, NOON)), None))


MIXED_IDS: list[Any] = [None, -1.5, 7, Int64(2**40), "x", {"a": 1}, IDENTITY, True, NOON, UNIQUE]


def test_ids_of_every_type_are_read_once_however_the_read_is_cut(server: MongoServer, database: Any) -> None:
    """A filter `_id > last` would leave out every id of another type; ranges of the index do not."""
    ids = MIXED_IDS + [f"s{n:03d}" for n in range(50)] + list(range(100, 150))
    database.c.insert_many([{"_id": identity, "n": n} for n, identity in enumerate(ids)])
    naive = list(database.c.find({"_id": {"$gt": 120}}))
    assert len(naive) < 29 + 1 + 50
    for options, broken in (({}, 3), ({"parallel": 4}, 0), ({"consistency": "majority"}, 2)):
        with failing(database.client, {"times": broken, "skip": 1}, failCommands=["getMore"], errorCode=43):
            source = source_of(server, database, resilience={"attempts": 5, "first_wait": 0.01})
            table, unreadable, _ = drain(source.read(stream(**options), None, batch_rows=7))
        assert not unreadable
        assert sorted(table.column("n").to_pylist()) == list(range(len(ids))), options


def test_a_read_is_of_one_moment(server: MongoServer, database: Any) -> None:
    """What is written, changed or deleted while the read goes on is not part of it, even where its cursor was lost."""
    database.c.insert_many([{"_id": n, "v": 0} for n in range(300)])
    batches = source_of(server, database).read(stream(), None, batch_rows=50)
    seen = next(batches).data.to_pylist()
    database.c.update_many({}, {"$set": {"v": 1}})
    database.c.delete_many({"_id": {"$gte": 290}})
    database.c.insert_one({"_id": 1000, "v": 1})
    with failing(database.client, {"times": 1}, failCommands=["getMore"], errorCode=43):
        seen += [row for batch in batches for row in batch.data.to_pylist()]
    assert seen == [{"_id": n, "v": 0} for n in range(300)]
    table, _, _ = drain(source_of(server, database).read(stream(consistency="majority"), None))
    assert table.num_rows == 291


def test_a_server_that_is_alone_and_a_view_can_be_read(server: MongoServer, database: Any) -> None:
    database.c.insert_many([{"_id": n, "v": n % 2} for n in range(10)])
    database.create_collection("odd", viewOn="c", pipeline=[{"$match": {"v": 1}}])
    table, _, _ = drain(source_of(server, database).read(stream("odd"), None))
    assert table.column("_id").to_pylist() == [1, 3, 5, 7, 9]
    with running_mongo(standalone=True) as alone, alone.client() as client:
        client.shop.c.insert_many([{"_id": n} for n in range(10)])
        source = MongoSource(**alone.settings())
        table, _, _ = drain(source.read(stream(), None, batch_rows=3))
        assert table.column("_id").to_pylist() == list(range(10))


def test_a_connection_that_is_reset_half_way_is_made_again(server: MongoServer, database: Any) -> None:
    database.c.insert_many([{"_id": n, "text": "x" * 200} for n in range(2000)])
    with wire_to(server.port) as wire:
        batches = source_of(server, database, port=wire.port).read(stream(), None, batch_rows=100)
        ids = next(batches).data.column("_id").to_pylist()
        for batch in batches:
            ids += batch.data.column("_id").to_pylist()
            if len(ids) in {300, 1200}:
                wire.break_now()
    assert ids == list(range(2000))


def test_a_server_that_falls_silent_is_given_up(server: MongoServer, database: Any) -> None:
    database.c.insert_many([{"_id": n, "text": "x" * 200} for n in range(3000)])
    with wire_to(server.port, stall_after=300_000) as wire:
        patience = {"attempts": 1, "timeout": 1, "silence": 0.5}
        source = source_of(server, database, port=wire.port, resilience=patience)
        seen: list[Batch] = []
        with pytest.raises(UnavailableError, match=r"timed out|cancelled"):
            seen.extend(source.read(stream(), None, batch_rows=500))
    assert sum(batch.data.num_rows for batch in seen) < 3000


def test_a_server_that_is_restarted_half_way_loses_and_doubles_nothing() -> None:
    with running_mongo(durable=True) as server, server.client() as client:
        client.shop.c.insert_many([{"_id": n} for n in range(500)])
        settings = server.settings(resilience={"attempts": 8, "first_wait": 0.2, "timeout": 3})
        batches = MongoSource(**settings).read(stream(), None, batch_rows=50)
        ids = next(batches).data.column("_id").to_pylist()
        server.stop()
        again = threading.Timer(0.3, server.start)
        again.start()
        ids += [i for batch in batches for i in batch.data.column("_id").to_pylist()]
        again.join()
    assert ids == list(range(500))


def test_a_window_is_not_begun_again_half_way(server: MongoServer, database: Any) -> None:
    """It has no order in which it could go on: an error, and nothing twice."""
    database.c.insert_many([{"_id": n, "at": NOON} for n in range(100)])
    window = Window("at", NOON, NOON + timedelta(hours=1))
    batches = source_of(server, database).read(stream(window=window), None, batch_rows=10)
    with failing(database.client, {"times": 1, "skip": 2}, failCommands=["getMore"], errorCode=43):
        seen = []
        with pytest.raises(UnavailableError, match="43"):
            seen.extend(batches)
    assert sum(batch.data.num_rows for batch in seen) < 100


@pytest.mark.parametrize(("host", "hint"), [("127.0.0.1:1", "running"), ("no-such-host.invalid:1", "host name")])
def test_nobody_there_is_tried_again_and_then_said(host: str, hint: str) -> None:
    settings = {"uri": f"mongodb://{host}", "database": "d", "tls": False}
    source = MongoSource(**settings, resilience={"attempts": 2, "first_wait": 0.01, "timeout": 0.3})
    with pytest.raises(UnavailableError) as caught:
        source.read_schema(stream())
    assert host in caught.value.where
    assert hint in caught.value.fix
    assert "Topology" not in str(caught.value)


def test_a_password_is_in_no_message_and_no_repr(server: MongoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGO_PASSWORD", "geheim/:@ im Wort")
    source = MongoSource(**server.settings(password=Secret(env="MONGO_PASSWORD")))
    with pytest.raises(CredentialsRejectedError) as caught:
        source.ping()
    assert "auth_source" in caught.value.fix
    texts = [repr(source), str(source.model_dump()), source.address]
    error: BaseException | None = caught.value
    while error is not None:
        texts += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    for uri in ("mongodb://etl:geheim@h/", "mongodb+srv://etl:geheim@h/", "geheim"):
        with pytest.raises(ConfigurationError) as refused:
            MongoSource(uri=uri, database="d")
        texts += [str(refused.value), repr(refused.value)]
    assert not any("geheim" in text for text in texts)


@pytest.mark.parametrize("option", ["tls=false", "tlsInsecure=true", "tlsAllowInvalidCertificates=true", "ssl=false",
                                    "authMechanismProperties=AWS_SESSION_TOKEN:x"])  # fmt: skip
def test_a_uri_cannot_weaken_what_the_settings_say(option: str) -> None:
    with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
        MongoSource(uri=f"mongodb://h/?replicaSet=rs0&{option}", database="d")


def test_a_right_that_is_missing_is_said(server: MongoServer, database: Any) -> None:
    database.c.insert_one({"_id": 1})
    refusal = {"failCommands": ["find"], "errorCode": 13, "codeName": "Unauthorized"}
    with failing(database.client, {"times": 1}, **refusal), pytest.raises(CredentialsRejectedError) as caught:
        source_of(server, database).read_schema(stream())
    assert "grant" in caught.value.fix


@pytest.mark.parametrize("code", [239, 246])
def test_a_snapshot_that_the_server_no_longer_keeps_is_not_tried_again(
    server: MongoServer, database: Any, code: int
) -> None:
    database.c.insert_many([{"_id": n} for n in range(50)])
    fails = failing(database.client, {"times": 1}, failCommands=["getMore"], errorCode=code)
    with fails, pytest.raises(ConfigurationError) as caught:
        list(source_of(server, database).read(stream(), None, batch_rows=10))
    assert "minSnapshotHistoryWindowInSeconds" in caught.value.fix
    assert "consistency: majority" in caught.value.fix


def test_a_certificate_is_verified(tmp_path: Path) -> None:
    """With the right authority a connection is made; with another one, and to a server without TLS, it is not."""
    authority, other = trustme.CA(), trustme.CA()
    certificate, known, unknown = (str(tmp_path / name) for name in ("server.pem", "ca.pem", "other.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(known)
    other.cert_pem.write_to_path(unknown)
    quick = {"attempts": 1, "timeout": 1}
    with running_mongo(certificate=certificate) as server:
        settings = {k: v for k, v in server.settings(resilience=quick).items() if k != "tls"}
        assert MongoSource(**settings, tls_ca_file=known).ping()
        for wrong in ({"tls_ca_file": unknown}, {}):
            with pytest.raises(ConfigurationError) as caught:
                MongoSource(**settings, **wrong).ping()
            assert "tls_ca_file" in caught.value.fix
        with pytest.raises(ConfigurationError):
            MongoSource(**settings, tls_ca_file=str(tmp_path / "none.pem")).ping()
        with pytest.raises(UnavailableError):
            MongoSource(**settings, tls=False).ping()
    plain = shared_mongo().settings(resilience={"attempts": 1, "timeout": 2})
    with pytest.raises(EtlError, match=r"SSL|No servers found"):
        MongoSource(**{**plain, "tls": True}).ping()


def test_names_that_are_not_there_come_with_the_nearest_that_are(server: MongoServer, database: Any) -> None:
    database.orders.insert_one({"_id": 1, "amount": 1})
    source = source_of(server, database)
    for named, near in ((stream("order"), "orders"), (stream("orders", fields=["amonut"]), "amount")):
        with pytest.raises(NotFoundError) as caught:
            drain(source.read(named, None))
        assert near in caught.value.fix
    without = Stream("s", MongoStreamOptions(collection="orders", fields=["amount"]), Incremental(cursor="at"))
    with pytest.raises(ConfigurationError, match="leaves out at"):
        drain(source.read(without, None))


def test_names_of_the_platform_are_refused(server: MongoServer, database: Any) -> None:
    database.c.insert_one({"_id": 1, "_batch": 1})
    with pytest.raises(ConfigurationError, match="_batch"):
        drain(source_of(server, database).read(stream(), None))


@pytest.mark.parametrize("options", [{}, {"collection": "c", "colums": {}}, {"collection": "c", "parallel": 0}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"collection|colums|parallel"):
        MongoStreamOptions(**options)


def test_an_empty_collection_is_one_batch_without_rows(server: MongoServer, database: Any) -> None:
    database.create_collection("c")
    (batch,) = source_of(server, database).read(stream(), None)
    assert (batch.data.num_rows, batch.rows_read) == (0, 0)
    assert batch.position is not None


def test_a_reader_that_stops_early_leaves_no_thread_and_no_cursor(server: MongoServer, database: Any) -> None:
    database.c.insert_many([{"_id": n} for n in range(500)])
    before = open_cursors(database)
    batches: Any = source_of(server, database).read(stream(parallel=3), None, batch_rows=10)
    next(batches)
    assert open_cursors(database) > before
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("etl-mongodb")]
    assert open_cursors(database) == before


def open_cursors(database: Any) -> int:
    return int(database.client.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"])
