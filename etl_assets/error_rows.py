"""Rows of `ops/errors`: their columns, and how they are made from what did not get through."""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from etl_assets.run import Run

if TYPE_CHECKING:
    import pyarrow as pa

Status = Literal["open", "replayed", "discarded", "withdrawn", "obsolete"]
"""What has become of an error.

`open`: the row is in no table. `replayed`: it was judged again, and got through or lost to a newer version.
`discarded`: a person gave it up. `withdrawn`: a run that did not come to its commit had found it. `obsolete`: what it
came from was read anew (a newer snapshot, the same partition again, a full refresh).
"""

PERSONAL = ("record", "raw", "reason", "note")
"""Columns that may quote data: the Delta log keeps no minimum and maximum of them."""


def error_schema() -> pa.Schema:
    """Columns of `ops/errors`; `error_id` is `<asset>:<batch>:<row>`, `record` the row as JSON, `raw` unparsed bytes.

    `commit` is the number of the piece of work that found the error, `attempt` the try at it. Events of one error are
    ordered by `event`, which grows with the versions of the table, so that clocks need not agree.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("error_id", pa.string()),
            ("asset", pa.string()),
            ("commit", pa.int64()),
            ("attempt", pa.string()),
            ("batch", pa.int64()),
            ("row", pa.int64()),
            ("status", pa.string()),
            ("rule", pa.string()),
            ("rules", pa.list_(pa.field("element", pa.string()))),
            ("reason", pa.string()),
            ("record", pa.string()),
            ("raw", pa.binary()),
            ("origin", pa.string()),
            ("line", pa.int64()),
            ("run_id", pa.string()),
            ("event", pa.int64()),
            ("happened_at", pa.timestamp("us", tz="UTC")),
            ("note", pa.string()),
        ]
    )


def filled(rows: pa.Table, **values: Any) -> pa.Table:
    """Return rows in `error_schema()`: `values` (arrays, or one for all rows) instead of or beside their columns."""
    import pyarrow as pa

    columns = []
    for field in error_schema():
        value = values.get(field.name)
        if value is None:
            present = field.name in rows.column_names
            column = rows[field.name].cast(field.type) if present else pa.nulls(rows.num_rows, field.type)
        elif isinstance(value, pa.Array | pa.ChunkedArray):
            column = value.cast(field.type)
        else:
            column = pa.repeat(pa.scalar(value, field.type), rows.num_rows)
        columns.append(column)
    return pa.table(columns, schema=error_schema())


def from_unreadable(unreadable: pa.RecordBatch, asset: str, batch: int, first: int, run: Run) -> pa.Table:
    """Return error rows for records that a source could not parse; their numbers begin with `first`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    number = pa.array(range(first, first + unreadable.num_rows), pa.int64())
    return filled(
        pa.Table.from_batches([unreadable]),
        error_id=pc.binary_join_element_wise(pa.scalar(f"{asset}:{batch}:u"), number.cast(pa.string()), ""),
        asset=asset,
        commit=batch,
        batch=batch,
        row=number,
        status="open",
        rule="unreadable",
        rules=["unreadable"],
        run_id=run.run_id,
        happened_at=datetime.now(UTC),
    )


def from_refused(refused: pa.Table, asset: str, number: int, run: Run, seen: Counter[str]) -> pa.Table:
    """Return error rows for rows that a target refused.

    A refused row has no number, so its identity is its content, and `seen` counts equal ones over the whole load: they
    are as many errors.
    """
    import pyarrow as pa

    ids = []
    for record in refused["record"].to_pylist():
        digest = hashlib.sha256((record or "").encode()).hexdigest()[:16]
        seen[digest] += 1
        ids.append(f"{asset}:{number}:{digest}:{seen[digest]}")
    return filled(
        refused,
        error_id=pa.array(ids, pa.string()),
        asset=asset,
        commit=number,
        status="open",
        rules=pa.array([[rule] for rule in refused["rule"].to_pylist()], pa.list_(pa.string())),
        run_id=run.run_id,
        happened_at=datetime.now(UTC),
    )
