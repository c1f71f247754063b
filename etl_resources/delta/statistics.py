"""File statistics of a Delta add action, taken from the Parquet footer that the writer has just produced."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from etl_resources.delta.handle import SKIPPING

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from etl_resources.delta.handle import Handle

LONGEST_STRING = 64
"""Characters; a longer minimum or maximum is left out: it bloats the log and prunes no better."""


def skipping_columns(schema: pa.Schema, personal: Collection[str]) -> list[str]:
    """Return the columns on which statistics are kept: flat, ordered, not floating point (NaN), not personal.

    Minimum and maximum of a personal column would survive its erasure in the Delta log, so there are none.
    """
    from pyarrow import types

    def ordered(kind: pa.DataType) -> bool:
        tests = (types.is_integer, types.is_decimal, types.is_date, types.is_timestamp, types.is_string)
        return any(test(kind) for test in tests)

    def listable(name: str) -> bool:
        # A backtick makes delta-rs give up the whole list, and keep minimum and maximum of every column.
        return not {"`", ","} & set(name)

    return [
        field.name for field in schema if field.name not in personal and ordered(field.type) and listable(field.name)
    ]


def skipping_property(columns: Collection[str]) -> dict[str, str]:
    """Return the table property that limits statistics to `columns`; without it delta-rs keeps them of the first 32."""
    return {SKIPPING: ",".join(f"`{name}`" for name in columns)}


def protect(handle: Handle, personal: Collection[str]) -> Handle:
    """Stop keeping minimum and maximum of columns that have become personal since the table was created."""
    known = handle.skipping()
    kept = known - frozenset(personal) if known is not None else skipping_columns(handle.schema(), personal)
    if known is not None and len(kept) == len(known):
        return handle
    handle.delta.alter.set_table_properties(skipping_property(sorted(kept)))
    fresh = handle.table.open()
    assert fresh is not None  # noqa: S101 - it was just written
    return fresh


def file_statistics(metadata: pq.FileMetaData, columns: Collection[str]) -> str:
    """Return the JSON of `numRecords`, `minValues`, `maxValues`, `nullCount` for one Parquet file."""
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for index in range(metadata.num_columns):
        path = metadata.schema.column(index).path
        if path in columns:
            _column(metadata, index, path, lows, highs, nulls)
    # Not escaped: delta-rs reads the escapes of characters beyond U+FFFF as other characters, and skips their rows.
    return json.dumps(
        {"numRecords": metadata.num_rows, "minValues": lows, "maxValues": highs, "nullCount": nulls},
        separators=(",", ":"),
        ensure_ascii=False,
    )


def _column(
    metadata: pq.FileMetaData, index: int, path: str, lows: dict[str, Any], highs: dict[str, Any], nulls: dict[str, int]
) -> None:
    parts = [metadata.row_group(group).column(index).statistics for group in range(metadata.num_row_groups)]
    if any(part is None or not part.has_null_count for part in parts):
        return
    nulls[path] = sum(part.null_count for part in parts)
    bounded = [part for part in parts if part.has_min_max]
    # A row group without bounds must be all null, else the bounds of the others would lie about the file.
    if not bounded or any(not part.has_min_max and part.num_values for part in parts):
        return
    try:
        low, high = min(part.min for part in bounded), max(part.max for part in bounded)
        if any(isinstance(bound, str) and len(bound) > LONGEST_STRING for bound in (low, high)):
            return
        spelled = _json(low), _json(high, up=True)
    except (OverflowError, ValueError):
        return  # a date or time that Python does not have, such as one after the year 9999
    if None not in spelled:
        lows[path], highs[path] = spelled


def _json(value: Any, *, up: bool = False) -> Any:
    """Spell a bound as the Delta protocol does; timestamps have milliseconds there, so a maximum is rounded up."""
    if isinstance(value, datetime):
        if up and value.microsecond % 1000:
            value += timedelta(milliseconds=1)
        text = value.replace(tzinfo=None).isoformat(timespec="milliseconds")
        return text + "Z" if value.tzinfo else text
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value) if len(value.as_tuple().digits) <= 15 else None  # a rounded bound could exclude a row
    return value
