"""The Arrow type of JSON values: found, widened without loss, written into a position, and filled record by record.

A type is widened only to one that holds every value: int64 and float64 to float64, numbers that float64 cannot hold to
decimal(38, s), everything else to string, in which a number or an object stands as its JSON text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

_SCALARS = ("string", "int64", "float64", "bool", "date", "timestamp", "timestamptz", "decimal(p,s)")


class MisfitError(ValueError):
    """A value does not fit the type of its column."""


def loads(record: bytes) -> Any:
    """Parse one record; numbers with a fraction are Decimals, so that no digit is lost before it is judged.

    Raises:
        ValueError: it is no JSON, or an object has a key twice.
    """
    return json.loads(record.decode(), parse_float=Decimal, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("an object in which a key comes twice")
    return record


def parse_type(name: str, column: str) -> pa.DataType:
    """Return the type that a user declares for a column.

    Raises:
        ConfigurationError: no such type.
    """
    import pyarrow as pa

    if found := re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", name):
        precision, scale = map(int, found.groups())
        if 0 < precision <= 38 and scale <= precision:
            return pa.decimal128(precision, scale)
    simple = {
        "string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(), "date": pa.date32(),
        "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", "UTC"),
    }  # fmt: skip
    if name not in simple:
        raise ConfigurationError(f"column {column}: no type {name!r}", fix=f"one of {', '.join(_SCALARS)}")
    return simple[name]


def dump_schema(schema: pa.Schema) -> dict[str, Any]:
    """Return a schema as JSON: `{"name": "int64", "list": ["string"], "struct": {...}}`."""
    return {f.name: _dump_type(f.type) for f in schema}


def _dump_type(kind: pa.DataType) -> Any:
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(kind):
        return {f.name: _dump_type(f.type) for f in kind}
    if types.is_list(kind):
        return [_dump_type(kind.value_type)]
    if types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    names = {
        pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool", pa.date32(): "date",
        pa.timestamp("us"): "timestamp", pa.timestamp("us", "UTC"): "timestamptz", pa.binary(): "binary",
    }  # fmt: skip
    return names.get(kind, "string")


def load_schema(dumped: Mapping[str, Any]) -> pa.Schema:
    """Return what `dump_schema` wrote."""
    import pyarrow as pa

    return pa.schema([(name, _load_type(kind, name)) for name, kind in dumped.items()])


def _load_type(dumped: Any, name: str) -> pa.DataType:
    import pyarrow as pa

    if isinstance(dumped, Mapping):
        return pa.struct([(n, _load_type(kind, n)) for n, kind in dumped.items()])
    if isinstance(dumped, list):
        return pa.list_(_load_type(dumped[0], name))
    # Not among the types of `parse_type`: no JSON value is binary, but those of other systems are.
    return pa.binary() if dumped == "binary" else parse_type(dumped, name)


def type_of(value: Any) -> pa.DataType:
    """Return the narrowest type that holds a parsed value without loss; `null` for what says nothing."""
    import pyarrow as pa

    kind = pa.string()
    if value is None:
        kind = pa.null()
    elif isinstance(value, bool):
        kind = pa.bool_()
    elif isinstance(value, int):
        kind = pa.int64() if -(2**63) <= value < 2**63 else _decimal_for(Decimal(value))
    elif isinstance(value, float):
        kind = pa.float64()
    elif isinstance(value, Decimal):
        kind = pa.float64() if exact_as_float(str(value)) else _decimal_for(value)
    elif isinstance(value, list):
        kind = pa.list_(reduce(widen, (type_of(v) for v in value), pa.null()))
    elif isinstance(value, dict):
        kind = pa.struct([(name, type_of(v)) for name, v in value.items()])
    return kind


def exact_as_float(number: str) -> bool:
    """Tell whether float64 keeps every digit of a number: written back, it is the same number."""
    return Decimal(repr(float(number))) == Decimal(number)


def _decimal_for(number: Decimal) -> pa.DataType:
    import pyarrow as pa

    exponent = number.as_tuple().exponent
    scale = max(-exponent, 0) if isinstance(exponent, int) else 39
    return pa.decimal128(38, scale) if scale <= 38 and number.adjusted() < 38 - scale else pa.string()


def widen(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Return the narrowest type that holds the values of both."""
    import pyarrow as pa
    from pyarrow import types

    if a == b or types.is_null(b):
        return a
    if types.is_null(a):
        return b
    if types.is_struct(a) and types.is_struct(b):
        return pa.struct(list(union_schema(pa.schema(list(a)), pa.schema(list(b)))))
    if types.is_list(a) and types.is_list(b):
        return pa.list_(widen(a.value_type, b.value_type))
    return _widen_scalars(a, b)


