"""Which Arrow type a column of MySQL or MariaDB gets, and how it is selected so that no value changes on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from etl_resources.mysql_sql import quote

if TYPE_CHECKING:
    import pyarrow as pa
    from pymysql.protocol import FieldDescriptorPacket

    from etl_resources.mysql_session import Session

TinyInt1 = Literal["boolean", "integer"]
_BINARY_CHARSET = 63
_UNSIGNED, _ENUM, _SET = 0x20, 0x100, 0x800
_TEXT_IN_BINARY_CHARSET = frozenset({11, 245, 247, 248})  # time, json, enum, set


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a stream: `select` gives its values as text (or bytes) that hold all of them, cast to `arrow`."""

    name: str
    select: str
    arrow: pa.DataType
    is_timestamp: bool = False
    """MySQL's TIMESTAMP: a moment in time, and not what a clock shows."""


def describe(session: Session, relation: str, tinyint1: TinyInt1) -> list[Column]:
    """Return the columns that `SELECT * FROM relation AS t` gives."""
    return [_column(field, tinyint1) for field in session.fields(relation)]


def fits(column: Column, field: FieldDescriptorPacket, tinyint1: TinyInt1) -> bool:
    """Return whether what a query gives for the column is still of the form that was described."""
    if column.select != f"t.{quote(column.name)}":
        return field.type_code in {3, 5, 8}  # FLOAT and BIT are sent as DOUBLE and a number
    return _column(field, tinyint1) == column


def _column(field: FieldDescriptorPacket, tinyint1: TinyInt1) -> Column:
    import pyarrow as pa

    own, code = f"t.{quote(field.name)}", field.type_code
    if code == 16:  # BIT: bytes on the wire; a number is told from a flag by its width
        flag, wide = field.length == 1, field.length > 63
        return Column(field.name, f"{own} + 0", pa.bool_() if flag else pa.decimal128(20, 0) if wide else pa.int64())
    if code == 4:  # FLOAT: its own text has six digits of seven to nine; as DOUBLE it has all, and -0.0 keeps its sign
        return Column(field.name, f"{own} * 1e0", pa.float32())
    return Column(field.name, own, _arrow(field, tinyint1), is_timestamp=code in {7, 17})


def _arrow(field: FieldDescriptorPacket, tinyint1: TinyInt1) -> pa.DataType:
    import pyarrow as pa

    unsigned, code = bool(field.flags & _UNSIGNED), field.type_code
    if code == 1 and field.length == 1 and not unsigned and tinyint1 == "boolean":
        return pa.bool_()
    # Delta has no unsigned numbers: each goes where its largest value fits.
    integers = {
        1: (pa.int8(), pa.int16()), 2: (pa.int16(), pa.int32()), 9: (pa.int32(), pa.int32()),
        3: (pa.int32(), pa.int64()), 8: (pa.int64(), pa.decimal128(20, 0)), 13: (pa.int16(), pa.int16()),
    }  # fmt: skip
    others = {
        5: pa.float64(), 6: pa.string(), 10: pa.date32(), 14: pa.date32(), 12: pa.timestamp("us"),
        18: pa.timestamp("us"), 7: pa.timestamp("us", "UTC"), 17: pa.timestamp("us", "UTC"),
    }  # fmt: skip
    if code in integers:
        return integers[code][unsigned]
    if code in others:
        return others[code]
    if code in {0, 246}:
        digits = field.length - (field.scale > 0) - (not unsigned)
        return pa.decimal128(max(digits, 1), field.scale) if digits <= 38 else pa.string()
    is_text = code in _TEXT_IN_BINARY_CHARSET or field.flags & (_ENUM | _SET)
    return pa.string() if is_text or field.charsetnr != _BINARY_CHARSET else pa.binary()
