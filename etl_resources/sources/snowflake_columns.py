"""Which Arrow type a Snowflake column gets, and how what the client gives becomes that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from etl_resources.exceptions import ConfigurationError, SchemaConflictError

if TYPE_CHECKING:
    import pyarrow as pa

Integers = Literal["exact", "int64"]

_TEXT = frozenset({"TEXT", "VARIANT", "OBJECT", "ARRAY", "MAP", "GEOGRAPHY", "GEOMETRY"})
_MOST_INT64 = 18
"""Digits of which any number fits into 64 bits."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a result; `kind` is Snowflake's name of its type."""

    name: str
    kind: str
    arrow: pa.DataType


def as_time(column: Column) -> Column:
    """Return a column of dates as one of their first moments; any other as it is."""
    import pyarrow as pa

    return Column(column.name, "TIMESTAMP_NTZ", pa.timestamp("us")) if column.kind == "DATE" else column


def describe(cursor: Any, query: str, integers: Integers) -> list[Column]:
    """Return the columns of a query, which is compiled and not run.

    Raises:
        ConfigurationError: a column is of a type that is not known here.
    """
    from snowflake.connector.constants import FIELD_ID_TO_NAME

    found = []
    for field in cursor.describe(query):
        kind = FIELD_ID_TO_NAME.get(field.type_code, str(field.type_code))
        found.append(Column(field.name, kind, _arrow(field, kind, integers)))
    return found


def _arrow(field: Any, kind: str, integers: Integers) -> pa.DataType:
    import pyarrow as pa

    if kind == "FIXED":
        precision, scale = field.precision, field.scale or 0
        if scale == 0 and (precision <= _MOST_INT64 or integers == "int64"):
            return pa.int64()
        return pa.decimal128(precision, scale)
    types = {
        "REAL": pa.float64(), "BOOLEAN": pa.bool_(), "BINARY": pa.binary(), "DATE": pa.date32(), "TIME": pa.string(),
        "TIMESTAMP_NTZ": pa.timestamp("us"), "TIMESTAMP_LTZ": pa.timestamp("us", "UTC"),
        "TIMESTAMP_TZ": pa.timestamp("us", "UTC"), **dict.fromkeys(_TEXT, pa.string()),
    }  # fmt: skip
    if kind not in types:
        raise ConfigurationError(
            f"column {field.name} is of type {kind}, which cannot be read",
            fix=f"leave it out by `columns`, or give a `query` that casts it, such as TO_VARCHAR({field.name})",
        )
    return types[kind]


def conformed(table: pa.Table, columns: list[Column], where: str) -> pa.Table:
    """Return a part of a result in the types of the columns.

    Snowflake gives the numbers of each part the least room that they need there.

    Raises:
        SchemaConflictError: a number does not fit into 64 bits, or the columns are others than were described.
    """
    import pyarrow as pa

    if table.column_names != [c.name for c in columns]:
        raise SchemaConflictError("the columns changed while they were read", where=where, fix="run again")
    arrays = []
    for column, values in zip(columns, table.columns, strict=True):
        try:
            arrays.append(values.cast(column.arrow))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            fix = "leave out `integers: int64`" if pa.types.is_int64(column.arrow) else "run again"
            what = f"column {column.name} holds a value that is no {column.arrow}: {error}"
            raise SchemaConflictError(what, where=where, fix=fix) from None
    return pa.Table.from_arrays(arrays, schema=pa.schema([(c.name, c.arrow) for c in columns]))
