"""What a TABLE_MAP event says of a table: how each column's values are laid out, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etl_resources.changes.mysql_events import packed
from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

TINY, SHORT, LONG, FLOAT, DOUBLE, TIMESTAMP, LONGLONG, INT24 = 1, 2, 3, 4, 5, 7, 8, 9
DATE, TIME, DATETIME, YEAR, VARCHAR, BIT, TIMESTAMP2, DATETIME2, TIME2 = 10, 11, 12, 13, 15, 16, 17, 18, 19
VECTOR, JSON, NEWDECIMAL, ENUM, SET, BLOB, VAR_STRING, STRING, GEOMETRY = 242, 245, 246, 247, 248, 252, 253, 254, 255
BINARY_CHARSET = 63
_ONE_BYTE_OF_META = frozenset({FLOAT, DOUBLE, BLOB, GEOMETRY, JSON, VECTOR, TIMESTAMP2, DATETIME2, TIME2})
_TWO_BYTES_OF_META = frozenset({VARCHAR, BIT, NEWDECIMAL, VAR_STRING, STRING})
_NUMBERS = frozenset({TINY, SHORT, INT24, LONG, LONGLONG, FLOAT, DOUBLE, NEWDECIMAL, YEAR})
_TEXTS = frozenset({VARCHAR, VAR_STRING, STRING, BLOB})
_FIXED = {
    TINY: 1, SHORT: 2, INT24: 3, LONG: 4, LONGLONG: 8, FLOAT: 4, DOUBLE: 8, YEAR: 1, DATE: 3, TIME: 3, DATETIME: 8,
    TIMESTAMP: 4,
}  # fmt: skip
_DIGITS = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""Bytes that so many digits of a DECIMAL take."""


@dataclass(slots=True)
class Physical:
    """One column as the rows of the binlog hold it."""

    name: str
    kind: int
    nullable: bool
    width: int = 0
    """Bytes of every value; 0: a length comes first."""
    prefix: int = 0
    """Bytes of that length."""
    precision: int = 0
    scale: int = 0
    """Digits behind the point: of a decimal, or of seconds."""
    unsigned: bool = False
    charset: int = BINARY_CHARSET
    size: int = 0
    """The most bytes that a CHAR or BINARY has; the bits of a BIT."""
    names: tuple[bytes, ...] = ()
    """Of an ENUM or SET."""

    def arrow(self) -> pa.DataType:
        """Return the type that the source gives such a column, as far as the log alone can tell."""
        import pyarrow as pa

        integers = {
            TINY: (pa.int8(), pa.int16()), SHORT: (pa.int16(), pa.int32()), INT24: (pa.int32(), pa.int32()),
            LONG: (pa.int32(), pa.int64()), LONGLONG: (pa.int64(), pa.decimal128(20, 0)),
            YEAR: (pa.int16(), pa.int16()),
        }  # fmt: skip
        if self.kind in integers:
            return integers[self.kind][self.unsigned]
        if self.kind == NEWDECIMAL:
            return pa.decimal128(self.precision, self.scale) if self.precision <= 38 else pa.string()
        if self.kind == BIT:
            return pa.bool_() if self.size == 1 else pa.int64() if self.size < 64 else pa.decimal128(20, 0)
        others = {
            FLOAT: pa.float32(), DOUBLE: pa.float64(), DATE: pa.date32(), DATETIME: pa.timestamp("us"),
            DATETIME2: pa.timestamp("us"), TIMESTAMP: pa.timestamp("us", "UTC"), TIMESTAMP2: pa.timestamp("us", "UTC"),
            TIME: pa.string(), TIME2: pa.string(), ENUM: pa.string(), SET: pa.string(), JSON: pa.string(),
            GEOMETRY: pa.binary(), VECTOR: pa.binary(),
        }  # fmt: skip
        if self.kind in others:
            return others[self.kind]
        return pa.binary() if self.charset == BINARY_CHARSET else pa.string()


@dataclass(slots=True)
class TableMap:
    """A table at one moment of the log. Equal `body` means equal everything."""

    database: str
    table: str
    columns: list[Physical] = field(default_factory=list)
    key: tuple[str, ...] = ()
    """The primary key; empty where there is none, or it is of prefixes."""


def identity(body: bytes) -> tuple[int, str, str]:
    """Return the number by which rows name the table, its database and its name; nothing else is looked at."""
    length = body[8]
    at = 9 + length + 1
    table = body[at + 1 : at + 1 + body[at]]
    return int.from_bytes(body[:6], "little"), body[9 : 9 + length].decode(), table.decode()


