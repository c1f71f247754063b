"""Avro types as Arrow types, and values as Arrow takes them.

Times of day and UUIDs become text; a union of several types becomes JSON text, as does a type that contains itself; a
map becomes a list of key and value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Named = Mapping[str, Any]
Convert = Callable[[Any], Any]


def arrow_type(schema: Any, named: Named, within: tuple[str, ...] = ()) -> pa.DataType:
    """Return the Arrow type of a schema as fastavro parses it; `named` are the types it refers to by name."""
    import pyarrow as pa

    schema, within, again = _resolved(schema, named, within)
    if again:
        return pa.string()
    if isinstance(schema, list):
        others = [s for s in schema if s != "null"]
        return arrow_type(others[0], named, within) if len(others) == 1 else pa.string()
    name = schema["type"] if isinstance(schema, dict) else schema
    if name in {"record", "error"}:
        return pa.struct([(f["name"], arrow_type(f["type"], named, within)) for f in schema["fields"]])
    if name == "array":
        return pa.list_(arrow_type(schema["items"], named, within))
    if name == "map":
        return pa.list_(pa.struct([("key", pa.string()), ("value", arrow_type(schema["values"], named, within))]))
    return _scalar(schema, name)


def _scalar(schema: Any, name: str) -> pa.DataType:
    import pyarrow as pa

    logical = schema.get("logicalType") if isinstance(schema, dict) else None
    if logical == "decimal":
        return pa.decimal128(schema["precision"], schema.get("scale", 0)) if schema["precision"] <= 38 else pa.string()
    by_logical = {
        "date": pa.date32(), "time-millis": pa.string(), "time-micros": pa.string(), "uuid": pa.string(),
        "timestamp-millis": pa.timestamp("us", "UTC"), "timestamp-micros": pa.timestamp("us", "UTC"),
        "local-timestamp-millis": pa.timestamp("us"), "local-timestamp-micros": pa.timestamp("us"),
    }  # fmt: skip
    if logical in by_logical:
        return by_logical[logical]
    return {
        "null": pa.string(), "boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float32(),
        "double": pa.float64(), "bytes": pa.binary(), "fixed": pa.binary(), "string": pa.string(), "enum": pa.string(),
    }[name]  # fmt: skip


def converter(schema: Any, named: Named, within: tuple[str, ...] = ()) -> Convert | None:
    """Return what makes of a value as fastavro gives it one that Arrow takes; None: they are the same."""
    schema, within, again = _resolved(schema, named, within)
    if again:
        return _json
    if isinstance(schema, list):
        others = [s for s in schema if s != "null"]
        return _unless_null(converter(others[0], named, within) if len(others) == 1 else _json)
    name = schema["type"] if isinstance(schema, dict) else schema
    if name in {"record", "error"}:
        fields = {f["name"]: converter(f["type"], named, within) for f in schema["fields"]}
        return _record({n: c for n, c in fields.items() if c is not None})
    if name in {"array", "map"}:
        return _many(name, converter(schema["items" if name == "array" else "values"], named, within))
    return _scalar_converter(schema)


def _many(name: str, inner: Convert | None) -> Convert | None:
    if name == "array":
        return None if inner is None else lambda value: [inner(v) for v in value]
    each = inner or (lambda v: v)
    return lambda value: [{"key": k, "value": each(v)} for k, v in value.items()]


def _scalar_converter(schema: Any) -> Convert | None:
    logical = schema.get("logicalType") if isinstance(schema, dict) else None
    if logical in {"time-millis", "time-micros"}:
        return lambda value: value.isoformat()
    if logical == "uuid" or (logical == "decimal" and schema["precision"] > 38):
        return str
    return None


def _resolved(schema: Any, named: Named, within: tuple[str, ...]) -> tuple[Any, tuple[str, ...], bool]:
    """Return a schema that is no name, the names it stands within, and whether it is one of them."""
    if isinstance(schema, dict) and isinstance(schema["type"], dict | list):
        return _resolved(schema["type"], named, within)
    name = schema if isinstance(schema, str) else schema.get("name") if isinstance(schema, dict) else None
    if name is None or (isinstance(schema, str) and name not in named):
        return schema, within, False
    return (named[name] if isinstance(schema, str) else schema), (*within, name), name in within


def _record(fields: Mapping[str, Convert]) -> Convert | None:
    if not fields:
        return None

    def convert(value: dict[str, Any]) -> dict[str, Any]:
        return value | {name: change(value[name]) for name, change in fields.items()}

    return convert


def _unless_null(change: Convert | None) -> Convert | None:
    return None if change is None else lambda value: None if value is None else change(value)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_text)


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
