"""How the schema of a lake table may change: columns may be added; a type may not narrow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl_resources.exceptions import SchemaConflictError

if TYPE_CHECKING:
    import pyarrow as pa


def widest(kind: pa.DataType) -> pa.DataType:
    """Return the widest type of the family, in which bronze lands: delta-rs adds columns but cannot widen one."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_uint64(kind):
        return pa.decimal128(20, 0)
    if types.is_integer(kind):
        return pa.int64()
    if types.is_floating(kind):
        return pa.float64()
    if types.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC" if kind.tz else None)
    if types.is_date(kind):
        return pa.date32()
    if types.is_dictionary(kind):
        return widest(kind.value_type)
    if types.is_large_string(kind) or types.is_string_view(kind) or types.is_time(kind) or types.is_null(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_fixed_size_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    if types.is_decimal256(kind):
        return pa.decimal128(kind.precision, kind.scale) if kind.precision <= 38 else pa.string()
    if types.is_struct(kind):
        return pa.struct([pa.field(field.name, widest(field.type)) for field in kind])
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or types.is_list_view(kind):
        return pa.list_(pa.field("element", widest(kind.value_type)))
    if types.is_map(kind):
        return pa.map_(widest(kind.key_type), widest(kind.item_type))
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
            fix="cast the column in the pipeline's steps or the source's query, or reload the table with --full-refresh",
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
    """Tell whether values of `incoming` may go into `column`; among numbers `conform` looks at the values themselves."""
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
            arrays.append(column if column.type.equals(field.type) else column.cast(field.type, safe=True))
        except pa.ArrowInvalid as error:
            raise SchemaConflictError(
                f"column {field.name!r} is {field.type} in the table, and a value of {column.type} does not fit: {error}",
                where=where,
                fix="cast the column in the source's query, or reload the table with --full-refresh",
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
