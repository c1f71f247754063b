"""MySQL's binary JSON as the text that the server itself shows."""

from __future__ import annotations

import json
from decimal import Decimal
from struct import unpack_from

from etl_resources.changes import mysql_types as kinds

_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY, _LITERAL = 0, 1, 2, 3, 4
_NUMBERS = {5: ("<h", 2), 6: ("<H", 2), 7: ("<i", 4), 8: ("<I", 4), 9: ("<q", 8), 10: ("<Q", 8), 11: ("<d", 8)}
_STRING, _OPAQUE = 12, 15
_LITERALS = {0: "null", 1: "true", 2: "false"}


def json_text(document: bytes) -> str:
    """Return the text of a document; an empty one is the null that a default of nothing leaves."""
    return _value(document[0], document, 1) if document else "null"


def _value(kind: int, data: bytes, at: int) -> str:
    if kind in {_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY}:
        return _container(kind, data, at)
    if kind == _LITERAL:
        return _LITERALS[data[at]]
    if kind == 11:
        return _double(unpack_from("<d", data, at)[0])
    if kind in _NUMBERS:
        return str(unpack_from(_NUMBERS[kind][0], data, at)[0])
    if kind == _STRING:
        size, at = _length(data, at)
        return _quoted(data[at : at + size].decode())
    if kind == _OPAQUE:
        size, begin = _length(data, at + 1)
        return _opaque(data[at], data[begin : begin + size])
    raise ValueError(f"JSON holds a value of type {kind}, which is not known here")


def _container(kind: int, data: bytes, at: int) -> str:
    large, is_object = kind in {_LARGE_OBJECT, _LARGE_ARRAY}, kind in {_SMALL_OBJECT, _LARGE_OBJECT}
    form, width = ("<I", 4) if large else ("<H", 2)
    count = unpack_from(form, data, at)[0]
    keys = at + 2 * width
    entries = keys + count * (width + 2) * is_object
    parts = []
    for n in range(count):
        entry = entries + n * (1 + width)
        inner = data[entry]
        inlined = inner in {4, 5, 6} or (large and inner in {7, 8})
        place = entry + 1 if inlined else at + unpack_from(form, data, entry + 1)[0]
        text = _value(inner, data, place)
        if is_object:
            key = keys + n * (width + 2)
            begin, size = at + unpack_from(form, data, key)[0], unpack_from("<H", data, key + width)[0]
            text = f"{_quoted(data[begin : begin + size].decode())}: {text}"
        parts.append(text)
    return ("{%s}" if is_object else "[%s]") % ", ".join(parts)


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    size = shift = 0
    while True:
        byte = data[at]
        size |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return size, at


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _double(value: float) -> str:
    """Return the shortest text, as MySQL writes it: `1.0`, `1e20`, `0.00000015`."""
    shortest = Decimal(repr(value))
    power = shortest.adjusted()
    if shortest == 0 or -15 <= power < 15:
        text = format(shortest, "f")
        return text if "." in text else f"{text}.0"
    digits = "".join(map(str, shortest.as_tuple().digits)).rstrip("0")
    fraction = f".{digits[1:]}" if digits[1:] else ""
    return f"{'-' if value < 0 else ''}{digits[0]}{fraction}e{power}"


def _opaque(kind: int, data: bytes) -> str:
    """Return a value of SQL that JSON has no type for: decimals as numbers, times as text, bytes in base 64."""
    if kind == kinds.NEWDECIMAL:
        return _decimal(data)
    if kind in {kinds.DATE, kinds.DATETIME, kinds.TIMESTAMP, kinds.TIME}:
        return _quoted(_time(kind, int.from_bytes(data, "little", signed=True)))
    import base64

    return _quoted(f"base64:type{kind}:{base64.b64encode(data).decode()}")


def _decimal(data: bytes) -> str:
    """Return a decimal: its digits before and behind the point, in groups of nine from the point on."""
    precision, scale = data[0], data[1]
    value, negative = bytearray(data[2:]), not data[2] & 0x80
    value[0] ^= 0x80
    if negative:
        value = bytearray(byte ^ 0xFF for byte in value)
    whole = precision - scale
    digits, at = "", 0
    for count in (whole % 9, *[9] * (whole // 9), *[9] * (scale // 9), scale % 9):
        size = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)[count]
        digits += f"{int.from_bytes(value[at : at + size], 'big'):0{count}d}" if count else ""
        at += size
    return format(Decimal((int(negative), tuple(map(int, digits)), -scale)), "f")


def _time(kind: int, packed: int) -> str:
    sign, packed = ("-", -packed) if packed < 0 else ("", packed)
    micros, whole = packed & 0xFFFFFF, packed >> 24
    hour, minute, second = whole >> 12 & (0x3FF if kind == kinds.TIME else 31), whole >> 6 & 63, whole & 63
    clock = f"{hour:02d}:{minute:02d}:{second:02d}.{micros:06d}"
    if kind == kinds.TIME:
        return sign + clock
    months, day = whole >> 22, whole >> 17 & 31
    date = f"{months // 13:04d}-{months % 13:02d}-{day:02d}"
    return date if kind == kinds.DATE else f"{date} {clock}"
