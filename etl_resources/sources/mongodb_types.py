"""The Arrow type of BSON values: found in a sample, kept, and grown by keys that turn up later.

Types are widened as those of JSON are (`json_types.widen`), but for doubles beside Decimal128, which become text: no
decimal holds a double exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any

from etl_resources.files import json_types
from etl_resources.sources import mongodb_bson as bson_
from etl_resources.sources.mongodb_bson import Field, Values

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

UUID, OLD_BINARY = 4, 2


def grown(schema: pa.Schema, fields: Mapping[str, Field]) -> pa.Schema:
    """Return the schema with the keys of `fields` that it does not know yet, at any depth; known types stay.

    A key that differs from another in case only is left out: no table can hold both.
    """
    import pyarrow as pa

    known = {f.name: f.type for f in schema}
    folded = {name.casefold() for name in known}
    for name, found in fields.items():
        if name in known:
            known[name] = _grown_type(known[name], found)
        elif name.casefold() not in folded:
            folded.add(name.casefold())
            (settled,) = json_types.settle_schema(pa.schema([(name, _type_of(found))]))
            known[name] = settled.type
    return pa.schema(list(known.items()))


def _grown_type(kind: pa.DataType, found: Field) -> pa.DataType:
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(kind) and bson_.DOCUMENT in found:
        return pa.struct(list(grown(pa.schema(list(kind)), found[bson_.DOCUMENT].fields())))
    if types.is_list(kind) and bson_.ARRAY in found:
        return pa.list_(_grown_type(kind.value_type, found[bson_.ARRAY].elements()[1]))
    return kind


def _type_of(found: Field) -> pa.DataType:
    """Return the narrowest type that holds the values; `null` for what says nothing."""
    import pyarrow as pa

    return reduce(_widen, (_type_of_values(kind, values) for kind, values in found.items()), pa.null())


def _widen(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    import pyarrow as pa
    from pyarrow import types

    if any(types.is_decimal(x) and types.is_floating(y) for x, y in ((a, b), (b, a))):
        return pa.string()
    return json_types.widen(a, b)


def _type_of_values(kind: int, values: Values) -> pa.DataType:
    import pyarrow as pa

    if kind == bson_.DOCUMENT:
        return pa.struct([(name, _type_of(found)) for name, found in values.fields().items()])
    if kind == bson_.ARRAY:
        return pa.list_(_type_of(values.elements()[1]))
    if kind == bson_.DECIMAL:
        return _decimal_type(values)
    if kind == bson_.BINARY:
        return pa.string() if (subtypes(values) == UUID).all() else pa.binary()
    simple = {
        bson_.DOUBLE: pa.float64(), bson_.BOOL: pa.bool_(), bson_.DATE: pa.timestamp("us", "UTC"),
        bson_.INT32: pa.int64(), bson_.INT64: pa.int64(), bson_.NULL: pa.null(), bson_.UNDEFINED: pa.null(),
    }  # fmt: skip
    return simple.get(kind, pa.string())


def _decimal_type(values: Values) -> pa.DataType:
    import numpy as np
    import pyarrow as pa

    low, high, _, scale, special = decimals(values)
    if special.any():
        return pa.string()
    digits = np.ceil(np.log10(high.astype(np.float64) * 2.0**64 + low.astype(np.float64) + 1))
    places = int(scale.max(initial=0))
    fits = int(scale.min()) >= 0 and places + int((digits - scale).max()) < 38
    return pa.decimal128(38, places) if fits else pa.string()


def subtypes(values: Values) -> NDArray[np.uint8]:
    """Return the subtypes of binary values."""
    return values.buffer.take(values.at + 4, 1)[:, 0]


def decimals(values: Values) -> tuple[Any, Any, Any, Any, Any]:
    """Return the parts of Decimal128 values: low and high word of the coefficient, sign, scale, and whether it is none
    of these (NaN, an infinity, a coefficient that is out of range)."""
    import numpy as np

    words = values.buffer.take(values.at, 16).view("<u8")
    low, high = words[:, 0], words[:, 1]
    special = (high >> np.uint64(61)) & np.uint64(3) == 3
    scale = 6176 - ((high >> np.uint64(49)) & np.uint64(0x3FFF)).astype(np.int64)
    return low, high & np.uint64((1 << 49) - 1), high >> np.uint64(63) != 0, scale, special
