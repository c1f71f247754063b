"""Which Arrow type a SQL Server column gets, and how it is selected so that no value changes on the way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError, EngineError, NotFoundError
from etl_resources.hints import nearest
from etl_resources.sqlserver_sql import literal, quote
from etl_resources.tables import split_name

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.source import Window
    from etl_resources.sqlserver_session import Session

_NO_COLUMN, _NO_TABLE = 207, 208
_UNNAMED, _DOUBLED = 8155, 8156
_TIMES = frozenset({"date", "datetime", "datetime2", "smalldatetime", "datetimeoffset"})
_CONVERTED = {
    "geography": "{}.ToString()", "geometry": "{}.ToString()", "hierarchyid": "{}.ToString()",
    "xml": "CAST({} AS nvarchar(max))", "ntext": "CAST({} AS nvarchar(max))", "json": "CAST({} AS nvarchar(max))",
    "vector": "CAST({} AS nvarchar(max))", "text": "CAST({} AS varchar(max))", "image": "CAST({} AS varbinary(max))",
    "sql_variant": "CAST({} AS nvarchar(4000))",
}  # fmt: skip
"""Types that the driver does not fetch into columns, or into others than these."""
_INTEGERS = frozenset({"bigint", "int", "smallint", "tinyint"})


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a stream: its declared type, such as `decimal(12,2)`, how it is selected, what it arrives as."""

    name: str
    declared: str
    select: str
    arrow: pa.DataType

    @property
    def type_name(self) -> str:
        """The declared type without what stands in brackets."""
        return self.declared.partition("(")[0]

    @property
    def is_version(self) -> bool:
        """Whether the server gives a new value to every row version: rowversion, whose old name is timestamp."""
        return self.type_name in {"timestamp", "rowversion"}

    @property
    def is_time(self) -> bool:
        """Whether its values are days or moments."""
        return self.type_name in _TIMES

    @property
    def is_number(self) -> bool:
        """Whether its values are whole numbers."""
        return self.type_name in _INTEGERS or bool(re.fullmatch(r"(decimal|numeric)\(\d+,\s*0\)", self.declared))


def find_table(session: Session, name: str, where: str) -> str:
    """Return the quoted name of a table or view; upper and lower case count only if two names differ in them.

    Raises:
        NotFoundError: there is none; names the nearest.
    """
    schema, table = split_name(name, "[]")
    rows = session.rows("SELECT TABLE_SCHEMA, TABLE_NAME, SCHEMA_NAME() FROM INFORMATION_SCHEMA.TABLES")
    wanted = [row for row in rows if row[0].lower() == (schema or row[2]).lower() and row[1].lower() == table.lower()]
    exact = [row for row in wanted if row[1] == table and row[0] == (schema or row[2])]
    if found := exact or wanted:
        return quote(found[0][0], found[0][1])
    names = [f"{s}.{t}" for s, t, _ in rows] + [t for s, t, default in rows if s == default]
    raise NotFoundError(f"there is no table {name}", where=where, fix=nearest(name, names) or "check the table name")


def describe(session: Session, relation: str, where: str) -> list[Column]:
    """Return the columns of a query, without running it.

    Raises:
        NotFoundError, ConfigurationError, EngineError: what the server says is wrong with it.
    """
    rows = session.rows(
        "SELECT name, COALESCE(system_type_name, user_type_name), error_number, error_message"  # noqa: S608 - a literal
        f" FROM sys.dm_exec_describe_first_result_set({literal(relation)}, NULL, 0)"
        " WHERE is_hidden = 0 OR error_number IS NOT NULL ORDER BY column_ordinal"
    )
    for _, _, number, message in rows:
        if number is not None:
            raise _refused(number, message, where)
    names = [name for name, *_ in rows]
    if not all(names):
        raise ConfigurationError("the query gives a column without a name", where=where, fix="name it with AS")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"the query gives more than one column {', '.join(doubled)}", fix="rename with AS")
    return [_column(name, declared.lower()) for name, declared, *_ in rows]


def _refused(number: int, message: str, where: str) -> Exception:
    if number in {_NO_COLUMN, _NO_TABLE}:
        return NotFoundError(message, where=where, fix="check the query")
    if number in {_UNNAMED, _DOUBLED}:
        return ConfigurationError(message, where=where, fix="name every column once, with AS")
    return EngineError(message, where=where)


def _column(name: str, declared: str) -> Column:
    import pyarrow as pa

    own, type_name = f"t.{quote(name)}", declared.partition("(")[0]
    if type_name in {"decimal", "numeric"}:
        precision, scale = map(int, declared.partition("(")[2].rstrip(")").split(","))
        return Column(name, declared, own, pa.decimal128(precision, scale))
    if type_name in _CONVERTED:
        arrow = pa.binary() if type_name == "image" else pa.string()
        return Column(name, declared, _CONVERTED[type_name].format(own), arrow)
    arrow = {
        "bigint": pa.int64(), "int": pa.int32(), "smallint": pa.int16(), "tinyint": pa.int16(), "bit": pa.bool_(),
        "float": pa.float64(), "real": pa.float32(), "money": pa.decimal128(19, 4),
        "smallmoney": pa.decimal128(10, 4), "date": pa.date32(), "datetime": pa.timestamp("us"),
        "datetime2": pa.timestamp("us"), "smalldatetime": pa.timestamp("us"),
        "datetimeoffset": pa.timestamp("us", "UTC"), "binary": pa.binary(), "varbinary": pa.binary(),
        "timestamp": pa.binary(), "rowversion": pa.binary(),
    }.get(type_name, pa.string())  # fmt: skip
    # char, nchar, varchar, nvarchar, uniqueidentifier as they are, and time, for which Delta has no type.
    return Column(name, declared, own, arrow)


def moment(value: datetime, column: Column) -> str:
    """Return a moment as a value that a column of dates or times can be compared with; without a zone: UTC."""
    utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if column.type_name == "datetimeoffset":
        return f"CAST({literal(utc.isoformat(' '))} AS datetimeoffset(7))"
    return f"CAST({literal(utc.replace(tzinfo=None).isoformat(' '))} AS datetime2(7))"


def in_window(window: Window, column: Column) -> str:
    """Return the condition for rows in the window; times without a zone are taken for UTC.

    Raises:
        ConfigurationError: the column holds no times.
    """
    if not column.is_time:
        raise ConfigurationError(
            f"column {column.name} is of type {column.declared}", fix="partition by a date or time"
        )
    # A date is compared as its first moment, so that windows shorter than a day do not all contain it.
    own = f"CAST(t.{quote(column.name)} AS datetime2(7))" if column.type_name == "date" else f"t.{quote(column.name)}"
    return f"{own} >= {moment(window.start, column)} AND {own} < {moment(window.end, column)}"
