"""Which Arrow type a PostgreSQL column gets, and how it is selected so that no value changes on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError
from etl_resources.postgres_sql import literal, quote

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

_DIRECT = ("bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "bpchar", "name", "bytea")
_TEMPORAL = ("date", "timestamp", "timestamptz")
_JSON = ("json", "jsonb")
_FIRST_DAY, _LAST_MOMENT = "0001-01-01", "9999-12-31 23:59:59.999999"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a stream.

    `select` gives the values in a form that survives the wire; `arrow` is the type they are cast to on arrival.
    `guard`, where there is one, is an expression that is the value's text for values that Arrow cannot hold, else null.
    """

    name: str
    select: str
    arrow: pa.DataType
    guard: str | None = None


@dataclass(frozen=True, slots=True)
class _Type:
    name: str
    kind: str
    """b base, c composite, d domain, e enum, p pseudo, r range, m multirange"""
    element: str | None
    element_kind: str | None


def describe(client: psycopg.Connection[Any], relation: str) -> list[Column]:
    """Return the columns that `SELECT * FROM relation AS t` gives, domains resolved to what they are made of."""
    cursor = client.execute(f"SELECT * FROM {relation} AS t LIMIT 0")  # noqa: S608 - a quoted name, or the user's query
    found = [column.name for column in cursor.description or ()]
    if doubled := sorted({name for name in found if found.count(name) > 1}):
        raise ConfigurationError(f"the query gives more than one column {', '.join(doubled)}", fix="rename with AS")
    if not found or (result := cursor.pgresult) is None:
        raise ConfigurationError("there are no columns to read", where=relation)
    types = _types(client, [result.ftype(i) for i in range(len(found))])
    return [_column(name, types[result.ftype(i)], result.fmod(i)) for i, name in enumerate(found)]


def _types(client: psycopg.Connection[Any], oids: list[int]) -> dict[int, _Type]:
    rows = client.execute(
        "SELECT t.oid, t.typname, t.typtype::text, e.typname, e.typtype::text FROM pg_catalog.pg_type t"
        " LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' WHERE t.oid = ANY(%s)",
        [oids],
    )
    return {oid: _Type(name, kind, element, element_kind) for oid, name, kind, element, element_kind in rows}


def _column(name: str, type_: _Type, typmod: int) -> Column:
    own = f"t.{quote(name)}"
    if type_.element is not None and type_.name not in {"int2vector", "oidvector"}:
        return _array(name, own, type_, typmod)
    cast, arrow = _scalar(type_.name, type_.kind, typmod)
    return Column(name, cast.format(own), arrow)


def _scalar(type_name: str, kind: str, typmod: int) -> tuple[str, pa.DataType]:
    """Return how a value is selected (`{}` stands for it), and its Arrow type."""
    import pyarrow as pa

    if kind == "c" or type_name == "record":
        return "to_json({})::text", pa.string()
    if type_name in _DIRECT or type_name in _TEMPORAL or type_name in _JSON:
        return "{}", _direct(type_name)
    if type_name == "oid":  # the driver reads it as a signed number
        return "{}::int8", pa.int64()
    if type_name == "numeric":
        return "{}::text", _decimal(typmod)
    if type_name == "money":  # its own text depends on the locale of the server
        return "{}::numeric::text", pa.string()
    # uuid, enum, inet, interval, time, xml, ranges …: the text is exact, and Delta has no type for any of them.
    return "{}::text", pa.string()


def _direct(type_name: str) -> pa.DataType:
    import pyarrow as pa

    return {
        "bool": pa.bool_(), "int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(), "float4": pa.float32(),
        "float8": pa.float64(), "bytea": pa.binary(), "date": pa.date32(), "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", "UTC"),
    }.get(type_name, pa.string())  # fmt: skip


def _decimal(typmod: int) -> pa.DataType:
    """Return the type of `numeric(p, s)`; text where none is declared, or one beyond the 38 digits of Delta."""
    import pyarrow as pa

    if typmod < 0:
        return pa.string()
    packed = typmod - 4
    precision, scale = packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024
    # PostgreSQL knows numeric(2, -3), which has five digits, and numeric(3, 5), which has five behind the point.
    precision, scale = max(precision - min(scale, 0), scale), max(scale, 0)
    return pa.decimal128(precision, scale) if precision <= 38 else pa.string()


def _array(name: str, own: str, type_: _Type, typmod: int) -> Column:
    import pyarrow as pa

    element, kind = type_.element or "", type_.element_kind or ""
    if element in _DIRECT or element in _TEMPORAL:
        cast, arrow = "{}", _direct(element)
    else:
        cast, arrow = "{}::text[]", _decimal(typmod) if element == "numeric" and kind == "b" else pa.string()
    # The driver flattens arrays of arrays and refuses bounds other than 1: such values must not reach it.
    odd = f"array_ndims({own}) > 1 OR array_lower({own}, 1) <> 1"
    if element in _TEMPORAL:
        bounds = f"{literal(_FIRST_DAY)} AND {literal(_LAST_MOMENT)}"
        odd += f" OR EXISTS (SELECT FROM unnest({own}) v WHERE v NOT BETWEEN {bounds})"
    select = f"CASE WHEN ({odd}) IS NOT TRUE THEN {cast.format(own)} END"
    return Column(name, select, pa.list_(arrow), guard=f"CASE WHEN {odd} THEN {own}::text END")
