"""Rows that a cursor has found, as events of a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from etl_assets.table_diff_staged import check_names
from etl_resources.change_log import READ, event_fields
from etl_resources.source import unreadable_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.source import Batch

GIVEN = ("_op", "_origin")
"""What a source may say about its records itself."""


class Events:
    """Gives rows their place: the epoch, and the order in which they came."""

    def __init__(self, key: Sequence[str], log: pa.Schema | None, where: str) -> None:
        self.key, self.log, self.where = tuple(key), log, where
        self.pos, self.number = 0, 0

    def begin(self, pos: int) -> None:
        """Go on in a new epoch."""
        self.pos, self.number = pos, 0

    def of(self, batch: Batch) -> Batch:
        """Return the batch with its rows as events; those without a key go to the unreadable ones.

        Raises:
            SchemaConflictError: the source has a column with a name of the events' own, or none of the key's.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = batch.data
        names = [name for name in rows.schema.names if name != "_seq"]
        check_names(rows.schema, self.key, self.log, where=self.where)
        lacking = pa.repeat(pa.scalar(False), rows.num_rows)  # noqa: FBT003 - the value
        for name in self.key:
            lacking = pc.or_(lacking, pc.is_null(rows[name]))
        unreadable = batch.unreadable
        if lacking.true_count:
            unreadable = self._keyless(rows.select(names).filter(lacking), unreadable)
            rows = rows.filter(pc.invert(lacking))
        return replace(batch, data=self._placed(rows.select(names)), unreadable=unreadable)

    def _placed(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        count = rows.num_rows
        row = pa.schema([field for field in rows.schema if field.name not in GIVEN])
        columns = {name: rows[name] for name in rows.schema.names}
        columns["_op"] = pc.fill_null(columns["_op"], READ) if "_op" in columns else pa.repeat(pa.scalar(READ), count)
        columns["_pos"] = pa.repeat(pa.scalar(self.pos, pa.int64()), count)
        columns["_seq"] = pa.array(np.arange(self.number, self.number + count, dtype=np.int64))
        self.number += count
        schema = pa.schema([*row, *event_fields(row)])
        arrays = [
            columns[field.name].cast(field.type) if field.name in columns else pa.nulls(count, field.type)
            for field in schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _keyless(self, rows: pa.RecordBatch, others: pa.RecordBatch | None) -> pa.RecordBatch:
        """Return rows as unreadable ones; they are few, so they may be turned into objects."""
        import json

        import pyarrow as pa

        reason = f"a column of the key is null: {', '.join(self.key)}"
        found = [
            {"reason": reason, "raw": json.dumps(row, default=str, ensure_ascii=False).encode()}
            for row in rows.to_pylist()
        ]
        keyless = pa.RecordBatch.from_pylist(found, schema=unreadable_schema())
        return keyless if others is None else pa.concat_batches([others, keyless])