def _widen_scalars(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    import pyarrow as pa
    from pyarrow import types

    if {a, b} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if all(types.is_integer(t) or types.is_floating(t) or types.is_decimal(t) for t in (a, b)):
        return pa.decimal128(38, max(t.scale if types.is_decimal(t) else 0 for t in (a, b)))
    return pa.string()


def union_schema(a: pa.Schema, b: pa.Schema) -> pa.Schema:
    """Return the columns of `a` in their order, then those that only `b` has; types widened."""
    import pyarrow as pa

    merged = {f.name: f.type for f in a}
    for field in b:
        merged[field.name] = widen(merged[field.name], field.type) if field.name in merged else field.type
    return pa.schema(list(merged.items()))


def settle_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema ready to read with: what no value has shown yet is a string, which takes any value as JSON
    text; of names that differ in case only, the first."""
    import pyarrow as pa

    first: dict[str, tuple[str, pa.DataType]] = {}
    for field in schema:
        first.setdefault(field.name.casefold(), (field.name, _settle(field.type)))
    return pa.schema(list(first.values()))


def _settle(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(kind) and kind.num_fields:
        return pa.struct(list(settle_schema(pa.schema(list(kind)))))
    if types.is_list(kind):
        return pa.list_(_settle(kind.value_type))
    return pa.string() if types.is_null(kind) or types.is_struct(kind) else kind


def fit(value: Any, kind: pa.DataType, path: str) -> Any:
    """Return the value as Arrow takes it for the type, nothing lost; the caller has made sure that every key is known.

    Raises:
        MisfitError: the type cannot hold it.
    """
    from pyarrow import types

    if value is None:
        return None
    if types.is_string(kind):
        text = value if isinstance(value, str) else json_text(value)
        text.encode()  # a lone surrogate has no UTF-8, and Arrow would fail on the whole block
        return text
    if types.is_struct(kind) and isinstance(value, dict):
        return {f.name: fit(value.get(f.name), f.type, f"{path}.{f.name}") for f in kind}
    if types.is_list(kind) and isinstance(value, list):
        return [fit(v, kind.value_type, f"{path}[]") for v in value]
    return _fit_scalar(value, kind, path)


def _fit_scalar(value: Any, kind: pa.DataType, path: str) -> Any:
    import pyarrow as pa
    from pyarrow import types

    number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if types.is_boolean(kind) and isinstance(value, bool):
        return value
    if types.is_int64(kind) and number and -(2**63) <= value < 2**63 and value == int(value):  # NaN is neither
        return int(value)
    if types.is_floating(kind) and number and (isinstance(value, float) or exact_as_float(str(value))):
        return float(value)
    if types.is_decimal(kind) and number and not isinstance(value, float):
        fitted = _decimal_for(Decimal(value))
        if (
            types.is_decimal(fitted)
            and fitted.scale <= kind.scale
            and Decimal(value).adjusted() < kind.precision - kind.scale
        ):
            return Decimal(value)
    if types.is_temporal(kind) and isinstance(value, str):
        try:
            return pa.scalar(value).cast(kind).as_py()
        except pa.ArrowInvalid:
            pass
    raise MisfitError(f"{path}: {json_text(value)[:80]} does not fit {_dump_type(kind)}")


def json_text(value: Any) -> str:
    """Return a parsed value as JSON, numbers with the digits they had."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{json_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False)
