"""What happens to a column of a captured table whose type leaves its family.

A Delta column cannot change its type, and the log does not wait until somebody has reloaded the table. So the column
goes on under a new name, `<name>__v2`, and the old one is null from then on.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from etl_resources.delta.evolution import common_type, conform, widest
from etl_resources.exceptions import SchemaConflictError

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.landing import Landing
    from etl_resources.source import Batch

BEFORE = "_before"


def settled(batch: Batch, landing: Landing) -> Batch:
    """Return the batch with columns renamed that the bronze table cannot take under their own name."""
    import pyarrow as pa

    if landing.handle is None:
        return batch
    table = landing.piece.schema if landing.piece is not None else landing.handle.schema()
    data = batch.data
    names = {name: _name_for(table, data, name) for name in data.schema.names if not name.startswith("_")}
    if all(name == new for name, new in names.items()):
        return batch
    given = dict(zip(data.schema.names, data.columns, strict=True))
    columns = [_renamed(column, names) if name == BEFORE else column for name, column in given.items()]
    renamed = pa.RecordBatch.from_arrays(columns, names=[names.get(name, name) for name in given])
    return dataclasses.replace(batch, data=renamed)


def _name_for(table: pa.Schema, data: pa.RecordBatch, name: str) -> str:
    """Return the name of the first generation of a column that can take its values."""
    for generation in itertools.count(1):
        candidate = name if generation == 1 else f"{name}__v{generation}"
        if candidate not in table.names or _fits(table.field(candidate), data.column(name)):
            return candidate
    raise AssertionError("unreachable")


def _fits(field: pa.Field, values: pa.Array) -> bool:
    import pyarrow as pa

    kind = widest(values.type)
    if kind == field.type:
        return True
    if common_type(field.type, kind) is None:
        return False
    try:
        # Numbers of another kind fit as long as their values do.
        conform(pa.RecordBatch.from_arrays([values], names=[field.name]), pa.schema([field]), where="")
    except SchemaConflictError:
        return False
    return True


def _renamed(before: pa.StructArray, names: dict[str, str]) -> pa.StructArray:
    import pyarrow as pa

    fields = [names.get(field.name, field.name) for field in before.type]
    children = [before.field(index) for index in range(before.type.num_fields)]
    return pa.StructArray.from_arrays(children, names=fields, mask=before.is_null())
