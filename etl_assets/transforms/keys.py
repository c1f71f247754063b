"""Hashes and keys out of columns, by an encoding in which different values are never the same text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from etl_assets.transforms import functions as fn
from etl_assets.transforms.expression import sql_value
from etl_assets.transforms.parameters.shaping import Hash, SurrogateKey
from etl_assets.transforms.projection import Projection

_KEY_DIGITS = 32


def hash_(projection: Projection, parameters: Hash) -> None:
    """Add the SHA-256 of columns."""
    [digest] = projection.compute(parameters.columns, lambda *values: [fn.sha256(encode(values))])
    projection.set({parameters.into: digest})


def surrogate_key(projection: Projection, parameters: SurrogateKey) -> None:
    """Add the first 128 bits of the SHA-256 of columns."""
    [key] = projection.compute(parameters.columns, lambda *values: [fn.sha256(encode(values)).substr(0, _KEY_DIGITS)])
    projection.set({parameters.into: key})


def encode(values: Sequence[ir.Value]) -> ir.StringValue:
    """Return one text for a row of values: `<kind><length>:<text>,` each, and `-,` for NULL.

    The kind keeps 1 and "1" apart, the length keeps ("a", "bc") and ("ab", "c") apart. Numbers are written by value,
    without trailing zeros, so that an int32, an int64 and a decimal of the same value have the same text.
    """
    return ibis.literal("").join([_encode(value) for value in values])


def _encode(value: ir.Value) -> ir.StringValue:
    """Write one value; a lambda names its text, because it is used twice and may be a long expression."""
    kind, text = _text(value)
    written = f"list_transform([text], lambda t: '{kind}' || length(t) || ':' || t || ',')[1]"
    return ibis.coalesce(sql_value(written, "string", text=text), "-,")


def _text(value: ir.Value) -> tuple[str, Any]:
    """Return the kind of a value and its text."""
    kind = value.type()
    for fits, letter, write in _KINDS:
        if fits(kind):
            return letter, write(value)
    return type(kind).__name__.lower(), value.cast("string")


def _without_zeros(value: Any) -> Any:
    return value.cast("string").re_replace(r"(\.[0-9]*?)0+$", r"\1").re_replace(r"\.$", "")


_KINDS: tuple[tuple[Callable[[dt.DataType], bool], str, Callable[[Any], Any]], ...] = (
    (dt.DataType.is_string, "s", lambda value: value),
    (dt.DataType.is_boolean, "b", lambda value: value.cast("string")),
    (dt.DataType.is_decimal, "n", _without_zeros),
    (dt.DataType.is_integer, "n", lambda value: value.cast("string")),
    (
        lambda kind: kind.is_timestamp() and bool(kind.timezone),
        "z",
        lambda value: fn.microseconds(value).cast("string"),
    ),
    (dt.DataType.is_timestamp, "t", lambda value: fn.microseconds(value).cast("string")),
    (dt.DataType.is_binary, "x", fn.hexadecimal),
    (lambda kind: kind.is_nested() or kind.is_json(), "j", fn.json),
)
