"""File statistics of a Delta add action, taken from the Parquet footer that the writer has just produced."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

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

    return [field.name for field in schema if field.name not in personal and ordered(field.type)]


def file_statistics(metadata: pq.FileMetaData, columns: Collection[str]) -> str:
    """Return the JSON of `numRecords`, `minValues`, `maxValues`, `nullCount` for one Parquet file."""
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for index in range(metadata.num_columns):
        path = metadata.schema.column(index).path
        if path in columns:
            _column(metadata, index, path, lows, highs, nulls)
    return json.dumps(
        {"numRecords": metadata.num_rows, "minValues": lows, "maxValues": highs, "nullCount": nulls},
        separators=(",", ":"),
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
    low, high = min(part.min for part in bounded), max(part.max for part in bounded)
    if any(isinstance(bound, str) and len(bound) > LONGEST_STRING for bound in (low, high)):
        return
    lows[path], highs[path] = _json(low), _json(high, up=True)


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
