"""How the schema of a lake table may change: columns may be added; a type may not narrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from etl_resources.exceptions import SchemaConflictError

if TYPE_CHECKING:
    import pyarrow as pa


def widest(kind: pa.DataType) -> pa.DataType:
    """Return the widest type of the family, in which bronze lands: delta-rs adds columns but cannot widen one."""
    from pyarrow import types

    return _widest_nested(kind) if types.is_nested(kind) else _widest_flat(kind)


def _widest_flat(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(kind):
        return widest(kind.value_type)
    if types.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC" if kind.tz else None)
    if types.is_decimal(kind):
        # Delta has 38 digits; what has more is kept as text.
        return pa.decimal128(kind.precision, kind.scale) if kind.precision <= 38 else pa.string()
    text = (types.is_large_string, types.is_string_view, types.is_time, types.is_null)
    raw = (types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    families: list[tuple[tuple[Callable[[pa.DataType], bool], ...], pa.DataType]] = [
        ((types.is_uint64,), pa.decimal128(20, 0)),
        ((types.is_integer,), pa.int64()),
        ((types.is_floating,), pa.float64()),
        ((types.is_date,), pa.date32()),
        (text, pa.string()),
        (raw, pa.binary()),
    ]
    return next((wide for tests, wide in families if any(test(kind) for test in tests)), kind)


def _widest_nested(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(kind):
        return pa.struct([pa.field(field.name, widest(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(widest(kind.key_type), widest(kind.item_type))
    if any(test(kind) for test in (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view)):
        return pa.list_(pa.field("element", widest(kind.value_type)))
    return kind


def landing_schema(schema: pa.Schema) -> pa.Schema:
    """Return `schema` with every type widened and every column nullable."""
    import pyarrow as pa

    return pa.schema([pa.field(field.name, widest(field.type)) for field in schema])


def merge_schemas(table: pa.Schema, incoming: pa.Schema, *, where: str) -> pa.Schema:
    """Return the schema that holds both: columns (and fields of structs) are added, types stay.

    Raises:
        SchemaConflictError: a column would have to change its type; names every such column and both types.
    """
    import pyarrow as pa

    merged = {field.name: field.type for field in table}
    conflicts: list[str] = []
    for field in incoming:
        known = merged.get(field.name)
        kind = field.type if known is None else common_type(known, field.type)
        if kind is None:
            conflicts.append(f"column {field.name!r} is {known} in the table, {field.type} in the data")
        else:
            merged[field.name] = kind
    if conflicts:
        raise SchemaConflictError(
            "a type would change: " + "; ".join(conflicts),
            where=where,
            fix="cast the column in the steps or in the source's query, or reload the table with --full-refresh",
        )
    return pa.schema(list(merged.items()))


def common_type(column: pa.DataType, incoming: pa.DataType) -> pa.DataType | None:
    """Return the type in which the column goes on after `incoming` has come, or None: that would need a rewrite."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(column) and types.is_struct(incoming):
        fields = {field.name: field.type for field in column}
        for field in incoming:
            known = fields.get(field.name)
            kind = field.type if known is None else common_type(known, field.type)
            if kind is None:
                return None
            fields[field.name] = kind
        return pa.struct(list(fields.items()))
    if types.is_list(column) and types.is_list(incoming):
        element = common_type(column.value_type, incoming.value_type)
        return None if element is None else pa.list_(pa.field("element", element))
    return column if _fits(incoming, column) else None


def _fits(incoming: pa.DataType, column: pa.DataType) -> bool:
    """Tell whether values of `incoming` may go into `column`; among numbers, `conform` looks at the values."""
    from pyarrow import types

    def number(kind: pa.DataType) -> bool:
        return types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)

    if incoming.equals(column) or types.is_null(incoming):
        return True
    if types.is_string(column):
        return types.is_primitive(incoming) or types.is_decimal(incoming)
    return number(incoming) and number(column)


def conform(batch: pa.RecordBatch, schema: pa.Schema, *, where: str) -> pa.RecordBatch:
    """Return `batch` with exactly the columns of `schema`: absent ones null, the others cast without loss.

    Raises:
        SchemaConflictError: a value does not fit its column, e.g. 1.5 in a column of integers.
    """
    import pyarrow as pa

    if batch.schema.equals(schema):
        return batch
    arrays = []
    for field in schema:
        index = batch.schema.get_field_index(field.name)
        if index < 0:
            arrays.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(index)
        try:
            arrays.append(column if column.type.equals(field.type) else _exact(column, field.type))
        except pa.ArrowInvalid as error:
            raise SchemaConflictError(
                f"column {field.name!r} is {field.type} in the table, a value of {column.type} does not fit: {error}",
                where=where,
                fix="cast the column in the source's query, or reload the table with --full-refresh",
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _exact(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast without loss; between decimals and floats Arrow rounds in silence, so the way back must lead to the same."""
    import pyarrow as pa
    from pyarrow import types

    cast = column.cast(kind, safe=True)
    pairs = ((types.is_decimal, types.is_floating), (types.is_floating, types.is_decimal))
    rounds = any(source(column.type) and target(kind) for source, target in pairs)
    if rounds and not cast.cast(column.type, safe=False).equals(column):
        raise pa.ArrowInvalid("it would be rounded")
    return cast
