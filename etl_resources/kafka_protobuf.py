"""Protobuf messages: read with the descriptor that the registry has, as columns with the types of its fields."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError, SchemaConflictError
from etl_resources.extras import client
from etl_resources.kafka_framed import Bad, FramedDecoder, columns_of
from etl_resources.kafka_protobuf_types import arrow_type, reader
from etl_resources.kafka_registry import FramingError, Schema

if TYPE_CHECKING:
    import pyarrow as pa

_FIRST = b"\x00"


class ProtobufDecoder(FramedDecoder):
    """Messages as columns; the registry gives the descriptor (`format=serialized`), so no code has to be generated."""

    serialized = True

    def _group(self, number: int, rest: bytes) -> tuple[bytes, bytes]:
        """Return the path to the message type in its file (a list of indexes), and the message behind it."""
        super()._group(number, rest)
        count, at = _zigzag(rest, 0)
        if count == 0:
            return _FIRST, rest[at:]
        path = bytearray()
        for _ in range(count):
            index, at = _zigzag(rest, at)
            if not 0 <= index < 256:
                raise FramingError(f"the path to its message type has the index {index}")
            path.append(index)
        return bytes(path), rest[at:]

    def _table(self, number: int, path: bytes, bodies: list[bytes]) -> tuple[pa.Table, Bad]:
        import pyarrow as pa

        try:
            message = self._message(number, path)
        except IndexError:
            wrong = f"schema {number} has no message type at {list(path)}"
            return pa.schema([]).empty_table(), [(n, wrong) for n in range(len(bodies))]
        kind = arrow_type(message.DESCRIPTOR, ())
        read = reader(message.DESCRIPTOR, ())
        decode_error = client("google.protobuf.message", extra="kafka").DecodeError
        rows, bad = [], []
        for n, body in enumerate(bodies):
            try:
                rows.append((n, read(message.FromString(body))))
            except (decode_error, ValueError, OverflowError) as error:
                bad.append((n, f"not Protobuf of schema {number}: {error}"))
        array, misfits = columns_of(rows, kind)
        bad += misfits
        return pa.Table.from_arrays(array.flatten(), schema=pa.schema(list(kind))), bad

    def _message(self, number: int, path: bytes) -> Any:
        """Return the class of a message type."""
        pools = client("google.protobuf.descriptor_pool", extra="kafka")
        factory = client("google.protobuf.message_factory", extra="kafka")
        schema = self._registry.schema(number, serialized=True)
        if schema.kind != "PROTOBUF":
            raise SchemaConflictError(
                f"schema {number} of the registry is {schema.kind} and not Protobuf",
                fix="give the stream this `format`",
            )
        pool = pools.DescriptorPool()
        _add_known(pool)
        file = None
        for name, one in _imports_first(f"schema-{number}.proto", schema):
            file = _add(pool, name, one)
        assert file is not None  # noqa: S101 - there is at least the schema itself
        kinds = list(file.message_types_by_name.values())
        kind = kinds[path[0]]
        for index in path[1:]:
            kind = kind.nested_types[index]
        return factory.GetMessageClass(kind)


def _imports_first(name: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    for imported, reference in schema.references:
        yield from _imports_first(imported, reference)
    yield name, schema


def _add(pool: Any, name: str, schema: Schema) -> Any:
    descriptor = client("google.protobuf.descriptor_pb2", extra="kafka").FileDescriptorProto()
    try:
        descriptor.ParseFromString(base64.b64decode(schema.text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ConfigurationError(
            f"the registry gives {name} as text and not as a descriptor: {error}",
            fix="it has to know `format=serialized`",
        ) from None
    descriptor.name = name
    pool.Add(descriptor)
    return pool.FindFileByName(name)


def _add_known(pool: Any) -> None:
    """Add what every Protobuf file may import: timestamps, wrappers and so on."""
    for module in ("any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers"):
        known = client(f"google.protobuf.{module}_pb2", extra="kafka").DESCRIPTOR
        pool.AddSerializedFile(known.serialized_pb)


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    """Return a signed number of variable length, and where it ends."""
    number = shift = 0
    while at < len(data) and shift < 35:
        byte = data[at]
        number, shift, at = number | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
    raise FramingError("it ends within the path to its message type")
