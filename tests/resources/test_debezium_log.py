"""Debezium's topics as a change log: its conventions become types, its faults no doubles, its gaps are told."""

from __future__ import annotations

import io
import itertools
import json
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
import yaml

from etl_assets.bronze import Bronze
from etl_assets.capture import Capture
from etl_assets.run import Run
from etl_assets.silver import Silver, SilverSpec
from etl_resources.change_log import LogTable, event_fields
from etl_resources.changes import debezium, debezium_rows
from etl_resources.changes.debezium import DebeziumLog
from etl_resources.changes.debezium_settings import DebeziumLogCapture
from etl_resources.changes.debezium_types import Kind, converted, decimals
from etl_resources.engines.duckdb import DuckDB
from etl_resources.exceptions import ConfigurationError, LogLostError
from etl_resources.lake import Lake
from etl_resources.source import LogCapture, Stream
from etl_resources.sources.kafka import KafkaSource, KafkaStreamOptions
from tests.resources.mongodb_landing import Killed, Landing
from tests.servers.kafka import Kafka, shared_kafka
from tests.servers.schema_registry import SchemaRegistry, running_registry

FILES = Path(__file__).parent / "debezium"
NAMES = (f"dbz.{n}" for n in itertools.count())
NOON = datetime(2024, 7, 1, 12, 0, 0, 123456, UTC)


@pytest.fixture
def kafka() -> Kafka:
    return shared_kafka()


