"""From what comes over the wire to the declared Arrow types; records that these cannot hold are set apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etl_resources.exceptions import SchemaConflictError
from etl_resources.misfits import set_apart

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.sources.postgres_columns import Column

GUARD = "_etl_guard_"
"""Prefix of the columns that carry the text of values that Arrow cannot hold."""

# What the driver makes of PostgreSQL's infinities: the largest and smallest number, moved to 1970, around the corner.
_INFINITY = {
    -9222425352054775809: "infinity", -9222425352054775808: "-infinity", -2147472692: "infinity",
    -2147472691: "-infinity",
}  # fmt: skip
_DAY_US = 86_400_000_000
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31, as days since 1970


def finish(
    batch: pa.RecordBatch, columns: Sequence[Column], origin: str
) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """Return the records in their declared types, and those that cannot be read in `unreadable_schema()`, or None.

    Raises:
        SchemaConflictError: a column is no longer what it was when the stream was described.
    """
    import pyarrow as pa

    arrays: list[pa.Array] = []
    odd: dict[str, pa.Array] = {}
    for column in columns:
        raw = _plain(batch.column(column.name))
        array, misfits = _fit(raw, column)
        if column.guard is not None and (texts := batch.column(GUARD + column.name)).null_count < len(texts):
            misfits = texts
        if misfits is not None:
            odd[column.name] = misfits
        arrays.append(array)
    records = pa.RecordBatch.from_arrays(arrays, schema=pa.schema([(c.name, c.arrow) for c in columns]))
    return set_apart(records, odd, origin) if odd else (records, None)


def _plain(array: pa.Array) -> pa.Array:
    """Return the array without extension types (json, opaque), also inside of a list."""
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray):
        return array.storage
    if pa.types.is_list(array.type) and isinstance(array.type.value_type, pa.BaseExtensionType):
        return array.cast(pa.list_(array.type.value_type.storage_type))
    return array


def _fit(array: pa.Array, column: Column) -> tuple[pa.Array, pa.Array | None]:
    """Return the array in the column's type, and the text of the values that do not fit, else null; None: all fit."""
    import pyarrow as pa

    if pa.types.is_temporal(column.arrow):
        return _fit_temporal(array, column)
    if array.type == column.arrow:
        return array, None
    # Decimals come as text; anything else is not what was described, even if it could be cast.
    if array.type == pa.string() and pa.types.is_decimal(column.arrow):
        return _fit_decimals(array, column)
    if array.type == pa.list_(pa.string()) and pa.types.is_decimal(getattr(column.arrow, "value_type", pa.null())):
        return _fit_decimal_lists(array, column)
    raise _changed(column, array.type)


def _fit_decimals(array: pa.Array, column: Column) -> tuple[pa.Array, pa.Array | None]:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return pc.cast(array, column.arrow), None
    except pa.ArrowInvalid:
        is_number = pc.match_substring_regex(array, r"^-?[0-9.]+$")  # NaN is not
        return pc.cast(pc.if_else(is_number, array, None), column.arrow), pc.if_else(is_number, None, array)


def _fit_temporal(array: pa.Array, column: Column) -> tuple[pa.Array, pa.Array | None]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if array.type.id != column.arrow.id:
        raise _changed(column, array.type)
    is_date = pa.types.is_date(column.arrow)
    number = array.view(pa.int32() if is_date else pa.int64())
    first, last = (_FIRST_DAY, _LAST_DAY) if is_date else (_FIRST_DAY * _DAY_US, (_LAST_DAY + 1) * _DAY_US - 1)
    bounds = pc.min_max(number).as_py()
    typed = array if array.type == column.arrow else array.cast(column.arrow)
    if bounds["min"] is None or (bounds["min"] >= first and bounds["max"] <= last):
        return typed, None
    outside = pc.or_(pc.less(number, first), pc.greater(number, last))
    texts = [
        None if not is_out else _INFINITY.get(value) or f"{value} {'days' if is_date else 'microseconds'} since 1970"
        for value, is_out in zip(number.to_pylist(), outside.to_pylist(), strict=True)
    ]
    return pc.if_else(outside, None, typed), pa.array(texts, pa.string())


def _fit_decimal_lists(array: pa.Array, column: Column) -> tuple[pa.Array, pa.Array | None]:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return pc.cast(array, column.arrow), None
    except pa.ArrowInvalid:
        pass
    odd = pc.match_substring_regex(pc.list_flatten(array), "[a-zA-Z]")
    parents = pc.list_parent_indices(array).filter(pc.fill_null(odd, False))  # noqa: FBT003 - the fill value
    is_odd = pc.is_in(pa.array(range(len(array)), parents.type), value_set=parents.unique())
    texts = [json.dumps(v) if out else None for v, out in zip(array.to_pylist(), is_odd.to_pylist(), strict=True)]
    return pc.cast(pc.if_else(is_odd, None, array), column.arrow), pa.array(texts, pa.string())


def _changed(column: Column, came: pa.DataType) -> SchemaConflictError:
    return SchemaConflictError(
        f"column {column.name} was described as {column.arrow} and came as {came}: the table changed while it was read",
        fix="run again",
    )
