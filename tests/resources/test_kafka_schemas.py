"""Messages with a schema in a registry: exact values, schemas that grow, and bytes that keep to none."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    NotFoundError,
    SchemaConflictError,
    UnavailableError,
)
from etl_resources.kafka_avro import AvroDecoder
from etl_resources.kafka_protobuf import ProtobufDecoder
from etl_resources.kafka_registry import Registry
from etl_resources.resilience import Policy
from etl_resources.source import Stream
from etl_resources.sources.kafka import KafkaSource, KafkaStreamOptions
from tests.servers.kafka import shared_kafka
from tests.servers.proxy import free_port
from tests.servers.schema_registry import SchemaRegistry, running_registry

QUICK = Policy(timeout=2, attempts=3, first_wait=0.01)
NONE: frozenset[str] = frozenset()


@pytest.fixture(scope="module")
def registry() -> Iterator[SchemaRegistry]:
    with running_registry() as running:
        yield running


def client(registry: SchemaRegistry, login: tuple[str | None, str] | None = None) -> Registry:
    return Registry(registry.url, login, None, QUICK)


def record(*fields: Any, name: str = "Order") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]}


def framed(number: int, content: bytes) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + content


def avro(registry: SchemaRegistry, schema: Any, *values: Any) -> list[bytes]:
    number = registry.register("orders-value", json.dumps(schema))
    parsed, found = fastavro.parse_schema(schema), []
    for value in values:
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, parsed, value)
        found.append(framed(number, stream.getvalue()))
    return found


def test_avro_values_are_exact_and_in_their_types(registry: SchemaRegistry) -> None:
    logical = {
        "at": {"type": "long", "logicalType": "timestamp-millis"}, "local": {"type": "long",
        "logicalType": "local-timestamp-micros"}, "day": {"type": "int", "logicalType": "date"},
        "hour": {"type": "long", "logicalType": "time-micros"},
        "price": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
    }  # fmt: skip
    colour = {"type": "enum", "name": "Colour", "symbols": ["RED"]}
    tree = record(("next", ["null", "Tree"]), ("v", "int"), name="Tree")
    schema = record(
        ("id", "long"), ("n", "int"), ("x", ["null", "double"]), ("raw", "bytes"), ("colour", colour),
        ("tags", {"type": "array", "items": "string"}), ("sizes", {"type": "map", "values": "int"}),
        ("either", ["null", "int", "string"]), ("item", record(("sku", "string"), name="Item")), ("tree", tree),
        *logical.items(),
    )  # fmt: skip
    value = {
        "id": 2**62, "n": -1, "x": None, "raw": b"\xff", "colour": "RED", "tags": ["a"], "sizes": {"s": 1}, "either": 5,
        "item": {"sku": "é"}, "tree": {"next": {"next": None, "v": 2}, "v": 1},
        "at": datetime(2024, 2, 29, 1, 2, 3, 4000, UTC), "local": datetime(1900, 1, 1), "day": date(2024, 2, 29),
        "hour": time(1, 2, 3, 4), "price": Decimal("1999.90"),
    }  # fmt: skip
    decoded = AvroDecoder(client(registry), {}, NONE).decode(avro(registry, schema, value))
    [row] = decoded.data.to_pylist()
    assert not decoded.bad
    assert row == {
        **value, "sizes": [{"key": "s", "value": 1}], "either": "5", "hour": "01:02:03.000004",
        "tree": {"next": '{"next": null, "v": 2}', "v": 1},
    }  # fmt: skip
    assert decoded.data.schema.field("price").type == pa.decimal128(12, 2)


def test_schemas_that_grow_are_read_side_by_side_in_order(registry: SchemaRegistry) -> None:
    old = avro(registry, record(("id", "int")), {"id": 1}, {"id": 2})
    new = avro(registry, record(("id", "long"), ("note", ["null", "string"])), {"id": 2**40, "note": "x"})
    decoder = AvroDecoder(client(registry), {}, NONE)
    decoder.decode(old)
    kept = json.loads(json.dumps(decoder.dump()))
    got = AvroDecoder(client(registry), kept, NONE).decode([old[0], new[0], None, old[1]])
    assert got.data.to_pylist() == [
        {"id": 1, "note": None}, {"id": 2**40, "note": "x"}, {"id": None, "note": None}, {"id": 2, "note": None},
    ]  # fmt: skip
    with pytest.raises(SchemaConflictError, match="column id"):
        AvroDecoder(client(registry), kept, NONE).decode(avro(registry, record(("id", "string")), {"id": "x"}))


def test_what_keeps_to_no_schema_is_unreadable_alone(registry: SchemaRegistry) -> None:
    [good] = avro(registry, record(("id", "int"), ("s", "string")), {"id": 1, "s": "x"})
    bodies = [good, b"", b"{}", framed(9999, b"x"), good[:-1], good + b"!", good]
    decoder = AvroDecoder(client(registry), {}, NONE)
    got = decoder.decode(bodies)
    assert got.data.column("id").to_pylist() == [1, 1]
    assert [n for n, _ in got.bad] == [1, 2, 3, 4, 5]
    registry.asked.clear()
    decoder.decode([framed(9999, b"x")] * 50)
    assert len(registry.asked) == 1, "an id that is not there is not asked for with every message"


def test_references_are_followed(registry: SchemaRegistry) -> None:
    item = record(("sku", "string"), name="Item")
    registry.register("item", json.dumps(item))
    order = record(("item", "Item"))
    references = [{"name": "Item", "subject": "item", "version": 1}]
    number = registry.register("order", json.dumps(order), references=references)
    got = AvroDecoder(client(registry), {}, NONE).decode([framed(number, b"\x02x")])
    assert got.data.to_pylist() == [{"item": {"sku": "x"}}]


def proto(registry: SchemaRegistry) -> tuple[int, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    colour = file.enum_type.add(name="Colour")
    colour.value.add(name="NONE", number=0)
    colour.value.add(name="RED", number=1)
    outer = file.message_type.add(name="Outer")
    message = outer.nested_type.add(name="Order")
    field = descriptor_pb2.FieldDescriptorProto
    message.oneof_decl.add(name="_note")
    message.field.add(name="id", number=1, type=field.TYPE_UINT64, label=1)
    message.field.add(name="note", number=2, type=field.TYPE_STRING, label=1, proto3_optional=True, oneof_index=0)
    message.field.add(name="colour", number=3, type=field.TYPE_ENUM, label=1, type_name=".shop.Colour")
    message.field.add(name="tags", number=4, type=field.TYPE_STRING, label=3)
    message.field.add(name="at", number=5, type=field.TYPE_MESSAGE, label=1, type_name=".google.protobuf.Timestamp")
    message.field.add(name="next", number=6, type=field.TYPE_MESSAGE, label=1, type_name=".shop.Outer.Order")
    number = registry.register("shop", base64.b64encode(file.SerializeToString()).decode(), "PROTOBUF")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return number, message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Outer.Order"))


def test_protobuf_is_read_by_the_descriptor_of_the_registry(registry: SchemaRegistry) -> None:
    number, order = proto(registry)
    first = order(id=2**64 - 1, note="", colour=1, tags=["a"], next=order(id=1))
    first.at.FromDatetime(datetime(2024, 2, 29, tzinfo=UTC))
    path = b"\x04\x00\x00"  # two indexes (zigzag): message 0, nested message 0
    bodies = [framed(number, path + m.SerializeToString()) for m in (first, order(id=2, colour=7))]
    bodies += [framed(number, path + b"\xff"), framed(number, b"\x02\x0a"), framed(number, b"")]
    got = ProtobufDecoder(client(registry), {}, NONE).decode(bodies)
    assert got.data.to_pylist() == [
        {"id": Decimal(2**64 - 1), "note": "", "colour": "RED", "tags": ["a"],
         "at": datetime(2024, 2, 29, tzinfo=UTC), "next": '{"id": "1"}'},
        {"id": Decimal(2), "note": None, "colour": "7", "tags": [], "at": None, "next": None},
    ]  # fmt: skip
    assert [n for n, _ in got.bad] == [2, 3, 4]


def test_messages_with_schemas_come_through_kafka(registry: SchemaRegistry) -> None:
    kafka = shared_kafka()
    kafka.topic("avro.orders", 1)
    kafka.produce("avro.orders", [(body, "k") for body in avro(registry, record(("id", "int")), {"id": 1}, {"id": 2})])
    kafka.produce("avro.orders", [(b"no schema", "k"), (None, "k")])
    source = KafkaSource(servers=kafka.servers, security="plaintext", registry=registry.url)
    options = KafkaStreamOptions(type="kafka", topic="avro.orders", format="avro", metadata=("offset",))
    [batch] = source.read(Stream("orders", options), None)
    assert batch.data.select(["id", "kafka_offset", "_op"]).to_pylist() == [
        {"id": 1, "kafka_offset": 0, "_op": "read"}, {"id": 2, "kafka_offset": 1, "_op": "read"},
        {"id": None, "kafka_offset": 3, "_op": "delete"},
    ]  # fmt: skip
    assert batch.unreadable is not None
    assert batch.unreadable.column("raw").to_pylist() == [b"no schema"]
    with pytest.raises(ConfigurationError, match="give the connection `registry`"):
        list(KafkaSource(servers=kafka.servers, security="plaintext").read(Stream("orders", options), None))


def test_a_registry_that_falters_is_asked_again_and_one_that_is_gone_is_an_error(registry: SchemaRegistry) -> None:
    bodies = avro(registry, record(("id", "int")), {"id": 1})
    registry.failures[:] = [503, 500]
    assert AvroDecoder(client(registry), {}, NONE).decode(bodies).rows == 1
    registry.failures[:] = [503] * 3
    with pytest.raises(UnavailableError, match="503"):
        AvroDecoder(client(registry), {}, NONE).decode(bodies)
    registry.failures.clear()
    gone = Registry(f"http://127.0.0.1:{free_port()}", None, None, QUICK)
    with pytest.raises(UnavailableError, match="refused"):
        AvroDecoder(gone, {}, NONE).decode(bodies)
    with pytest.raises(ConfigurationError, match="404"):
        Registry(registry.url + "/elsewhere", None, None, QUICK).schema(1)
    with pytest.raises(NotFoundError, match="no schema at"):
        client(registry).schema(12345)


def test_a_registry_with_a_login_refuses_others() -> None:
    with running_registry(login=("key", "hunter2")) as guarded:
        bodies = avro(guarded, record(("id", "int")), {"id": 1})
        assert AvroDecoder(client(guarded, ("key", "hunter2")), {}, NONE).decode(bodies).rows == 1
        with pytest.raises(CredentialsRejectedError) as caught:
            AvroDecoder(client(guarded, ("key", "hunter3")), {}, NONE).decode(bodies)
        assert "hunter" not in str(caught.value)
