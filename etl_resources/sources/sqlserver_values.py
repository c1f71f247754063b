"""From what the driver gives to the declared Arrow types; records that these cannot hold are set apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etl_resources.exceptions import SchemaConflictError
from etl_resources.source import unreadable_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.sources.sqlserver_columns import Column

_REPLACEMENT = "\ufffd"
"""What the driver puts in place of half a surrogate pair, which nvarchar can hold and UTF-8 cannot."""


def finish(
    batch: pa.RecordBatch, columns: Sequence[Column], origin: str, *, keep_replaced: bool
) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """Return the records in their declared types, and those that cannot be read in `unreadable_schema()`, or None.

    Raises:
        SchemaConflictError: a column is no longer what it was when the stream was described.
    """
    import pyarrow as pa

    arrays = [_fit(batch.column(n), column) for n, column in enumerate(columns)]
    records = pa.RecordBatch.from_arrays(arrays, schema=pa.schema([(c.name, c.arrow) for c in columns]))
    return (records, None) if keep_replaced else _set_apart(records, origin)


def _fit(array: pa.Array, column: Column) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if array.type == column.arrow:
        return array
    if pa.types.is_time(array.type) and column.type_name == "time":
        # With the digits of its declaration, which may be one more than Arrow's microseconds.
        digits = int(column.declared.partition("(")[2].rstrip(")") or 7)
        return pc.utf8_slice_codeunits(array.cast(pa.string()), 0, 9 + digits if digits else 8)
    if _same_kind(array.type, column.arrow):
        return array.cast(column.arrow)
    raise SchemaConflictError(
        f"column {column.name} was described as {column.arrow} and came as {array.type}: the table changed while it"
        " was read",
        fix="run again",
    )


def _same_kind(came: pa.DataType, wanted: pa.DataType) -> bool:
    import pyarrow.types as kinds

    wide = (kinds.is_large_string, kinds.is_string), (kinds.is_large_binary, kinds.is_binary)
    close = (
        *wide, (kinds.is_uint8, kinds.is_int16), (kinds.is_float64, kinds.is_float32), (kinds.is_decimal,) * 2,
    )  # fmt: skip
    if kinds.is_timestamp(came) and kinds.is_timestamp(wanted):
        return (came.tz is None) == (wanted.tz is None)
    return any(first(came) and second(wanted) for first, second in close)


def _set_apart(records: pa.RecordBatch, origin: str) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """Split off the records with a text that is not what the server has; they are few."""
    import pyarrow as pa
    import pyarrow.compute as pc

    odd = {}
    for field, array in zip(records.schema, records.columns, strict=True):
        if pa.types.is_string(field.type) and pc.any(found := pc.match_substring(array, _REPLACEMENT)).as_py():
            odd[field.name] = pc.fill_null(found, False)  # noqa: FBT003 - the fill value
    if not odd:
        return records, None
    is_odd = next(iter(odd.values()))
    for mask in odd.values():
        is_odd = pc.or_(is_odd, mask)
    names = [[name for name, mask in odd.items() if mask[n].as_py()] for n in pc.indices_nonzero(is_odd).to_pylist()]
    rows = [
        {
            "reason": f"{', '.join(where)}: holds U+FFFD, which stands for characters that are not valid UTF-16",
            "raw": json.dumps(record, default=str, ensure_ascii=False).encode(), "origin": origin, "line": None,
        }
        for where, record in zip(names, records.filter(is_odd).to_pylist(), strict=True)
    ]  # fmt: skip
    return records.filter(pc.invert(is_odd)), pa.RecordBatch.from_pylist(rows, schema=unreadable_schema())