def messages(file: str) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Yield (value, key) as the connector would send them."""
    for line in (FILES / f"{file}.jsonl").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        yield tuple(  # type: ignore[misc]
            None if found[k] is None else json.dumps(found[k], ensure_ascii=False, separators=(",", ":")).encode()
            for k in ("value", "key")
        )


def log_of(kafka: Kafka, *topics: str, key: tuple[str, ...] = ("id",), **settings: Any) -> DebeziumLog:
    capture = {k: settings.pop(k) for k in list(settings) if k in DebeziumLogCapture.model_fields}
    options = {k: settings.pop(k) for k in ("format",) if k in settings}
    source = KafkaSource(
        servers=kafka.servers, security="plaintext", resilience={"timeout": 5, "silence": 10}, **settings
    )  # type: ignore[arg-type,unused-ignore]
    tables = [LogTable(Stream(t, KafkaStreamOptions(type="kafka", topic=t, **options)), key) for t in topics]
    log = source.change_log("p", tables, DebeziumLogCapture(**capture))
    assert isinstance(log, DebeziumLog)
    return log


def landed(kafka: Kafka, file: str, **options: Any) -> tuple[Landing, DebeziumLog, str]:
    topic = kafka.topic(next(NAMES))
    kafka.produce(topic, messages(file))
    lake, log = Landing([topic]), log_of(kafka, topic, **options)
    lake.land(log)
    return lake, log, topic


def test_postgres_with_schemas_arrives_in_its_types(kafka: Kafka) -> None:
    lake, log, topic = landed(kafka, "postgres_with_schema")
    assert not lake.unreadable[topic]
    rows = lake.rows[topic]
    assert [(r["_op"], r["id"]) for r in rows] == [
        ("read", 1), ("read", 2), ("insert", 3), ("update", 3), ("update", 1), ("delete", 2), ("delete", 3),
        ("insert", 4), ("insert", 5), ("truncate", None), ("insert", 6),
    ]  # fmt: skip
    first = {k: v for k, v in rows[0].items() if not k.startswith("_")}
    assert first == {
        "id": 1, "price": Decimal("12.50"), "day": date(2024, 7, 1), "at": NOON.replace(tzinfo=None), "seen": NOON,
        "open": "12:30:00", "note": "ü", "blob": b"\0\xff", "doc": '{"a": 1}', "tags": ["x", None],
    }  # fmt: skip
    assert [r["price"] for r in rows[1:3]] == [Decimal("-0.01"), Decimal("99999999.99")]
    assert rows[3]["_unchanged"] == ["note", "blob", "tags"]
    assert (rows[3]["note"], rows[3]["blob"], rows[3]["tags"]) == (None, None, None)
    assert rows[4]["at"] == datetime(1969, 12, 31, 23, 59, 59, 999999)
    assert rows[4]["_before"]["price"] == Decimal("12.50")
    assert (rows[5]["price"], rows[5]["_before"]["id"]) == (None, 2)
    assert (rows[2]["_xid"], rows[2]["_commit_ts"]) == ("10", NOON)
    assert [r["_pos"] for r in rows] == [1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13]
    assert [r["_seq"] for r in rows[:3]] == [-1, -1, 0]
    assert rows[8]["extra"] == 2.5
    assert lake.positions[topic]["tombstones"] == 2
    assert set(lake.state(topic, "id")) == {6}
    boundary = lake.land(log)
    assert boundary is not None
    assert boundary.caught_up
    assert len(lake.rows[topic]) == 11


def test_postgres_without_schemas_is_what_json_tells(kafka: Kafka) -> None:
    lake, _, topic = landed(kafka, "postgres_without_schema")
    assert not lake.unreadable[topic]
    rows = lake.rows[topic]
    assert len(rows) == 11
    assert rows[3]["_unchanged"] == ["note", "blob", "tags"]
    assert (rows[0]["day"], rows[0]["note"], rows[8]["extra"]) == (19905, "ü", 2.5)


def test_what_debezium_sends_again_is_counted_and_not_landed(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, _, topic = landed(kafka, "mysql_redelivered")
    assert [(r["_op"], r["id"]) for r in lake.rows[topic]] == [
        ("insert", 1), ("insert", 2), ("update", 1), ("delete", 2), ("update", 1),
    ]  # fmt: skip
    assert lake.repeated == 2
    assert lake.rows[topic][1]["_xid"] == "file=binlog.000003,pos=100"
    assert lake.rows[topic][-1]["_before"]["price"] == "2.50"
    # The memory is in the position: what comes again in a later run is known, too.
    topic = kafka.topic(next(NAMES))
    lake, log = Landing([topic]), log_of(kafka, topic)
    for message in messages("mysql_redelivered"):
        kafka.produce(topic, [message])
        lake.land(log)
    assert (len(lake.rows[topic]), lake.repeated) == (5, 2)
    monkeypatch.setattr(debezium_rows.Memory, "again", lambda *_: False)
    forgetful, _, other = landed(kafka, "mysql_redelivered")
    assert len(forgetful.rows[other]) == 7


def test_a_kill_anywhere_neither_loses_nor_doubles(kafka: Kafka) -> None:
    a, b = (kafka.topic(next(NAMES), 3) for _ in range(2))
    for topic in (a, b):
        kafka.produce(topic, _life(topic, 60))
    lake, chance = Landing([a, b]), random.Random(1)
    log = log_of(kafka, a, b, most=17, remember=0)
    for round_ in range(12):
        with suppress(Killed):
            lake.land(log, kill=lambda _: chance.random() < 0.1)
        kafka.produce(a, _life(a, 5, start=1000 + 10 * round_))
    lake.land(log)
    assert len(lake.rows[b]) == 180
    assert len(lake.rows[a]) == 180 + 12 * 15
    for topic in (a, b):
        assert not lake.doubled(topic)
        assert all(row["v"] == 2 for row in lake.state(topic, "id").values())
        chains: dict[int, list[Any]] = {}
        for row in lake.events(topic):
            chains.setdefault(row["id"], []).append((row["_op"], row["v"]))
        assert all(c == [("insert", 0), ("update", 1), ("update", 2)] for c in chains.values())


def _life(topic: str, keys: int, start: int = 0, partitions: int = 3) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield an insert and two updates of some keys, each key in one partition."""
    for v in range(3):
        for key in range(start, start + keys):
            source = {"connector": "postgresql", "name": topic, "lsn": v * 100_000 + key, "txId": v, "ts_ms": 5}
            body = {"before": None, "after": {"id": key, "v": v}, "source": source, "op": "cuu"[v], "ts_ms": 6}
            yield json.dumps(body).encode(), json.dumps({"id": key}).encode(), key % partitions


