"""Remote procedure calls: which procedure, and its parameters as T-SQL literals."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

PROCEDURES = {10: "sp_executesql", 11: "sp_prepare", 12: "sp_execute", 13: "sp_prepexec", 15: "sp_unprepare"}


@dataclass
class Call:
    """One call; every parameter is its name and its value."""

    procedure: str
    parameters: list[tuple[str, Any]]


def skip_headers(body: bytes) -> int:
    """Return where ALL_HEADERS end."""
    return int(struct.unpack_from("<I", body)[0])


def parse(body: bytes) -> Call:
    """Read the first call of an RPC request."""
    reader = _Reader(body, skip_headers(body))
    length = reader.number("<H")
    if length == 0xFFFF:
        number = reader.number("<H")
        procedure = PROCEDURES.get(number, f"procedure {number}")
    else:
        procedure = reader.take(2 * length).decode("utf-16-le").lower()
    reader.number("<H")
    parameters = []
    while reader.at < len(body):
        name = reader.take(2 * reader.number("<B")).decode("utf-16-le")
        reader.number("<B")
        parameters.append((name, reader.value()))
    return Call(procedure, parameters)


def literal(value: Any) -> str:  # noqa: PLR0911 - one per type
    """Return a value as T-SQL text."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float | Decimal):
        return repr(value) if not isinstance(value, Decimal) else format(value, "f")
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    quoted = str(value).replace("'", "''")
    if isinstance(value, datetime):
        return f"CAST('{quoted}' AS {'datetimeoffset' if value.tzinfo else 'datetime2'})"
    if isinstance(value, date):
        return f"CAST('{quoted}' AS date)"
    return f"N'{quoted}'"


class _Reader:
    def __init__(self, body: bytes, at: int) -> None:
        self.body, self.at = body, at

    def take(self, size: int) -> bytes:
        taken = self.body[self.at : self.at + size]
        self.at += size
        return taken

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def value(self) -> Any:
        """Read TYPE_INFO and the value after it."""
        kind = self.number("<B")
        if kind in {0xE7, 0xEF, 0xA5, 0xAD, 0xA7, 0xAF}:
            return self._text_or_bytes(kind)
        scale = 0
        if kind in {0x6A, 0x6C}:
            scale = self.take(3)[2]
        elif kind in {0x29, 0x2A, 0x2B}:
            scale = self.number("<B")
        elif kind != 0x28:
            self.number("<B")
        raw = self.take(self.number("<B"))
        return self._fixed(kind, raw, scale) if raw else None

    def _text_or_bytes(self, kind: int) -> Any:
        largest = self.number("<H")
        if kind in {0xE7, 0xEF, 0xA7, 0xAF}:
            self.take(5)
        if largest == 0xFFFF:
            if self.number("<Q") == 2**64 - 1:
                return None
            raw = b""
            while length := self.number("<I"):
                raw += self.take(length)
        else:
            length = self.number("<H")
            if length == 0xFFFF:
                return None
            raw = self.take(length)
        return raw if kind in {0xA5, 0xAD} else raw.decode("utf-16-le" if kind in {0xE7, 0xEF} else "cp1252")

    @staticmethod
    def _fixed(kind: int, raw: bytes, scale: int) -> Any:
        if kind == 0x26:
            return int.from_bytes(raw, "little", signed=len(raw) > 1)
        if kind == 0x68:
            return bool(raw[0])
        if kind == 0x6D:
            return struct.unpack("<d" if len(raw) == 8 else "<f", raw)[0]
        if kind in {0x6A, 0x6C}:
            number = Decimal(int.from_bytes(raw[1:], "little")).scaleb(-scale)
            return number if raw[0] else -number
        if kind == 0x24:
            return UUID(bytes_le=raw)
        return _moment(kind, raw, scale)


def _moment(kind: int, raw: bytes, scale: int) -> Any:
    if kind == 0x28:
        return date.fromordinal(int.from_bytes(raw, "little") + 1)
    minutes = 0
    if kind == 0x2B:
        minutes, raw = int.from_bytes(raw[-2:], "little", signed=True), raw[:-2]
    day = date(1970, 1, 1)
    if kind != 0x29:
        day, raw = date.fromordinal(int.from_bytes(raw[-3:], "little") + 1), raw[:-3]
    micros = int.from_bytes(raw, "little") * 10**6 // 10**scale
    moment = datetime(day.year, day.month, day.day) + timedelta(microseconds=micros)
    if kind == 0x29:
        return moment.time().isoformat()
    return f"{moment + timedelta(minutes=minutes)}{minutes // 60:+03d}:{minutes % 60:02d}" if kind == 0x2B else moment
