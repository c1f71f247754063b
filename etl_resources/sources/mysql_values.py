"""From the text that comes over the wire to the declared Arrow types; records that these cannot hold are set apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from etl_resources.exceptions import SchemaConflictError
from etl_resources.source import unreadable_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.sources.mysql_columns import Column

_NO_DAY = r"^0000|^\d{4}-00|^\d{4}-\d{2}-00"
"""Dates that MySQL stores and no calendar has: `0000-00-00`, `2024-00-00`, the year 0."""
_FIXES = {"boolean": "; `tinyint1: integer` reads it"}


def finish(
    cells: Sequence[pa.Array], columns: Sequence[Column], origin: str
) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """Return the records in their declared types, and those that cannot be read in `unreadable_schema()`, or None.

    `cells` holds one `binary` array for each column.

    Raises:
        SchemaConflictError: a column is no longer what it was when the stream was described.
    """
    import pyarrow as pa

    arrays: list[pa.Array] = []
    odd: dict[str, pa.Array] = {}
    for raw, column in zip(cells, columns, strict=True):
        array, misfits = fit(raw, column)
        arrays.append(array)
        if misfits is not None:
            odd[column.name] = misfits
    records = pa.RecordBatch.from_arrays(arrays, schema=pa.schema([(c.name, c.arrow) for c in columns]))
    return _set_apart(records, odd, origin) if odd else (records, None)


def fit(raw: pa.Array, column: Column) -> tuple[pa.Array, pa.Array | None]:
    """Return `binary` cells in the column's type, and the text of those that do not fit, else null; None: all fit."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_binary(column.arrow):
        return raw, None
    try:
        return _cast(pc.cast(raw, pa.string()), column.arrow), None
    except pa.ArrowInvalid:
        pass
    texts, not_text = _decoded(raw)
    misfits = pc.if_else(not_text, texts, None)
    texts = pc.if_else(not_text, None, texts)
    if (pattern := _misfit(column.arrow)) is not None:
        is_odd = pc.match_substring_regex(texts, pattern)
        misfits = pc.if_else(pc.fill_null(is_odd, False), texts, misfits)  # noqa: FBT003 - the fill value
        texts = pc.if_else(is_odd, None, texts)
    try:
        return _cast(texts, column.arrow), misfits
    except pa.ArrowInvalid:
        misfits = pc.coalesce(misfits, invalid := _invalid_days(texts))
        texts = pc.if_else(pc.is_valid(invalid), None, texts)
    try:
        return _cast(texts, column.arrow), misfits
    except pa.ArrowInvalid as error:
        raise SchemaConflictError(
            f"column {column.name} was described as {column.arrow} and came as something else: {error}",
            fix="run again",
        ) from error


def _cast(texts: pa.Array, type_: pa.DataType) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_boolean(type_) or pa.types.is_timestamp(type_):
        # Only 0 and 1 are cast to boolean; text without a zone is cast to a time without one first.
        first = pc.cast(texts, pa.timestamp("us") if pa.types.is_timestamp(type_) else pa.bool_())
        return first.cast(pa.int64()).cast(type_) if pa.types.is_timestamp(type_) else first
    if pa.types.is_float32(type_):
        return pc.cast(pc.cast(texts, pa.float64()), type_, safe=False)
    return pc.cast(texts, type_)


def _misfit(type_: pa.DataType) -> str | None:
    """Return the pattern of the texts that MySQL holds in such a column, and Arrow cannot."""
    import pyarrow as pa

    if pa.types.is_date(type_) or pa.types.is_timestamp(type_):
        return _NO_DAY
    return r"^(-?[2-9]|-1|-?\d\d+)$" if pa.types.is_boolean(type_) else None


def _invalid_days(texts: pa.Array) -> pa.Array:
    """Return the texts of days that no calendar has, such as 31 February, which a server can be told to take."""
    import pyarrow as pa

    def is_valid(text: str) -> bool:
        try:
            datetime.fromisoformat(text)
        except ValueError:
            return False
        return True

    return pa.array([None if t is None or is_valid(t) else t for t in texts.to_pylist()], pa.string())


def _decoded(raw: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return bytes as text, and which were none: a rare batch, so its values may be turned into objects."""
    import pyarrow as pa

    texts: list[str | None] = []
    broken: list[bool] = []
    for value in raw.to_pylist():
        text = None if value is None else value.decode(errors="backslashreplace")
        texts.append(text)
        broken.append(text is not None and text.encode() != value)
    return pa.array(texts, pa.string()), pa.array(broken, pa.bool_())


def _set_apart(
    records: pa.RecordBatch, odd: dict[str, pa.Array], origin: str
) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """Split off the records that hold a value of `odd`; they are few, so they may be turned into objects."""
    import pyarrow as pa
    import pyarrow.compute as pc

    is_odd = pc.is_valid(next(iter(odd.values())))
    for texts in odd.values():
        is_odd = pc.or_(is_odd, pc.is_valid(texts))
    if not pc.any(is_odd).as_py():
        return records, None
    given = {name: texts.filter(is_odd).to_pylist() for name, texts in odd.items()}
    rows = []
    for n, record in enumerate(records.filter(is_odd).to_pylist()):
        here = {name: texts[n] for name, texts in given.items() if texts[n] is not None}
        reason = "; ".join(
            f"{name}: {text!r} does not fit {'boolean' if type_ == 'bool' else type_}"
            f"{_FIXES.get('boolean', '') if type_ == 'bool' else ''}"
            for name, text in here.items()
            for type_ in [str(records.schema.field(name).type)]
        )
        raw = json.dumps(record | here, default=str, ensure_ascii=False).encode()
        rows.append({"reason": reason, "raw": raw, "origin": origin, "line": None})
    return records.filter(pc.invert(is_odd)), pa.RecordBatch.from_pylist(rows, schema=unreadable_schema())
