"""Arrow columns as TDS columns: COLMETADATA, and rows encoded column by column with NumPy."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tests.servers.tds_wire import COLLATION

LAST_DIGIT = int(os.environ.get("TDS_LAST_DIGIT", "0"))
"""The seventh digit of all times, which the DuckDB behind this does not keep."""
_EPOCH = 719_162  # days from 0001-01-01 to 1970-01-01
_DAY_US = 86_400_000_000
_HALF_STANDS_FOR = "\ue000".encode("utf-16-le")
"""Goes out as half of a surrogate pair: nvarchar can hold that, and neither UTF-8 nor the DuckDB behind this can."""
_FIXED = {
    "tinyint": (0x26, 1), "smallint": (0x26, 2), "int": (0x26, 4), "bigint": (0x26, 8), "bit": (0x68, 1),
    "real": (0x6D, 4), "float": (0x6D, 8), "money": (0x6E, 8), "datetime": (0x6F, 8), "uniqueidentifier": (0x24, 16),
}  # fmt: skip
_INTEGERS = {"tinyint": np.uint8, "smallint": np.int16, "int": np.int32, "bigint": np.int64, "bit": np.uint8}
_TIME_BYTES = {0: 3, 1: 3, 2: 3, 3: 4, 4: 4, 5: 5, 6: 5, 7: 5}


@dataclass(frozen=True)
class SqlType:
    """A T-SQL type: `name`, and what stands in its brackets (`length` -1: max)."""

    name: str
    length: int = 0
    scale: int = 0

    @classmethod
    def parse(cls, text: str) -> SqlType:
        """Read `decimal(12, 2)`, `nvarchar(max)`, `datetime2` …"""
        match = re.fullmatch(r"\s*\[?(\w+)\]?\s*(?:\(\s*(\w+)\s*(?:,\s*(\d+)\s*)?\))?\s*", text.lower())
        if not match:
            raise ValueError(f"no type: {text}")
        name, first, second = match.groups()
        name = {"timestamp": "rowversion", "numeric": "decimal", "integer": "int", "double": "float"}.get(name, name)
        if name in {"time", "datetime2", "datetimeoffset"}:
            return cls(name, scale=7 if first is None else int(first))
        if name == "decimal":
            return cls(name, int(first or 18), int(second or 0))
        if name == "rowversion":
            return cls(name, 8)
        if name in {"xml", "ntext", "text"}:
            return cls("nvarchar", -1)
        return cls(name, -1 if first == "max" else int(first or 1) if name.endswith(("char", "binary")) else 0)

    def __str__(self) -> str:
        if self.name == "decimal":
            return f"decimal({self.length},{self.scale})"
        if self.name in {"time", "datetime2", "datetimeoffset"}:
            return f"{self.name}({self.scale})"
        if self.name.endswith(("char", "binary")):
            return f"{self.name}({'max' if self.length < 0 else self.length})"
        return "timestamp" if self.name == "rowversion" else self.name


def describe(type_: SqlType) -> bytes:
    """Return TYPE_INFO."""
    if type_.name in _FIXED:
        return bytes(_FIXED[type_.name])
    if type_.name == "date":
        return b"\x28"
    if type_.name in {"time", "datetime2", "datetimeoffset"}:
        return bytes([{"time": 0x29, "datetime2": 0x2A, "datetimeoffset": 0x2B}[type_.name], type_.scale])
    if type_.name == "decimal":
        return bytes([0x6A, 17, type_.length, type_.scale])
    code = {"nvarchar": 0xE7, "nchar": 0xEF, "varchar": 0xE7, "char": 0xEF, "varbinary": 0xA5, "binary": 0xAD}
    code["rowversion"] = 0xAD
    characters = type_.name.endswith("char")
    size = 0xFFFF if type_.length < 0 else type_.length * 2 if characters else type_.length
    return struct.pack("<BH", code[type_.name], size) + (COLLATION if characters else b"")


def column_metadata(columns: list[tuple[str, SqlType]]) -> bytes:
    """Return COLMETADATA."""
    found = b"\x81" + struct.pack("<H", len(columns))
    for name, type_ in columns:
        user_type = 0x50 if type_.name == "rowversion" else 0
        found += struct.pack("<IH", user_type, 0x0009) + describe(type_)
        found += bytes([len(name)]) + name.encode("utf-16-le")
    return found


def rows(batch: pa.RecordBatch, types: list[SqlType]) -> memoryview:
    """Return all rows of the batch as ROW or, where there are nulls, NBCROW tokens."""
    count = batch.num_rows
    if not count:
        return memoryview(b"")
    nulls = [np.asarray(pc.is_null(column)) for column in batch.columns]
    parts = [_encode(column, type_) for column, type_ in zip(batch.columns, types, strict=True)]
    sizes = [np.where(null, 0, part.sizes) for part, null in zip(parts, nulls, strict=True)]
    head = np.zeros((count, 1 + (len(types) + 7) // 8), np.uint8)
    head[:, 0] = 0xD2
    for n, null in enumerate(nulls):
        head[:, 1 + n // 8] |= null.astype(np.uint8) << (n % 8)
    if not any(null.any() for null in nulls):
        head = np.full((count, 1), 0xD1, np.uint8)
    total = head.shape[1] + np.sum(sizes, axis=0, dtype=np.int64)
    at = np.concatenate(([0], np.cumsum(total)))
    out = np.empty(at[-1], np.uint8)
    place = at[:-1].copy()
    out[place[:, None] + np.arange(head.shape[1])] = head
    place += head.shape[1]
    for part, size in zip(parts, sizes, strict=True):
        part.put(out, place, size)
        place += size
    return memoryview(out)


@dataclass
class _Part:
    """The bytes of one column: a prefix of fixed width, content of any width, a suffix of fixed width."""

    prefix: Any
    content: Any
    lengths: Any
    suffix: bytes = b""

    @property
    def sizes(self) -> Any:
        # Nothing at all has no chunk: the length of its first chunk is the terminator itself.
        return self.prefix.shape[1] + self.lengths + np.where(self.lengths > 0, len(self.suffix), 0)

    def put(self, out: Any, place: Any, sizes: Any) -> None:
        """Write the rows whose size is not 0 to their places."""
        there = sizes > 0
        starts = place[there]
        width = self.prefix.shape[1]
        out[starts[:, None] + np.arange(width)] = self.prefix[there]
        if isinstance(self.content, np.ndarray) and self.content.ndim == 2:
            out[(starts + width)[:, None] + np.arange(self.content.shape[1])] = self.content[there]
            return
        lengths = np.where(there, self.lengths, 0)
        moved = np.repeat(place + width - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
        out[moved] = self.content
        if self.suffix:
            ends = (place + width + lengths)[lengths > 0]
            out[ends[:, None] + np.arange(len(self.suffix))] = np.frombuffer(self.suffix, np.uint8)


def _fixed(matrix: Any, *, length_byte: bool = True) -> _Part:
    matrix = np.ascontiguousarray(matrix)
    width = matrix.shape[1]
    prefix = np.full((len(matrix), 1 if length_byte else 0), width, np.uint8)
    return _Part(prefix, matrix, np.full(len(matrix), width))


def _bytes_of(values: Any) -> Any:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)


def _encode(column: pa.Array, type_: SqlType) -> _Part:  # noqa: PLR0911 - one per type
    if type_.name.endswith("char"):
        content, lengths = _utf16(column.cast(pa.large_string()))
        return _variable(content, lengths, plp=type_.length < 0)
    if type_.name.endswith("binary") or type_.name == "rowversion":
        content, lengths = _raw(pc.fill_null(column.cast(pa.large_binary()), b""))
        return _variable(content, lengths, plp=type_.length < 0)
    if type_.name in _INTEGERS:
        return _fixed(_bytes_of(_numbers(column).astype(_INTEGERS[type_.name])))
    if type_.name in {"float", "real"}:
        values = np.asarray(pc.fill_null(column.cast(pa.float64()), 0.0))
        return _fixed(_bytes_of(values.astype(np.float64 if type_.name == "float" else np.float32)))
    if type_.name == "decimal":
        return _decimals(column, type_)
    if type_.name == "money":
        zero = pa.scalar(Decimal(0), pa.decimal128(19, 4))
        raw = pc.negate(pc.negate(pc.fill_null(column.cast(zero.type), zero))).buffers()[1]
        value = np.frombuffer(raw, np.int64)[: 2 * len(column) : 2]
        return _fixed(np.hstack([_bytes_of((value >> 32).astype(np.int32)), _bytes_of(value.astype(np.uint32))]))
    if type_.name == "uniqueidentifier":
        texts = pc.replace_substring(pc.fill_null(column.cast(pa.string()), "0" * 32), "-", "")
        raw = np.frombuffer(bytes.fromhex("".join(texts.to_pylist())), np.uint8).reshape(-1, 16)
        return _fixed(raw[:, [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]])
    return _moments(column, type_)


def _numbers(column: pa.Array) -> Any:
    return np.asarray(pc.fill_null(column.cast(pa.int64()), 0))


def _moments(column: pa.Array, type_: SqlType) -> _Part:
    """Dates and times: ticks of the day in `scale` digits, then the day counted from 0001-01-01, then the offset."""
    if type_.name == "date":
        return _fixed(_days(np.asarray(pc.fill_null(column.cast(pa.int32()), 0)).astype(np.int64)))
    if type_.name == "time":
        micros = np.asarray(pc.fill_null(column.cast(pa.time64("us")).cast(pa.int64()), 0))
        return _fixed(_ticks(micros, type_.scale))
    micros = np.asarray(pc.fill_null(column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64()), 0))
    days, micros = np.divmod(micros, _DAY_US)
    if type_.name == "datetime":  # days since 1900, 1/300 s
        ticks = np.rint(micros * 3 / 10_000).astype(np.int32)
        return _fixed(np.hstack([_bytes_of((days + 25_567).astype(np.int32)), _bytes_of(ticks)]))
    columns = [_ticks(micros, type_.scale), _days(days)]
    if type_.name == "datetimeoffset":
        columns.append(np.zeros((len(days), 2), np.uint8))
    return _fixed(np.hstack(columns))


def _days(days: Any) -> Any:
    return _bytes_of((days + _EPOCH).astype(np.int64))[:, :3]


def _ticks(micros: Any, scale: int) -> Any:
    ticks = micros * 10 + LAST_DIGIT if scale == 7 else micros // 10 ** (6 - scale)
    return _bytes_of(ticks.astype(np.int64))[:, : _TIME_BYTES[scale]]


def _decimals(column: pa.Array, type_: SqlType) -> _Part:
    """A sign, then the digits as a number without one."""
    zero = pa.scalar(Decimal(0), pa.decimal128(type_.length, type_.scale))
    column = pc.fill_null(column.cast(zero.type), zero)
    sign = np.asarray(pc.greater_equal(column, zero)).astype(np.uint8)
    raw = pc.abs(column).buffers()[1]
    digits = np.frombuffer(raw, np.uint8).reshape(-1, 16)[: len(column)]
    return _fixed(np.hstack([sign[:, None], digits]))


def _raw(column: pa.Array) -> tuple[Any, Any]:
    column = pa.concat_arrays([column])  # offsets from 0 on
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    return data, np.diff(offsets)


def _utf16(column: pa.Array) -> tuple[Any, Any]:
    data, lengths = _raw(pc.fill_null(column, ""))
    units = ((data & 0xC0) != 0x80).astype(np.int64) + (data >= 0xF0)
    ends = np.concatenate(([0], np.cumsum(units)))[np.concatenate(([0], np.cumsum(lengths)))]
    text = data.tobytes().decode("utf-8").encode("utf-16-le").replace(_HALF_STANDS_FOR, b"\x3d\xd8")
    return np.frombuffer(text, np.uint8), np.diff(ends) * 2


def _variable(content: Any, lengths: Any, *, plp: bool) -> _Part:
    if not plp:
        return _Part(_bytes_of(lengths.astype(np.uint16)), content, lengths)
    # The whole length, one chunk, and an empty chunk as its end.
    prefix = np.hstack([_bytes_of(lengths.astype(np.int64)), _bytes_of(lengths.astype(np.uint32))])
    return _Part(prefix, content, lengths, b"\x00\x00\x00\x00")
