"""Which Arrow type a Redshift column gets, and how it is selected so that no value changes on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError
from etl_resources.redshift_sql import quote

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.redshift_wire import Field

_KINDS = {
    16: "boolean", 20: "bigint", 21: "smallint", 23: "integer", 26: "oid", 700: "real", 701: "double precision",
    1700: "numeric", 1082: "date", 1114: "timestamp", 1184: "timestamptz", 1083: "time", 1266: "timetz",
    1186: "interval", 1188: "interval year to month", 1190: "interval day to second", 6551: "varbyte",
    4000: "super", 3000: "geometry", 3001: "geography", 18: "char", 19: "name", 25: "text", 1042: "char",
    1043: "varchar",
}  # fmt: skip
_AS_TEXT = frozenset(
    {"date", "timestamp", "timestamptz", "time", "timetz", "interval", "interval year to month",
     "interval day to second"}
)  # fmt: skip
_HEADER = 4
"""What PostgreSQL, and so Redshift, adds to `precision << 16 | scale` in a type modifier."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a stream; `kind` is Redshift's name of its type."""

    name: str
    kind: str
    arrow: pa.DataType

    @property
    def select(self) -> str:
        """Return the expression whose text has every digit."""
        own = f"t.{quote(self.name)}"
        # The text of a REAL ends after eight digits, and it takes nine to tell them all apart.
        return f"{own}::float8" if self.kind == "real" else own

    @property
    def unload(self) -> str:
        """Return the expression whose value survives Parquet, in which times may be of many kinds and resolutions."""
        return f"t.{quote(self.name)}::varchar" if self.kind in _AS_TEXT else self.select


def columns_of(fields: tuple[Field, ...], where: str) -> list[Column]:
    """Return the columns of a result.

    Raises:
        ConfigurationError: two have one name.
    """
    names = [field.name for field in fields]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(
            f"the query gives more than one column {', '.join(doubled)}", where=where, fix="rename with AS"
        )
    return [Column(f.name, _KINDS.get(f.oid, f"type {f.oid}"), _arrow(f)) for f in fields]


def _arrow(field: Field) -> pa.DataType:
    import pyarrow as pa

    kind = _KINDS.get(field.oid, "")
    if kind == "numeric" and field.typmod >= _HEADER:
        packed = field.typmod - _HEADER
        precision, scale = packed >> 16 & 0xFFFF, packed & 0xFFFF
        return pa.decimal128(precision, scale) if scale <= precision <= 38 else pa.string()
    return {
        "boolean": pa.bool_(), "smallint": pa.int16(), "integer": pa.int32(), "bigint": pa.int64(), "oid": pa.int64(),
        "real": pa.float32(), "double precision": pa.float64(), "date": pa.date32(), "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", "UTC"), "varbyte": pa.binary(),
    }.get(kind, pa.string())  # fmt: skip
