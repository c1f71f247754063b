"""The events of some rows: their values, what they were before, and those that cannot be read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from etl_resources.changes.pgoutput_rows import Rows, chosen
from etl_resources.changes.pgoutput_tuples import Values
from etl_resources.changes.pgoutput_wire import DELETE, INSERT, TRUNCATE, UPDATE
from etl_resources.source import unreadable_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.changes.pgoutput_transactions import Transactions
    from etl_resources.changes.pgoutput_wire import Places

_OPERATIONS = {INSERT: "insert", UPDATE: "update", DELETE: "delete", TRUNCATE: "truncate"}
_NOT_IN_LOG = "the log does not have it, and it is part of the key: let the replica identity of the table have it"


class Events:
    """The events that rows make, in the order of the log.

    `entry[i]` is the entry of event i; `source[i]` is its row: one of the new rows, or, counted on behind those, of
    the old rows whose key was changed; -1 for a truncate, which has none. `first` tells the deletes of such keys.
    """

    def __init__(self, rows: Rows, transactions: Transactions) -> None:
        import numpy as np

        self.rows, self.transactions = rows, transactions
        entries = rows.entries
        split_of = rows.old_of[rows.split]
        times = np.ones(len(entries.index), np.int64)
        times[split_of] = 2
        self.entry: Places = np.repeat(np.arange(len(times)), times)
        self.first = np.zeros(len(self.entry), np.bool_)
        self.first[split_of + np.arange(len(split_of))] = True
        is_row = entries.tags != TRUNCATE
        self.source: Places = np.where(is_row, np.cumsum(is_row) - 1, -1)[self.entry]
        self.source[self.first] = len(rows.rows) + np.arange(len(split_of))
        self.plain = len(split_of) == 0 and bool(is_row.all())

    def decoded(self) -> tuple[pa.RecordBatch, pa.RecordBatch | None, pa.RecordBatch | None]:
        """Return the events, and those that cannot be read: in `unreadable_schema()`, and as far as they can be."""
        import pyarrow as pa

        version = self.rows.version
        texts = [self._texts(place) for place in version.places]
        arrays: list[pa.Array] = []
        odd: dict[str, pa.Array] = {}
        for column, convert, text in zip(version.columns, version.converters, texts, strict=True):
            array, misfits = convert(text)
            arrays.append(array)
            if misfits is not None and misfits.null_count < len(misfits):
                odd[column.name] = misfits
        columns = [*arrays, *self._event(), self._unchanged(), self._before()]
        data = pa.RecordBatch.from_arrays(columns, schema=version.schema)
        missing = {name: lost for name in version.key if (lost := self._lost(name)) is not None}
        return self._set_apart(data, texts, odd, missing) if odd or missing else (data, None, None)

    def _texts(self, place: int) -> pa.Array:
        """Return the texts of a column, one per event."""
        import pyarrow as pa

        rows, values = self.rows, self.rows.new.columns[place]
        in_key = place in rows.version.key_places
        if not in_key and rows.deleted.any():
            values = Values(values.starts, values.ends, values.given & ~rows.deleted, values.unchanged)
        texts = values.texts(rows.wire)
        if self.plain:
            return texts
        wanted = self.source
        if in_key:
            texts = pa.concat_arrays([texts, self._split(place).texts(rows.wire)])
        return texts.take(pa.array(wanted, mask=(wanted < 0) | (wanted >= len(texts))))

    def _split(self, place: int) -> Values:
        return chosen(self.rows.old.columns[place], self.rows.split)

    def _event(self) -> list[pa.Array]:
        """Return `_op`, `_pos`, `_seq`, `_xid`, `_commit_ts` and `_origin`."""
        import numpy as np
        import pyarrow as pa

        entries = self.rows.entries
        tags = entries.tags[self.entry]
        tags[self.first] = DELETE
        names = np.zeros(256, np.int8)
        names[list(_OPERATIONS)] = np.arange(len(_OPERATIONS))
        operation = pa.array(list(_OPERATIONS.values())).take(pa.array(names[tags]))
        index = entries.index[self.entry]
        pos, xid, moment, origin = self.transactions.columns(self.transactions.number[index])
        return [operation, pos, pa.array(entries.seq[self.entry] - self.first), xid, moment, origin]

    def _of_new(self, flags: Any) -> Any:
        """Return flags of the new rows as flags of the events; False where an event has no new row."""
        import numpy as np

        return np.append(flags, np.zeros(1 + len(self.rows.old_of), np.bool_))[self.source]

    def _unchanged(self) -> pa.Array:
        import numpy as np
        import pyarrow as pa

        version, columns = self.rows.version, self.rows.new.columns
        found = [
            (column.name, columns[place].unchanged & ~self.rows.deleted)
            for column, place in zip(version.columns, version.places, strict=True)
            if columns[place].unchanged is not None
        ]
        if not found:
            return pa.nulls(len(self.entry), pa.list_(pa.string()))
        flags = np.stack([self._of_new(flag) for _, flag in found], axis=1)
        counts = flags.sum(axis=1)
        names = pa.array([name for name, _ in found]).take(pa.array(np.nonzero(flags)[1]))
        bounds = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(bounds), names, mask=pa.array(counts == 0))

    def _before(self) -> pa.Array:
        """Return the old rows, as far as they are in the log. A value that Arrow cannot hold is null here: what it
        was matters less than what it is now."""
        import numpy as np
        import pyarrow as pa

        rows, version = self.rows, self.rows.version
        type_ = version.schema.field("_before").type
        if not len(rows.old_of):
            return pa.nulls(len(self.entry), type_)
        columns = [rows.old.columns[place] for place in version.places]
        children = [
            convert(values.texts(rows.wire))[0] if values.given.any() else pa.nulls(len(rows.old_of), column.arrow)
            for column, convert, values in zip(version.columns, version.converters, columns, strict=True)
        ]
        old = pa.StructArray.from_arrays(children, fields=list(type_))
        number = np.full(len(rows.entries.index), -1)
        number[rows.old_of] = np.arange(len(rows.old_of))
        wanted = number[self.entry]
        return old.take(pa.array(wanted, mask=wanted < 0))

    def _lost(self, name: str) -> Any:
        """Return which events lack this column of their key; None: none does."""
        import numpy as np

        rows, version = self.rows, self.rows.version
        place = version.key_places[version.key.index(name)]
        values = rows.new.columns[place]
        lost = np.zeros(len(rows.rows), np.bool_) if values.unchanged is None else values.unchanged.copy()
        hidden = not version.is_identity(place)
        if hidden:
            lost |= rows.deleted & ~values.given
        if not (lost.any() or (hidden and rows.split.any())):
            return None
        old = np.full(int(rows.split.sum()), hidden)
        return np.concatenate((lost, old, [False]))[self.source]

    def _set_apart(
        self, data: pa.RecordBatch, texts: list[pa.Array], odd: dict[str, pa.Array], missing: dict[str, Any]
    ) -> tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch]:
        """Split off the events that cannot be read; they are few, so they may be turned into objects."""
        import numpy as np
        import pyarrow as pa

        apart = np.zeros(data.num_rows, np.bool_)
        for misfits in odd.values():
            apart |= misfits.is_valid().to_numpy(zero_copy_only=False)
        for lost in missing.values():
            apart |= lost
        version = self.rows.version
        records = []
        for n in np.flatnonzero(apart).tolist():
            values = {column.name: text[n].as_py() for column, text in zip(version.columns, texts, strict=True)}
            reasons = [
                f"{name}: {misfits[n].as_py()!r} does not fit {data.schema.field(name).type}"
                for name, misfits in odd.items()
                if misfits[n].is_valid
            ]
            reasons += [f"{name}: {_NOT_IN_LOG}" for name, lost in missing.items() if lost[n]]
            place = {"pos": data["_pos"][n].as_py(), "seq": data["_seq"][n].as_py(), "op": data["_op"][n].as_py()}
            held = {name: data[name][n].as_py() for name in version.key}
            key = {name: values[name] if value is None else value for name, value in held.items()}
            raw = json.dumps({"key": key, **place, "values": values}, default=str, ensure_ascii=False).encode()
            records.append({"reason": "; ".join(reasons), "raw": raw, "origin": version.table, "line": None})
        unreadable = pa.RecordBatch.from_pylist(records, schema=unreadable_schema())
        return data.filter(pa.array(~apart)), unreadable, data.filter(pa.array(apart))
