"""Arrow tables brought into a wider schema: columns and struct fields that are not there become null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import SchemaConflictError

if TYPE_CHECKING:
    import pyarrow as pa


def align(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table with the columns of `schema`, which has all of its columns and struct fields, or wider ones.

    Raises:
        pyarrow.ArrowInvalid: a value does not survive the cast.
    """
    import pyarrow as pa

    if table.schema == schema:
        return table
    names = set(table.column_names)
    columns = [
        pa.chunked_array([_align(c, f.type) for c in table.column(f.name).chunks], f.type)
        if f.name in names else pa.nulls(table.num_rows, f.type)
        for f in schema
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=schema)


def _align(array: Any, kind: pa.DataType) -> Any:
    import pyarrow as pa
    from pyarrow import types

    if array.type == kind:
        return array
    if types.is_struct(kind) and types.is_struct(array.type):
        old = {f.name: n for n, f in enumerate(array.type)}
        # `field` leaves the parent's nulls alone; they are put back by the mask.
        children = [
            _align(array.field(old[f.name]), f.type) if f.name in old else pa.nulls(len(array), f.type) for f in kind
        ]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())
    if types.is_list(kind) and types.is_list(array.type):
        values = _align(array.flatten(), kind.value_type)
        lengths = array.value_lengths().fill_null(0)
        return pa.ListArray.from_arrays(_offsets(lengths), values, type=kind, mask=array.is_null())
    return array.cast(kind)


def _offsets(lengths: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])


def common_schema(a: pa.Schema, b: pa.Schema, origin: str) -> pa.Schema:
    """Return the columns of `a`, then those that only `b` has; a type is widened within its family only.

    Raises:
        SchemaConflictError: a column has two types without a common one.
    """
    import pyarrow as pa

    merged = {f.name: f.type for f in a}
    for field in b:
        kind = merged.get(field.name, field.type)
        common = _common_type(kind, field.type)
        if common is None:
            raise SchemaConflictError(
                f"column {field.name} was {kind} in the files before, and is {field.type} in {origin}", where=origin,
                fix="read the two kinds of files as two streams",
            )  # fmt: skip
        merged[field.name] = common
    return pa.schema(list(merged.items()))


def _common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """Return the narrowest type of one family that holds both; None: there is none."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(a) and types.is_struct(b):
        return pa.struct(list(common_schema(pa.schema(list(a)), pa.schema(list(b)), "a file")))
    if types.is_list(a) and types.is_list(b):
        value = _common_type(a.value_type, b.value_type)
        return pa.list_(value) if value else None
    if a == b or types.is_null(b):
        return a
    families = (types.is_integer, types.is_floating, types.is_decimal, _is_text, types.is_timestamp)
    if not types.is_null(a) and not any(family(a) and family(b) for family in families):
        return None
    try:
        schemas = [pa.schema([("", kind)]) for kind in (a, b)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return None


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))
