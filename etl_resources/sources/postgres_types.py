"""What the catalogue says about types: what they are made of, and which Arrow type holds their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

_TEMPORAL = frozenset({"date", "timestamp", "timestamptz"})
_DIRECT = _TEMPORAL | {
    "bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "bpchar", "name", "bytea",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Type:
    """A type with its modifier, domains resolved; a type that nobody knows is named ''.

    `kind` is pg_type.typtype (b base, c composite, e enum, p pseudo, r range, m multirange).
    """

    name: str
    kind: str = "b"
    typmod: int = -1
    element: Type | None = None
    """Of an array."""
    delimiter: str = ","
    fields: tuple[tuple[str, Type], ...] = ()
    """Of a composite type."""
    scale: int = 0
    """Of money: the digits behind the point."""
    domain: bool = False

    @property
    def is_direct(self) -> bool:
        """The driver gives it as the Arrow type that it gets; so not a domain, of which the driver knows nothing."""
        return self.kind == "b" and self.name in _DIRECT and not self.domain

    @property
    def is_temporal(self) -> bool:
        """A date or a timestamp."""
        return self.is_direct and self.name in _TEMPORAL


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of pg_type; `base`, `base_typmod`: what a domain is over; `fields`: name, type, typmod."""

    name: str
    kind: str
    element: int
    delimiter: str
    base: int
    base_typmod: int
    fields: tuple[tuple[str, int, int], ...]
    scale: int


_CATALOGUE = """
    SELECT t.oid, t.typname, t.typtype::text, t.typdelim::text,
        CASE WHEN t.typcategory = 'A' AND t.typname NOT IN ('int2vector', 'oidvector') THEN t.typelem::int8 ELSE 0 END,
        t.typbasetype::int8, t.typtypmod,
        CASE WHEN t.oid = 790 THEN scale(0::money::numeric) ELSE 0 END,
        ARRAY(SELECT ROW(a.attname::text, a.atttypid::int8, a.atttypmod) FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY a.attnum)
    FROM pg_catalog.pg_type t WHERE t.oid = ANY(%s)
"""


def types(client: psycopg.Connection[Any], oids: Iterable[int]) -> dict[int, Entry]:
    """Return the types and all that they are made of."""
    known: dict[int, Entry] = {}
    wanted = set(oids)
    while wanted:
        parts: set[int] = set()
        for oid, name, kind, delimiter, element, base, base_typmod, scale, fields in client.execute(
            _CATALOGUE, [list(wanted)]
        ):
            attributes = tuple((field, int(type_), int(typmod)) for field, type_, typmod in fields)
            known[oid] = Entry(name, kind, element, delimiter, base, base_typmod, attributes, scale)
            parts |= {element, base, *(type_ for _, type_, _ in attributes)} - {0}
        wanted = parts - set(known)
        if not parts:
            break
    return known


def type_of(oid: int, typmod: int, known: Mapping[int, Entry]) -> Type:
    """Return the type with this modifier."""
    entry = known.get(oid)
    if entry is None:
        return Type("")
    if entry.kind == "d":
        return type_of(entry.base, entry.base_typmod, known)
    element = None
    if entry.element:
        # What an array is of keeps its domain: values of a domain are text there.
        element = type_of(entry.element, typmod, known)
        if entry.element in known and known[entry.element].kind == "d":
            element = Type(element.name, element.kind, element.typmod, element.element, domain=True)
    fields = tuple((name, type_of(type_, mod, known)) for name, type_, mod in entry.fields)
    return Type(entry.name, entry.kind, typmod, element, entry.delimiter, fields, entry.scale)


def scalar(type_: Type) -> pa.DataType:
    """Return the Arrow type that holds the values of a type that is no array."""
    import pyarrow as pa

    if type_.kind != "b":
        return pa.string()
    if type_.name == "numeric":
        return decimal(type_.typmod)
    return {
        "bool": pa.bool_(), "int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(), "oid": pa.int64(),
        "float4": pa.float32(), "float8": pa.float64(), "bytea": pa.binary(), "date": pa.date32(),
        "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", "UTC"),
    }.get(type_.name, pa.string())  # fmt: skip


def decimal(typmod: int) -> pa.DataType:
    """Return the type of `numeric(p, s)`; text where none is declared, or one beyond the 38 digits of Delta."""
    import pyarrow as pa

    if typmod < 0:
        return pa.string()
    packed = typmod - 4
    precision, scale = packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024
    # PostgreSQL knows numeric(2, -3), which has five digits, and numeric(3, 5), which has five behind the point.
    precision, scale = max(precision - min(scale, 0), scale), max(scale, 0)
    return pa.decimal128(precision, scale) if precision <= 38 else pa.string()
