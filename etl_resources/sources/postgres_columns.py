"""Which Arrow type a PostgreSQL column gets, and how it is selected so that no value changes on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError
from etl_resources.postgres_sql import literal, quote
from etl_resources.sources.postgres_types import Type, decimal, scalar, type_of

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

_FIRST_DAY, _LAST_MOMENT = "0001-01-01", "9999-12-31 23:59:59.999999"

UNAMBIGUOUS: Mapping[str, str] = {
    "TimeZone": "UTC", "DateStyle": "ISO, YMD", "IntervalStyle": "iso_8601", "extra_float_digits": "1",
    "bytea_output": "hex", "xmloption": "content",
}  # fmt: skip
"""Settings under which the text of a value is exact, and the same whatever the server, database or role is set to."""


def unambiguous(*, local: bool) -> str:
    """Return the query that makes these settings; `local`: only until the end of the transaction."""
    given = (f"set_config({literal(name)}, {literal(value)}, {local})" for name, value in UNAMBIGUOUS.items())
    return f"SELECT {', '.join(given)}"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a stream.

    `select` gives the values in a form that survives the wire; `arrow` is the type they are cast to on arrival.
    `guard`, where there is one, is an expression that is the value's text for values that Arrow cannot hold, else null.
    `type` tells how the value's text is read, which is all that the change log has.
    """

    name: str
    select: str
    arrow: pa.DataType
    guard: str | None = None
    type: Type | None = None


def describe(client: psycopg.Connection[Any], relation: str) -> list[Column]:
    """Return the columns that `SELECT * FROM relation AS t` gives, domains resolved to what they are made of."""
    cursor = client.execute(f"SELECT * FROM {relation} AS t LIMIT 0")  # noqa: S608 - a quoted name, or the user's query
    found = [column.name for column in cursor.description or ()]
    if doubled := sorted({name for name in found if found.count(name) > 1}):
        raise ConfigurationError(f"the query gives more than one column {', '.join(doubled)}", fix="rename with AS")
    if not found or (result := cursor.pgresult) is None:
        raise ConfigurationError("there are no columns to read", where=relation)
    return describe_types(client, [(name, result.ftype(i), result.fmod(i)) for i, name in enumerate(found)])


def describe_types(client: psycopg.Connection[Any], columns: Iterable[tuple[str, int, int]]) -> list[Column]:
    """Return the columns of these names, type oids and typmods: the same, whether they are read or come from the log.

    A type that is no longer there is text.
    """
    from etl_resources.sources.postgres_types import types

    wanted = list(columns)
    known = types(client, [oid for _, oid, _ in wanted])
    return [_column(name, type_of(oid, typmod, known)) for name, oid, typmod in wanted]


def _column(name: str, type_: Type) -> Column:
    own = f"t.{quote(name)}"
    if type_.element is not None:
        return _array(name, own, type_)
    return Column(name, _select(type_).format(own), scalar(type_), type=type_)


def _select(type_: Type) -> str:
    """Return how a value is selected; `{}` stands for it."""
    if type_.kind == "c" or type_.name == "record":
        return "to_json({})::text"
    if type_.is_direct or type_.name in {"json", "jsonb"}:
        return "{}"
    if type_.name == "oid":  # the driver reads it as a signed number
        return "{}::int8"
    if type_.name == "money":  # its own text depends on the locale of the server
        return "{}::numeric::text"
    if type_.name == "xml":  # a mere cast would keep a declaration of an encoding that the text is no longer in
        return "pg_catalog.textin(pg_catalog.xml_out({}))"
    # uuid, enum, inet, interval, time, ranges …: the text is exact, and Delta has no type for any of them.
    return "{}::text"


def _array(name: str, own: str, type_: Type) -> Column:
    import pyarrow as pa

    element = type_.element or type_
    if element.is_direct:
        cast, arrow = "{}", scalar(element)
    elif element.domain or element.name == "xml":  # the text as the type writes it, and not as a cast makes it
        cast, arrow = "({}::text)::text[]", pa.string()
    else:
        cast, arrow = "{}::text[]", decimal(element.typmod) if element.name == "numeric" else pa.string()
    # The driver flattens arrays of arrays and refuses bounds other than 1: such values must not reach it.
    odd = f"array_ndims({own}) > 1 OR array_lower({own}, 1) <> 1"
    if element.is_temporal:
        bounds = f"{literal(_FIRST_DAY)} AND {literal(_LAST_MOMENT)}"
        odd += f" OR EXISTS (SELECT FROM unnest({own}) v WHERE v NOT BETWEEN {bounds})"
    select = f"CASE WHEN ({odd}) IS NOT TRUE THEN {cast.format(own)} END"
    return Column(name, select, pa.list_(arrow), f"CASE WHEN {odd} THEN {own}::text END", type_)