def test_a_mutant_that_forgets_the_offsets_is_found(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = debezium.position_of
    monkeypatch.setattr(debezium, "position_of", lambda s, c: {**whole(s, c), "topics": {}})
    with pytest.raises(AssertionError):
        test_a_kill_anywhere_neither_loses_nor_doubles(kafka)


def test_what_is_no_envelope_is_told_and_blocks_nobody(kafka: Kafka) -> None:
    topic = kafka.topic(next(NAMES))
    good = list(_life(topic, 2, partitions=1))
    odd = [(b"not json", b'{"id": 7}'), (b'{"op": "x", "after": {"id": 8}}', b'{"id": 8}'),
           (b'{"op": "d", "before": null, "after": null, "source": {"connector": "postgresql"}}', b'{"id": 9}'),
           (b'{"op": "m", "source": {"connector": "postgresql"}}', None)]  # fmt: skip
    kafka.produce(topic, [*good[:2], *odd, *good[2:]])
    lake = Landing([topic])
    lake.land(log_of(kafka, topic))
    assert len(lake.rows[topic]) == 6
    told = [json.loads(u["raw"]) for u in lake.unreadable[topic]]
    assert {t["key"]["id"] for t in told} == {7, 8, 9}


def test_mongodb_s_documents_become_columns(kafka: Kafka) -> None:
    lake, _, topic = landed(kafka, "mongodb", key=("_id",))
    assert not lake.unreadable[topic]
    identity = "65f000000000000000000001"
    rows = lake.rows[topic]
    assert [(r["_op"], r["_id"], r["n"], r["_unchanged"]) for r in rows] == [
        ("insert", identity, 5, None), ("update", identity, 6, None), ("update", identity, None, ["n", "at", "e"]),
        ("delete", identity, None, None),
    ]  # fmt: skip
    assert rows[0]["e"] == {"x": [1, 2]}


def test_avro_with_a_registry_arrives_in_its_types(kafka: Kafka) -> None:
    """Connect's names of meaning in Avro, a schema that grows in the topic, and the placeholder in bytes."""
    connect, dbz = "org.apache.kafka.connect.data.", "io.debezium.time."
    decimal = {"logicalType": "decimal", "connect.name": f"{connect}Decimal"}
    price = {"type": "bytes", "scale": 2, "precision": 10, **decimal}
    fields: list[dict[str, Any]] = [
        {"name": "id", "type": "int"}, {"name": "price", "type": ["null", price]},
        {"name": "day", "type": ["null", {"type": "int", "connect.name": f"{dbz}Date"}]},
        {"name": "at", "type": ["null", {"type": "long", "connect.name": f"{dbz}MicroTimestamp"}]},
        {"name": "seen", "type": ["null", {"type": "string", "connect.name": f"{dbz}ZonedTimestamp"}]},
        {"name": "blob", "type": ["null", "bytes"]},
        {"name": "tags", "type": ["null", {"type": "array", "items": "string"}]},
    ]  # fmt: skip
    at = 1_719_835_200_123_456
    row = {"id": 1, "price": Decimal("12.50"), "day": 19905, "at": at, "seen": "2024-07-01T12:00:00.123456Z",
           "blob": b"\0\xff", "tags": ["x"]}  # fmt: skip
    gone = b"__debezium_unavailable_value"
    source = {"connector": "postgresql", "ts_ms": 1_719_835_200_123, "txId": 7, "lsn": 1, "name": "s"}
    with running_registry() as registry:
        first, second = (_avro(registry, f) for f in (fields, [*fields, {"name": "extra", "type": ["null", "double"]}]))
        topic = kafka.topic(next(NAMES))
        bodies = [
            first({"before": None, "after": row, "op": "c", "source": source}),
            first({"before": None, "after": {**row, "blob": gone, "tags": [gone.decode()]}, "op": "u",
                   "source": {**source, "lsn": 2}}),
            second({"before": None, "after": {**row, "extra": 0.5}, "op": "u", "source": {**source, "lsn": 3}}),
            second({"before": {**dict.fromkeys(row), "id": 1}, "after": None, "op": "d",
                    "source": {**source, "lsn": 4}}),
        ]  # fmt: skip
        kafka.produce(topic, [(body, b"k") for body in [*bodies, bodies[1], b"\0\0\0\0\x09x"]])
        log = log_of(kafka, topic, registry=registry.url, format="avro")
        lake = Landing([topic])
        lake.land(log)
    rows = lake.rows[topic]
    assert [(r["_op"], r["_unchanged"]) for r in rows] == [
        ("insert", None), ("update", ["blob", "tags"]), ("update", None), ("delete", None)
    ]  # fmt: skip
    assert {k: v for k, v in rows[0].items() if k[0] != "_"} == {
        **row, "day": date(2024, 7, 1), "at": NOON.replace(tzinfo=None), "seen": NOON,
    }  # fmt: skip
    assert rows[2]["extra"] == 0.5
    assert (rows[0]["_xid"], rows[0]["_commit_ts"]) == ("7", NOON.replace(microsecond=123000))
    assert lake.repeated == 1
    assert len(lake.unreadable[topic]) == 1


def test_a_column_that_becomes_another_type_does_not_stop_the_stream(kafka: Kafka) -> None:
    topic = kafka.topic(next(NAMES))
    number = list(messages("postgres_with_schema"))[2]
    assert number[0] is not None
    changed = json.loads(number[0])
    for side in changed["schema"]["fields"][:2]:
        (day,) = [f for f in side["fields"] if f["field"] == "day"]
        day.clear()
        day.update({"field": "day", "type": "string", "optional": True})
    changed["payload"]["after"] |= {"day": "monday", "id": 4}
    kafka.produce(topic, [number, (json.dumps(changed).encode(), b'{"id": 4}')])
    lake = Landing([topic])
    lake.land(log_of(kafka, topic))
    assert [r["day"] for r in lake.rows[topic]] == [date(2024, 7, 1), "monday"]


def _avro(registry: SchemaRegistry, fields: list[dict[str, Any]]) -> Any:
    value = {"type": "record", "name": "Value", "fields": fields[:1] + [{**f, "default": None} for f in fields[1:]]}
    source = {"type": "record", "name": "Source", "fields": [
        {"name": "connector", "type": "string"}, {"name": "name", "type": "string"}, {"name": "ts_ms", "type": "long"},
        {"name": "txId", "type": ["null", "long"]}, {"name": "lsn", "type": ["null", "long"]},
    ]}  # fmt: skip
    schema = {"type": "record", "name": "Envelope", "fields": [
        {"name": "before", "type": ["null", value]}, {"name": "after", "type": ["null", "Value"]},
        {"name": "source", "type": source}, {"name": "op", "type": "string"},
    ]}  # fmt: skip
    number, parsed = registry.register("t-value", json.dumps(schema)), fastavro.parse_schema(schema)

    def write(envelope: dict[str, Any]) -> bytes:
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, parsed, envelope)
        return b"\0" + number.to_bytes(4, "big") + stream.getvalue()

    return write


