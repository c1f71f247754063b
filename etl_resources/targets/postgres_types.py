"""Which PostgreSQL type an Arrow column gets, what it may be written into, and the form in which it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.engines.kept import database
from etl_resources.exceptions import SchemaConflictError

if TYPE_CHECKING:
    import pyarrow as pa

_INTEGERS = ("int2", "int4", "int8")
TEXTS = frozenset({"text", "varchar", "bpchar", "citext"})
"""Types that hold text: it is stored in them without a cast, which would cut what is too long."""
# What the server checks when text is cast to it, without changing a value in silence.
_FROM_TEXT = frozenset({
    "json", "jsonb", "uuid", "inet", "cidr", "macaddr", "macaddr8", "xml", "interval", "time", "timetz", "numeric",
    "ltree", "hstore",
})  # fmt: skip
_SQL_NAMES = {
    "bool": "boolean", "int2": "smallint", "int4": "integer", "int8": "bigint", "float4": "real",
    "float8": "double precision", "timestamptz": "timestamp with time zone", "timestamp": "timestamp",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wire:
    """How a column is sent: `arrow` is what it is cast to, `name` the PostgreSQL type with that binary form."""

    arrow: pa.DataType
    name: str
    is_list: bool = False
    as_json: bool = False
    """The values are turned into JSON text first."""

    @property
    def sql(self) -> str:
        """The type as SQL writes it."""
        import pyarrow as pa

        if self.as_json:
            return "jsonb"
        element = self.arrow.value_type if self.is_list else self.arrow
        name = _SQL_NAMES.get(self.name, self.name)
        if pa.types.is_decimal(element):
            name = f"numeric({element.precision}, {element.scale})"
        return f"{name}[]" if self.is_list else name


@dataclass(frozen=True, slots=True)
class Existing:
    """A column of a table that is there: `sql` is its type in SQL, `name` that of the type under all domains."""

    sql: str
    name: str
    kind: str
    """b base, e enum, d domain, r range …"""
    typmod: int
    is_list: bool
    is_domain: bool
    generated: bool


def wire(type_: pa.DataType) -> Wire:
    """Return how a column of this Arrow type is sent.

    Raises:
        SchemaConflictError: PostgreSQL has no type that holds it.
    """
    import pyarrow as pa

    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        element = wire(type_.value_type)
        if element.is_list or element.as_json:
            return Wire(pa.string(), "text", as_json=True)
        return Wire(pa.list_(element.arrow), element.name, is_list=True)
    if pa.types.is_nested(type_):
        return Wire(pa.string(), "text", as_json=True)
    if isinstance(type_, pa.BaseExtensionType):
        return wire(type_.storage_type)
    if pa.types.is_dictionary(type_):
        return wire(type_.value_type)
    return _temporal(type_) if pa.types.is_temporal(type_) else _plain(type_)


def _plain(type_: pa.DataType) -> Wire:
    import pyarrow as pa

    if pa.types.is_decimal(type_):
        if type_.scale < 0:
            return Wire(pa.decimal256(type_.precision - type_.scale, 0), "numeric")
        return Wire(type_ if type_.bit_width >= 128 else pa.decimal128(type_.precision, type_.scale), "numeric")
    if type_ == pa.uint64():  # the driver would send it as a signed number
        return Wire(pa.decimal128(20, 0), "numeric")
    families: tuple[tuple[tuple[pa.DataType, ...], pa.DataType, str], ...] = (
        ((pa.bool_(),), pa.bool_(), "bool"),
        ((pa.int8(), pa.int16(), pa.uint8()), pa.int16(), "int2"),
        ((pa.int32(), pa.uint16()), pa.int32(), "int4"),
        ((pa.int64(), pa.uint32()), pa.int64(), "int8"),
        ((pa.float16(), pa.float32()), pa.float32(), "float4"),
        ((pa.float64(),), pa.float64(), "float8"),
        ((pa.string(), pa.large_string(), pa.string_view(), pa.null()), pa.string(), "text"),
        ((pa.binary(), pa.large_binary(), pa.binary_view()), pa.binary(), "bytea"),
    )
    for members, arrow, name in families:
        if type_ in members:
            return Wire(arrow, name)
    if pa.types.is_fixed_size_binary(type_):
        return Wire(pa.binary(), "bytea")
    raise SchemaConflictError(f"PostgreSQL has no type for {type_}", fix="cast the column in the pipeline")


def _temporal(type_: pa.DataType) -> Wire:
    import pyarrow as pa

    if getattr(type_, "unit", None) == "ns":
        raise SchemaConflictError(f"{type_} is finer than PostgreSQL's microseconds", fix="cast the column to `us`")
    if pa.types.is_timestamp(type_):
        return Wire(pa.timestamp("us", "UTC"), "timestamptz") if type_.tz else Wire(pa.timestamp("us"), "timestamp")
    if pa.types.is_date(type_):
        return Wire(pa.date32(), "date")
    if pa.types.is_time(type_):
        return Wire(pa.time64("us"), "time")
    if pa.types.is_duration(type_):
        return Wire(pa.duration("us"), "interval")
    raise SchemaConflictError(f"PostgreSQL has no type for {type_}", fix="cast the column in the pipeline")


def fits(sent: Wire, column: Existing) -> bool | None:
    """Return whether the column takes what is sent as it is (True), after a cast whose every value the server checks
    (False), or not without a risk to change values in silence (None)."""
    if sent.is_list != column.is_list and not (sent.is_list is False and sent.as_json):
        return None
    if sent.as_json:
        return False if column.name in {"json", "jsonb", "text"} and not column.is_list else None
    same = _same(sent, column)
    if same and column.is_domain:
        return False
    return same if same is not None else _cast(sent, column)


def _same(sent: Wire, column: Existing) -> bool | None:
    """Return True for the same type, False where it must be cast, None where it is another type or a narrower one."""
    if sent.name == "text" and column.name == "varchar":
        return not sent.is_list  # the binary form of a list names the type of its elements
    if sent.name != column.name:
        return None
    if column.typmod < 0:
        return True
    if sent.name == "numeric":
        element = sent.arrow.value_type if sent.is_list else sent.arrow
        return True if _scale(column.typmod) >= element.scale else None
    return None if sent.name in {"timestamp", "timestamptz", "time", "interval"} and column.typmod < 6 else True


def _scale(typmod: int) -> int:
    return (((typmod - 4) & 0x7FF) ^ 1024) - 1024


def _cast(sent: Wire, column: Existing) -> bool | None:
    """Return False where the server's cast is exact or fails, None otherwise."""
    import pyarrow as pa

    whole = sent.name in _INTEGERS or (pa.types.is_decimal(sent.arrow) and sent.arrow.scale == 0)
    if column.name in TEXTS:
        exact = sent.name == "text" or (column.name == "text" and sent.name != "bytea")
    elif whole:
        exact = column.name in _INTEGERS or (column.name == "float8" and sent.name in {"int2", "int4"})
        exact = exact or (column.name == "numeric" and (column.typmod < 0 or _scale(column.typmod) >= 0))
    elif sent.name == "text":
        exact = column.kind in {"e", "r"} or (column.name in _FROM_TEXT and column.typmod < 0)
    else:
        exact = (sent.name, column.name) in {("float4", "float8"), ("date", "timestamp")}
    return False if exact else None


def to_wire(batch: pa.RecordBatch, wires: Sequence[Wire]) -> list[pa.Array]:
    """Return the columns of the batch in the form in which they are sent."""
    import pyarrow as pa
    import pyarrow.compute as pc

    arrays = []
    for array, sent in zip(batch.columns, wires, strict=True):
        plain = array.storage if isinstance(array, pa.ExtensionArray) else array
        if sent.as_json:
            arrays.append(_as_json(plain))
        else:
            arrays.append(plain if plain.type == sent.arrow else pc.cast(plain, sent.arrow))
    return arrays


def _as_json(array: pa.Array) -> pa.Array:
    import pyarrow as pa

    values = pa.table({"v": array})
    with database(None, {}) as connection:
        connection.register("nested", values)
        query = "SELECT CASE WHEN v IS NULL THEN NULL ELSE to_json(v)::VARCHAR END AS v FROM nested"
        texts = connection.sql(query).to_arrow_table()
    return texts.column("v").combine_chunks().cast(pa.string())
