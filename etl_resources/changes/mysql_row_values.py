"""The values of one column of row images as an Arrow array of the type that the source gives the column."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.changes import mysql_types as kinds
from etl_resources.changes.mysql_json import json_text
from etl_resources.changes.mysql_row_numbers import decimals, integers, wide
from etl_resources.changes.mysql_row_times import moments
from etl_resources.octets import pieces

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.changes.mysql_charsets import Charsets
    from etl_resources.changes.mysql_rows import Images
    from etl_resources.changes.mysql_types import Physical

Found = tuple["pa.Array", "pa.Array | None"]
_NUMBERS = frozenset(
    {kinds.TINY, kinds.SHORT, kinds.INT24, kinds.LONG, kinds.LONGLONG, kinds.YEAR, kinds.FLOAT, kinds.DOUBLE, kinds.BIT}
)
_TIMES = frozenset(
    {kinds.DATE, kinds.DATETIME, kinds.DATETIME2, kinds.TIMESTAMP, kinds.TIMESTAMP2, kinds.TIME, kinds.TIME2}
)
_DASHES = (8, 13, 18, 23)


@dataclass(frozen=True, slots=True)
class Target:
    """What becomes of a column: its Arrow type, and its type in SQL where the log does not tell it (`uuid`)."""

    name: str
    arrow: pa.DataType
    sql: str = ""


def values(
    data: NDArray[np.uint8], raw: bytearray, images: Images, n: int, target: Target, charsets: Charsets
) -> Found:
    """Return column n of the images (`raw` is the bytes of `data`), and the text of what the type cannot hold."""
    cells = Cells(data, raw, images.columns[n], images.at[n], images.nulls[n], images.length[n])
    column, at, nulls = cells.column, cells.at, cells.nulls
    if column.kind in _NUMBERS:
        return _number(integers(data, column, at), nulls, target.arrow)
    if column.kind in _TIMES:
        return moments(data, column, at, nulls)
    if column.kind == kinds.NEWDECIMAL:
        return decimals(data, column, at, nulls, target.arrow), None
    if column.kind in {kinds.ENUM, kinds.SET}:
        return _named(data, column, at, nulls, charsets), None
    return _bytes(cells, target, charsets)


@dataclass(frozen=True, slots=True)
class Cells:
    """Where the values of one column are."""

    data: NDArray[np.uint8]
    raw: bytearray
    column: Physical
    at: NDArray[np.int64]
    nulls: NDArray[np.bool_]
    length: NDArray[np.int64] | None


def _number(numbers: NDArray[Any], nulls: NDArray[np.bool_], type_: pa.DataType) -> Found:
    import numpy as np
    import pyarrow as pa

    if pa.types.is_boolean(type_):
        odd = ((numbers != 0) & (numbers != 1)) & ~nulls
        misfits = pa.array(numbers.astype("U"), pa.string(), mask=~odd) if odd.any() else None
        return pa.array(numbers == 1, pa.bool_(), mask=nulls | odd), misfits
    if pa.types.is_decimal(type_):
        return wide(numbers.astype(np.uint64), np.zeros(len(numbers), np.uint64), nulls, type_), None
    return pa.array(numbers.astype(type_.to_pandas_dtype()), type_, mask=nulls if nulls.any() else None), None


def _named(
    data: NDArray[np.uint8], column: Physical, at: NDArray[np.int64], nulls: NDArray[np.bool_], charsets: Charsets
) -> pa.Array:
    """Return the names of an ENUM (a number from 1; 0 is its empty error value), or those of a SET (one bit each)."""
    import numpy as np
    import pyarrow as pa

    codes = np.zeros(len(at), np.uint64)
    for n in range(column.width):
        codes |= data[at + n].astype(np.uint64) << np.uint64(8 * n)
    names = [charsets.text(name, column.charset) for name in column.names]
    if column.kind == kinds.ENUM:
        known = pa.array(["", *names], pa.string())
        return known.take(pa.array(codes.astype(np.int64), mask=nulls if nulls.any() else None))
    distinct, which = np.unique(codes, return_inverse=True)
    texts = [",".join(n for bit, n in enumerate(names) if code >> bit & 1) for code in distinct.tolist()]
    return pa.array(texts, pa.string()).take(pa.array(which.ravel(), mask=nulls if nulls.any() else None))


def _bytes(places: Cells, target: Target, charsets: Charsets) -> Found:
    import pyarrow as pa

    from etl_resources.sources.mysql_columns import Column
    from etl_resources.sources.mysql_values import fit

    column = places.column
    if places.length is None or not len(places.at):
        return pa.array([], target.arrow), None
    cells = pieces(places.raw, places.at, places.at + places.length, places.nulls)
    if column.kind == kinds.JSON:
        # No library reads MySQL's binary JSON, and each document is a world of its own.
        return pa.array([None if v is None else json_text(v) for v in cells.to_pylist()], pa.string()), None
    if column.kind == kinds.STRING and column.charset == kinds.BINARY_CHARSET:
        cells = _filled(cells, column.size)
        if pa.types.is_string(target.arrow):
            return _special(cells, target.sql), None
    if pa.types.is_binary(target.arrow):
        return cells, None
    return fit(charsets.texts(cells, column.charset), Column(target.name, "", target.arrow))


def _filled(cells: pa.Array, size: int) -> pa.Array:
    """Put back the zero bytes at the end of BINARY(n), which are not stored."""
    import numpy as np
    import pyarrow as pa

    offsets = np.frombuffer(cells.buffers()[1], np.int32)[: len(cells) + 1].astype(np.int64)
    values = np.frombuffer(cells.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    lengths = np.diff(offsets)
    whole = np.zeros(len(cells) * size, np.uint8)
    row = np.repeat(np.arange(len(cells)), lengths)
    whole[row * size + np.arange(len(values)) - (offsets[:-1] - offsets[0])[row]] = values
    ends = np.arange(len(cells) + 1, dtype=np.int32) * np.int32(size)
    valid = cells.buffers()[0] if cells.null_count else None
    return pa.Array.from_buffers(pa.binary(), len(cells), [valid, pa.py_buffer(ends), pa.py_buffer(whole)])


def _special(cells: pa.Array, sql: str) -> pa.Array:
    """Return MariaDB's UUID and addresses, which are kept as bytes, as the text that the server shows."""
    import pyarrow as pa

    if sql == "uuid":
        return _uuids(cells)
    family = socket.AF_INET6 if sql == "inet6" else socket.AF_INET
    known = cells.dictionary_encode()
    shown = [socket.inet_ntop(family, value) for value in known.dictionary.to_pylist()]
    return pa.array(shown, pa.string()).take(known.indices)


def _uuids(cells: pa.Array) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    data = np.frombuffer(cells.buffers()[2], np.uint8)[: 16 * len(cells)].reshape(-1, 16)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    shown = np.full((len(cells), 36), ord("-"), np.uint8)
    places = np.array([n for n in range(36) if n not in _DASHES])
    shown[:, places[0::2]], shown[:, places[1::2]] = digits[data >> 4], digits[data & 15]
    ends = np.arange(len(cells) + 1, dtype=np.int32) * np.int32(36)
    valid = cells.buffers()[0] if cells.null_count else None
    return pa.Array.from_buffers(pa.string(), len(cells), [valid, pa.py_buffer(ends), pa.py_buffer(shown)])