def test_lost_messages_and_another_cluster_are_said(kafka: Kafka) -> None:
    lake, log, topic = landed(kafka, "mysql_redelivered")
    assert log.state(lake.positions).state == "ok"
    position = lake.positions[topic]
    lake.positions[topic] = {**position, "topics": {topic: {"0": 999}}}
    assert log.state(lake.positions).state == "lost"
    with pytest.raises(LogLostError, match="made anew"):
        lake.land(log)
    lake.positions[topic] = {**position, "cluster": "another"}
    with pytest.raises(LogLostError, match="another cluster"):
        lake.land(log)
    lake.positions[topic] = log.renewed(position)
    lake.land(log)
    assert len(lake.rows[topic]) == 10
    assert not lake.doubled(topic)
    assert [f.level for f in log.preflight()] == ["ok"]


def test_all_the_way_to_silver_with_a_kill_between(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic(next(NAMES), 3)
    kafka.produce(topic, _life(topic, 20))
    log = log_of(kafka, topic, most=15)
    table = log.tables[0]
    stream = Stream(topic, table.stream.options, log.capture)
    lake, engine = Lake(uri=str(tmp_path)), DuckDB(threads=1)
    bronze = Bronze(lake, "p", stream)

    def schema() -> pa.Schema:
        row = log.source.read_schema(stream)
        return pa.schema([*row, *event_fields(row)])

    def follow(run: str, **more: Any) -> None:
        log_ = DebeziumLog(log.source, "p", [LogTable(stream, ("id",))], log.capture)
        Capture({topic: bronze}, log_, engine).follow(Run(run), {topic: schema}, **more)

    with pytest.raises(Killed):
        follow("one", after=lambda *_: (_ for _ in ()).throw(Killed))
    follow("two")
    kafka.produce(topic, _life(topic, 5, start=100))
    follow("three")
    handle = bronze.table.open()
    assert handle is not None
    rows = handle.delta.to_pyarrow_table().to_pylist()
    assert len(rows) == 75
    assert len({(r["_pos"], r["_seq"]) for r in rows}) == 75
    Silver(lake, engine, SilverSpec("p", topic, ("id",), log_key=("id",))).refine(Run("four"))
    silver = lake.table("silver", "p", topic).open()
    assert silver is not None
    state = {r["id"]: r["v"] for r in silver.delta.to_pyarrow_table().to_pylist()}
    assert state == dict.fromkeys([*range(20), *range(100, 105)], 2)


def test_what_cannot_be_followed_is_refused() -> None:
    source = KafkaSource(servers="x:1", security="plaintext")
    for options in (
        KafkaStreamOptions(type="kafka", topic="^all"),
        KafkaStreamOptions(type="kafka", topic="t", format="text"),
    ):
        with pytest.raises(ConfigurationError):
            source.change_log("p", [LogTable(Stream("s", options), ("id",))], DebeziumLogCapture())


def test_the_example_of_the_page_runs_and_every_option_is_on_it() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sources" / "debezium.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (stream,) = yaml.safe_load(block)["streams"].values()
    options = KafkaStreamOptions(**{k: v for k, v in stream["source"].items() if k != "connection"})
    source = KafkaSource(servers="x:1")
    log = source.change_log(
        "p", [LogTable(Stream("orders", options), tuple(stream["key"]))], source.log_type(**stream["capture"]["log"])
    )
    assert isinstance(log, DebeziumLog)
    for name in set(DebeziumLogCapture.model_fields) - set(LogCapture.model_fields):
        assert f"`{name}`" in text, name


@pytest.mark.parametrize(
    ("wire", "name", "value", "expected"),
    [
        ("int32", "org.apache.kafka.connect.data.Date", 1, date(1970, 1, 2)),
        ("int64", "org.apache.kafka.connect.data.Timestamp", -1, datetime(1969, 12, 31, 23, 59, 59, 999000)),
        ("int64", "io.debezium.time.Timestamp", 1500, datetime(1970, 1, 1, 0, 0, 1, 500000)),
        ("int64", "io.debezium.time.NanoTimestamp", -1, datetime(1969, 12, 31, 23, 59, 59, 999999)),
        ("int32", "org.apache.kafka.connect.data.Time", 1, "00:00:00.001000"),
        ("int64", "io.debezium.time.NanoTime", 1_000_000_000, "00:00:01"),
        ("int32", "io.debezium.time.Year", 2024, 2024),
    ],
)
def test_a_meaning_of_an_integer(wire: str, name: str, value: int, expected: Any) -> None:
    assert converted(pa.array([value, None]), Kind(wire, name)).to_pylist() == [expected, None]


@pytest.mark.parametrize("number", [0, 1, -1, 127, 128, -128, -129, 10**37, -(10**37), 2**64, 2**100])
def test_a_decimal_of_any_length_is_exact(number: int) -> None:
    octets = number.to_bytes((number.bit_length() + 8) // 8, "big", signed=True)
    found = decimals(pa.array([octets, None, b"\x05"], pa.binary()), 3, 38).to_pylist()
    assert found == [Decimal(number).scaleb(-3, Context(prec=50)), None, Decimal("0.005")]
    huge = (10**50).to_bytes(22, "big")
    assert decimals(pa.array([huge], pa.binary()), 2, 60).to_pylist() == ["1" + "0" * 48 + ".00"]
