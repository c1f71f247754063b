"""Provenance columns: where a bronze row came from, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from etl_resources.exceptions import SchemaConflictError

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.source import Window

PARTITION = "_partition"
"""Column of bronze tables of partitioned streams: when the partition begins that the row was read for."""
OWN = frozenset({"_batch", "_row", "_read_at", PARTITION})
"""What a source cannot give; `_op`, `_seq` and `_origin` it may."""


def with_provenance(schema: pa.Schema, *, partitioned: bool, where: str) -> pa.Schema:
    """Return the columns of a stream followed by the provenance columns, whether the source gives them or not.

    Raises:
        SchemaConflictError: the source has a column with a name that only the platform may fill.
    """
    import pyarrow as pa

    taken = sorted(OWN.intersection(schema.names))
    if taken:
        raise SchemaConflictError(
            f"the source has a column {taken[0]!r}, which is a name of the platform's own columns",
            where=where,
            fix="rename it where it is read, e.g. in the source's query",
        )
    provenance = {
        "_batch": pa.int64(),
        "_row": pa.int64(),
        "_read_at": pa.timestamp("us", tz="UTC"),
        "_op": pa.string(),
        "_seq": pa.int64(),
        "_origin": pa.string(),
    }
    if partitioned:
        provenance[PARTITION] = pa.string()
    own = [field for field in schema if field.name not in provenance]
    return pa.schema([*own, *provenance.items()])


def identified(
    data: pa.RecordBatch, batch: int, first: int, read_at: datetime, window: Window | None
) -> pa.RecordBatch:
    """Return the rows with every provenance column; `first` is the number of the first row within the batch."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rows, given = data.num_rows, dict(zip(data.schema.names, data.columns, strict=True))
    number = np.arange(first, first + rows, dtype=np.int64)
    columns: dict[str, pa.Array] = {
        "_batch": pa.repeat(pa.scalar(batch, pa.int64()), rows),
        "_row": pa.array(number),
        "_read_at": pa.repeat(pa.scalar(read_at, pa.timestamp("us", tz="UTC")), rows),
    }
    if window is not None:
        columns[PARTITION] = pa.repeat(pa.scalar(window.start.isoformat()), rows)
    defaults: dict[str, Callable[[], pa.Array]] = {
        "_op": lambda: pa.repeat(pa.scalar("read"), rows),
        # Order of arrival: the number of the batch in the upper 31 bits, the row in the lower 32.
        "_seq": lambda: pa.array((batch << 32) + number),
        "_origin": lambda: pa.nulls(rows, pa.string()),
    }
    for name, default in defaults.items():
        if name not in given:
            columns[name] = default()
        elif given[name].null_count and name != "_origin":
            # A NULL in the order or the operation could not be compared.
            own = default()
            columns[name] = pc.coalesce(given[name].cast(own.type), own)
    columns = {**given, **columns}
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
