"""Protobuf types as Arrow types, and messages as Arrow takes them.

A field with presence (`optional`, `oneof`, a message) is null where it is not set; others have their default. Enums are
their names, unsigned 64 bits a decimal, a timestamp is a timestamp, a wrapper what it wraps, a duration seconds; a map
becomes a list of key and value; other well-known types and types that contain themselves become JSON text.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from etl_resources.extras import client

if TYPE_CHECKING:
    import pyarrow as pa

_WELL_KNOWN = "google.protobuf."
_WRAPPER = "Value"
_AS_JSON = frozenset({"Any", "Struct", "Value", "ListValue", "FieldMask", "Empty"})

Read = Callable[[Any], Any]


def arrow_type(message: Any, within: tuple[str, ...]) -> pa.DataType:
    """Return the struct of a message type."""
    import pyarrow as pa

    within = (*within, message.full_name)
    return pa.struct([(f.name, _field_type(f, within)) for f in message.fields])


def _field_type(field: Any, within: tuple[str, ...]) -> pa.DataType:
    import pyarrow as pa

    if _is_map(field):
        key, value = field.message_type.fields
        pair = [("key", _value_type(key, within)), ("value", _value_type(value, within))]
        return pa.list_(pa.struct(pair))
    kind = _value_type(field, within)
    return pa.list_(kind) if field.is_repeated else kind


def _value_type(field: Any, within: tuple[str, ...]) -> pa.DataType:
    import pyarrow as pa

    if field.message_type is not None:
        return _message_type(field.message_type, within)
    if field.enum_type is not None:
        return pa.string()
    return {
        field.CPPTYPE_INT32: pa.int32(), field.CPPTYPE_INT64: pa.int64(), field.CPPTYPE_UINT32: pa.int64(),
        field.CPPTYPE_UINT64: pa.decimal128(20, 0), field.CPPTYPE_DOUBLE: pa.float64(),
        field.CPPTYPE_FLOAT: pa.float32(), field.CPPTYPE_BOOL: pa.bool_(),
        field.CPPTYPE_STRING: pa.binary() if field.type == field.TYPE_BYTES else pa.string(),
    }[field.cpp_type]  # fmt: skip


def _message_type(message: Any, within: tuple[str, ...]) -> pa.DataType:
    import pyarrow as pa

    known = _known(message)
    if known == "Timestamp":
        return pa.timestamp("us", "UTC")
    if known == "Duration":
        return pa.decimal128(38, 9)
    if known in _AS_JSON or message.full_name in within:
        return pa.string()
    if known is not None and known.endswith(_WRAPPER):
        return _value_type(message.fields[0], within)
    return arrow_type(message, within)


def reader(message: Any, within: tuple[str, ...]) -> Read:
    """Return what makes a dictionary of a message of this type."""
    within = (*within, message.full_name)
    parts = [(f.name, f.has_presence, _field_reader(f, within)) for f in message.fields]

    def read(value: Any) -> dict[str, Any]:
        return {
            name: None if presence and not value.HasField(name) else part(getattr(value, name))
            for name, presence, part in parts
        }

    return read


def _field_reader(field: Any, within: tuple[str, ...]) -> Read:
    if _is_map(field):
        key, value = (_value_reader(f, within) for f in field.message_type.fields)
        return lambda entries: [{"key": key(k), "value": value(entries[k])} for k in entries]
    one = _value_reader(field, within)
    return (lambda values: [one(v) for v in values]) if field.is_repeated else one


def _value_reader(field: Any, within: tuple[str, ...]) -> Read:
    if field.message_type is not None:
        return _message_reader(field.message_type, within)
    if field.enum_type is not None:
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return lambda number: names.get(number, str(number))
    if field.cpp_type == field.CPPTYPE_UINT64:
        return Decimal
    return lambda value: value


def _message_reader(message: Any, within: tuple[str, ...]) -> Read:
    known = _known(message)
    if known == "Timestamp":
        return _timestamp
    if known == "Duration":
        return lambda value: value.seconds + Decimal(value.nanos).scaleb(-9)
    if known in _AS_JSON or message.full_name in within:
        to_json = client("google.protobuf.json_format", extra="kafka").MessageToJson
        return lambda value: str(to_json(value, indent=None, preserving_proto_field_name=True))
    if known is not None and known.endswith(_WRAPPER):
        inner = _value_reader(message.fields[0], within)
        return lambda value: inner(value.value)
    return reader(message, within)


def _timestamp(value: Any) -> Any:
    from datetime import UTC, datetime, timedelta

    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


def _known(message: Any) -> str | None:
    name: str = message.full_name
    return name.removeprefix(_WELL_KNOWN) if name.startswith(_WELL_KNOWN) else None


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