def parse(body: bytes, where: str, *, mariadb: bool) -> TableMap:
    """Return what the body of a TABLE_MAP event says; MariaDB counts geometries among the texts, and MySQL vectors.

    Raises:
        ConfigurationError: the server does not log the names of columns, or has a type that is not known.
    """
    _, database, table = identity(body)
    at = 9 + body[8] + 1
    at += 1 + body[at] + 1
    count, at = packed(body, at)
    kinds = body[at : at + count]
    size, at = packed(body, at + count)
    columns = [Physical("", kind, nullable=True) for kind in kinds]
    meta = body[at : at + size]
    at += size
    for n, column in enumerate(columns):
        column.nullable = bool(body[at + n // 8] >> n % 8 & 1)
    _lay_out(columns, meta, f"table {database}.{table}, {where}")
    extra = _fields(body[at + (count + 7) // 8 :])
    if 4 not in extra:
        raise ConfigurationError(
            "the binlog does not hold the names of columns", where=f"table {database}.{table}, {where}",
            fix="SET GLOBAL binlog_row_metadata = 'FULL' on the server, and read the stream anew",
        )  # fmt: skip
    texts = _TEXTS | {GEOMETRY if mariadb else VECTOR}
    return TableMap(database, table, columns, _describe(columns, extra, texts))


def _fields(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(data):
        kind = data[at]
        length, at = packed(data, at + 1)
        found[kind] = data[at : at + length]
        at += length
    return found


def _lay_out(columns: list[Physical], meta: bytes, where: str) -> None:
    """Fill in widths and lengths."""
    at = 0
    for column in columns:
        kind = column.kind
        first, second = (*meta[at : at + 2], 0, 0)[:2]
        at += 1 if kind in _ONE_BYTE_OF_META else 2 if kind in _TWO_BYTES_OF_META else 0
        if kind in _FIXED:
            column.width = _FIXED[kind]
        elif kind in {BLOB, GEOMETRY, JSON, VECTOR}:
            column.prefix = first
        elif kind in {VARCHAR, VAR_STRING}:
            column.size = first + (second << 8)
            column.prefix = 1 if column.size < 256 else 2
        elif kind == STRING:
            _lay_out_string(column, first, second)
        elif kind == NEWDECIMAL:
            column.precision, column.scale = first, second
            whole = first - second
            column.width = whole // 9 * 4 + _DIGITS[whole % 9] + second // 9 * 4 + _DIGITS[second % 9]
        elif kind == BIT:
            column.size = first + 8 * second
            column.width = (column.size + 7) // 8
        elif kind in {TIMESTAMP2, DATETIME2, TIME2}:
            column.scale = first
            column.width = {TIMESTAMP2: 4, DATETIME2: 5, TIME2: 3}[kind] + (first + 1) // 2
        else:
            raise ConfigurationError(
                f"a column is of type {kind}, which is not known here", where=where,
                fix="leave the table out; COMPRESSED columns can be altered to plain ones",
            )  # fmt: skip


def _lay_out_string(column: Physical, first: int, second: int) -> None:
    if first in {ENUM, SET}:
        column.kind, column.width = first, second
        return
    # Two bits of lengths above 255 hide in the type.
    column.size = second | ((first & 0x30) ^ 0x30) << 4
    column.prefix = 1 if column.size < 256 else 2


def _describe(columns: list[Physical], extra: dict[int, bytes], texts: frozenset[int]) -> tuple[str, ...]:
    """Fill in what FULL metadata says; return the primary key."""
    for column, name in zip(columns, _strings(extra[4]), strict=True):
        column.name = name.decode()
    for n, column in enumerate(c for c in columns if c.kind in _NUMBERS):
        column.unsigned = bool(extra.get(1, b"")[n // 8] >> (7 - n % 8) & 1)
    _charsets([c for c in columns if c.kind in texts], extra.get(2), extra.get(3))
    _charsets([c for c in columns if c.kind in {ENUM, SET}], extra.get(10), extra.get(11))
    for kind, what in ((SET, 5), (ENUM, 6)):
        at, data = 0, extra.get(what, b"")
        for column in (c for c in columns if c.kind == kind):
            count, at = packed(data, at)
            names = []
            for _ in range(count):
                length, at = packed(data, at)
                names.append(data[at : at + length])
                at += length
            column.names = tuple(names)
    return tuple(columns[n].name for n in _numbers(extra.get(8, b"")))


def _charsets(columns: list[Physical], default: bytes | None, each: bytes | None) -> None:
    if each is not None:
        for column, charset in zip(columns, _numbers(each), strict=True):
            column.charset = charset
    elif default is not None:
        usual, *others = _numbers(default)
        for column in columns:
            column.charset = usual
        for n, charset in zip(others[0::2], others[1::2], strict=True):
            columns[n].charset = charset


def _numbers(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        number, at = packed(data, at)
        found.append(number)
    return found


def _strings(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        length, at = packed(data, at)
        found.append(data[at : at + length])
        at += length
    return found
