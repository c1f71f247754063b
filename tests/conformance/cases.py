"""Case tables of the conformance suite: values that connectors are known to lose, one column per case."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class TypeCase:
    """One column `value` of `type`; its rows also get `id` 0, 1, 2 …"""

    name: str
    type: pa.DataType
    values: tuple[Any, ...]

    def array(self) -> pa.Array:
        return pa.array(self.values, self.type)

    def table(self) -> pa.Table:
        return pa.table({"id": pa.array(range(len(self.values)), pa.int64()), "value": self.array()})


TYPE_CASES = (
    TypeCase("int64", pa.int64(), (0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, None)),
    TypeCase("float64", pa.float64(), (0.0, -0.5, 0.1 + 0.2, 1.7976931348623157e308, 5e-324, None)),
    TypeCase("boolean", pa.bool_(), (True, False, None)),
    TypeCase(
        "decimal_38_0", pa.decimal128(38, 0), (Decimal("9" * 38), Decimal("-" + "9" * 38), Decimal(1), Decimal(0), None)
    ),
    TypeCase(
        "decimal_38_10",
        pa.decimal128(38, 10),
        (Decimal("1234567890123456789012345678.0123456789"), Decimal("-0.0000000001"), Decimal("0E-10"), None),
    ),
    TypeCase("decimal_12_2", pa.decimal128(12, 2), (Decimal("1999.90"), Decimal("-0.01"), Decimal("0.00"), None)),
    TypeCase(
        "string", pa.string(), ("plain", "", " leading and trailing ", None, "NULL", "null", "\\N", "0042", "1e5")
    ),
    TypeCase(
        "unicode",
        pa.string(),
        ("Łódź", "東京", "👩‍👩‍👧‍👦", "e\u0301", "\u00e9", "\u200bzero width", "עברית", "Ω\u2028next"),
    ),
    TypeCase(
        "delimiters",
        pa.string(),
        ('say "hi"', '"', '""', "a,b;c\td|e", "one\ntwo", "one\r\ntwo", "back\\slash", "\\n", "'single'", "\ttab\t"),
    ),
    TypeCase("binary", pa.binary(), (b"\x00\x01\xfe\xff", b"", b"text", b"\\x41", None)),
    TypeCase("date", pa.date32(), (date(1970, 1, 1), date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29), None)),
    TypeCase("time", pa.time64("us"), (time(0, 0), time(23, 59, 59, 999999), time(12, 30, 0, 1), None)),
    TypeCase(
        "timestamp",
        pa.timestamp("us"),
        (datetime(2024, 2, 29, 23, 59, 59, 999999), datetime(1900, 1, 1), datetime(2024, 10, 27, 2, 30), None),
    ),
    TypeCase(
        "timestamp_with_zone",
        pa.timestamp("us", "UTC"),
        (datetime(2024, 2, 29, 23, 59, 59, 999999, UTC), datetime(1969, 12, 31, 23, 59, 59, 1, UTC), None),
    ),
    TypeCase("all_null", pa.string(), (None, None, None)),
    TypeCase(
        "struct",
        pa.struct([("name", pa.string()), ("size", pa.int64())]),
        ({"name": "a", "size": 1}, {"name": None, "size": 2}, {"name": "", "size": None}, None),
    ),
    TypeCase("list", pa.list_(pa.string()), (["a", "b"], [], ["", "ü", None], None)),
    TypeCase(
        "list_of_structs",
        pa.list_(pa.struct([("sku", pa.string()), ("sizes", pa.list_(pa.int64()))])),
        ([{"sku": "a", "sizes": [1, 2]}, {"sku": "b", "sizes": []}], [], None),
    ),
)


def side_by_side(cases: Iterable[TypeCase]) -> pa.Table:
    """Return one table with a column of its own, `value_<name>`, for every case; nulls stand behind its values."""
    listed = list(cases)
    rows = max(len(case.values) for case in listed)
    columns = {f"value_{c.name}": pa.array([*c.values, *[None] * (rows - len(c.values))], c.type) for c in listed}
    return pa.table({"id": pa.array(range(rows), pa.int64()), **columns})


MANY_SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string()), ("amount", pa.float64()), ("note", pa.string())])


def many_rows(rows: int, *, first: int = 0, more: int = 0) -> pa.Table:
    """Return `rows` rows of about 90 bytes and `more`, `id` from `first` on; made without a Python object per row."""
    import pyarrow.compute as pc

    ids = pa.array(range(first, first + rows), pa.int64()) if rows < 1000 else pc.add(_count(rows), first)
    digits = pc.cast(ids, pa.string())
    name = pc.binary_join_element_wise(pa.scalar("customer number"), digits, " ")
    filled = pa.scalar("a note of some length for row" + " and more" * (more // 9))
    note = pc.binary_join_element_wise(filled, digits, digits, " ")
    amount = pc.divide(pc.cast(ids, pa.float64()), 8.0)
    return pa.table([ids, name, amount, note], schema=MANY_SCHEMA)


def _count(rows: int) -> pa.Array:
    import numpy as np

    return pa.array(np.arange(rows, dtype=np.int64))
