"""Events of one collection as rows of its event log."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etl_resources.change_log import DELETE, INSERT, READ, TRUNCATE, UPDATE, event_fields
from etl_resources.exceptions import ConfigurationError
from etl_resources.source import Batch, unreadable_schema
from etl_resources.sources.mongodb_bson import DOCUMENT, CorruptError, Values

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.changes.mongodb_events import Events
    from etl_resources.sources.mongodb_bson import Field

_OPS = {
    "insert": INSERT, "update": UPDATE, "replace": UPDATE, "delete": DELETE, "drop": TRUNCATE, "rename": TRUNCATE,
}  # fmt: skip
_TAKEN = frozenset({"_pos", "_xid", "_commit_ts", "_unchanged", "_before"})
_FIRST = -(1 << 62)
_NO_IMAGE = "its post-image has expired, or was not kept yet: the document as this update left it is not known"


@dataclass
class Rows:
    """Makes rows of events. `schema`: of the documents, grown by the keys that turn up; `wanted`: None: all of them."""

    schema: pa.Schema
    collection: str
    wanted: frozenset[str] | None
    lookup: bool
    where: str
    id_column: str = "_id"
    _pos: int = field(default=-(1 << 63), init=False)
    _seq: int = field(default=0, init=False)

    def of(self, events: Events, rows_read: int, repeated: int) -> Batch:
        """Return the events, which are all of this collection, as a batch."""
        if not len(events):
            return Batch(self.empty(), rows_read, repeated=repeated)
        seq = self._places(events.pos)
        try:
            batch, unreadable = self._converted(events, seq)
        except CorruptError:
            batch, unreadable = self._one_by_one(events, seq)
        return Batch(batch, rows_read, unreadable=_apart(unreadable, self.where), repeated=repeated)

    def skip(self, events: Events) -> None:
        """Count events that are not wanted again, so that those behind them get their places."""
        self._places(events.pos)

    def read(self, data: pa.RecordBatch, at: int, first: int) -> pa.RecordBatch:
        """Return documents of a snapshot as rows: true at `at`, of which `first` came before them."""
        import numpy as np
        import pyarrow as pa

        count = data.num_rows
        arrays = [data.column(f.name) if f.name in data.schema.names else pa.nulls(count, f.type) for f in self.schema]
        seq = np.arange(count, dtype=np.int64) + (_FIRST + first)
        return self._rows(
            arrays, pa.array([READ] * count, pa.string()), np.full(count, at, np.int64), seq, None, None, None, None
        )

    def _places(self, pos: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return `_seq`: the number of the event among those of this collection at the same time."""
        import numpy as np

        starts = np.flatnonzero(np.concatenate([[True], pos[1:] != pos[:-1]]))
        seq: NDArray[np.int64] = np.arange(len(pos)) - np.repeat(starts, np.diff(np.append(starts, len(pos))))
        if int(pos[0]) == self._pos:
            seq[pos == pos[0]] += self._seq + 1
        self._pos, self._seq = int(pos[-1]), int(seq[-1])
        return seq

    def _converted(self, events: Events, seq: NDArray[np.int64]) -> tuple[pa.RecordBatch, list[dict[str, Any]]]:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from etl_resources.sources.mongodb_arrow import Converter

        kinds = events.operations.dictionary_encode()
        names = [_OPS[kind] for kind in kinds.dictionary.to_pylist()]
        op = pa.DictionaryArray.from_arrays(kinds.indices, pa.array(names, pa.string())).cast(pa.string())
        after, before, key = (events.documents(n) for n in ("fullDocument", "fullDocumentBeforeChange", "documentKey"))
        self._grow([d for d in (after, before, key) if d is not None])
        arrow, old = Converter(), Converter()
        arrays = [
            pc.coalesce(of_key, of_row) if f.name == "_id" else of_row
            for f, of_row, of_key in zip(
                self.schema, self._columns(after, arrow, len(events)), self._columns(key, arrow, len(events)),
                strict=True,
            )
        ]  # fmt: skip
        bare = pc.equal(op, UPDATE).to_numpy(zero_copy_only=False) & ~_present(after, len(events))
        unchanged = _lists([f.name for f in self.schema if f.name != "_id"], bare) if bare.any() else None
        image = self._image(before, old, len(events))
        misfits = dict(arrow.misfits)
        if not self.lookup:
            misfits.update(dict.fromkeys(np.flatnonzero(bare).tolist(), _NO_IMAGE))
        batch = self._rows(arrays, op, events.pos, seq, events.transactions(), events.committed(), unchanged, image)
        if not misfits:
            return batch, []
        keep = np.ones(len(events), np.bool_)
        keep[list(misfits)] = False
        found = [_raw(events, n, int(seq[n]), op[n].as_py(), why) for n, why in sorted(misfits.items())]
        return batch.filter(pa.array(keep)), found

    def _rows(self, arrays: list[Any], *events: Any) -> pa.RecordBatch:
        """Return arrays of the documents, then `_op _pos _seq _xid _commit_ts _unchanged _before` (None: nulls)."""
        import pyarrow as pa

        row = self.shown()
        fields = event_fields(row)
        count = len(events[0])
        op, pos, seq, xid, committed, unchanged, image = events
        more = [
            op, pa.array(pos, pa.int64()), pa.array(seq, pa.int64()), xid, committed, None, unchanged, image,
        ]  # fmt: skip
        more = [pa.nulls(count, f.type) if a is None else a for f, a in zip(fields, more, strict=True)]
        return pa.RecordBatch.from_arrays([*arrays, *more], schema=pa.schema([*row, *fields]))

    def _columns(self, documents: Values | None, arrow: Any, count: int) -> list[pa.Array]:
        import numpy as np
        import pyarrow as pa

        if documents is None:
            return [pa.nulls(count, f.type) for f in self.schema]
        arrays = arrow.struct(self._chosen(documents.fields()), list(self.schema), documents.rows)
        if len(documents.rows) == count:
            return list(arrays)
        place = np.full(count, -1, np.int64)
        place[documents.rows] = np.arange(len(documents.rows))
        return [array.take(pa.array(place, mask=place < 0)) for array in arrays]

    def _image(self, documents: Values | None, arrow: Any, count: int) -> pa.Array | None:
        """Return `_before`; null where there is no image, or one of before the types were what they are."""
        import numpy as np
        import pyarrow as pa

        if documents is None:
            return None
        arrays = self._columns(documents, arrow, count)
        there = _present(documents, count)
        there[np.array(list(arrow.misfits), np.int64)] = False
        return pa.StructArray.from_arrays(arrays, fields=list(self.shown()), mask=pa.array(~there))

    def _grow(self, documents: list[Values]) -> None:
        from etl_resources.sources.mongodb_batches import checked
        from etl_resources.sources.mongodb_types import grown

        for values in documents:
            self.schema = checked(grown(self.schema, self._chosen(values.fields())), self.where)
        if taken := sorted(_TAKEN.intersection(self.schema.names)):
            raise ConfigurationError(
                f"documents have a field {', '.join(taken)}, a name that is kept for the log", where=self.where,
                fix="follow the other fields only, with `fields: [...]`",
            )  # fmt: skip

    def _chosen(self, fields: dict[str, Field]) -> dict[str, Field]:
        return fields if self.wanted is None else {k: v for k, v in fields.items() if k in self.wanted}

    def _one_by_one(self, events: Events, seq: NDArray[np.int64]) -> tuple[pa.RecordBatch, list[dict[str, Any]]]:
        """For the rare batch with a document that is no sound BSON."""
        import numpy as np

        good, broken = [], []
        for n in range(len(events)):
            one = events.rows(slice(n, n + 1))
            try:
                self._converted(one, seq[n : n + 1])
                good.append(n)
            except CorruptError as error:
                broken.append(_raw(one, 0, int(seq[n]), _OPS[one.operations[0].as_py()], str(error)))
        if not good:
            return self.empty(), broken
        sound = np.array(good, np.int64)
        batch, unreadable = self._converted(events.rows(sound), seq[sound])
        return batch, broken + unreadable

    def empty(self) -> pa.RecordBatch:
        """Return no rows."""
        import pyarrow as pa

        row = self.shown()
        return pa.RecordBatch.from_pylist([], pa.schema([*row, *event_fields(row)]))

    def shown(self) -> pa.Schema:
        """Return the columns of a row as they are given."""
        return shown(self.schema, self.id_column, self.where)


def shown(schema: pa.Schema, id_column: str, where: str) -> pa.Schema:
    """Return columns of documents with the name that `_id` is given.

    Raises:
        ConfigurationError: the documents have a field of that name.
    """
    import pyarrow as pa

    if id_column != "_id" and id_column in schema.names:
        raise ConfigurationError(
            f"documents have a field {id_column}, which is the name that `_id` is to be given", where=where,
            fix="capture: {log: {id_column: another}}",
        )  # fmt: skip
    return pa.schema([f.with_name(id_column) if f.name == "_id" else f for f in schema])


def _present(documents: Values | None, count: int) -> NDArray[np.bool_]:
    import numpy as np

    found = np.zeros(count, np.bool_)
    if documents is not None:
        found[documents.rows] = True
    return found


def _lists(names: list[str], where: NDArray[np.bool_]) -> pa.Array:
    import pyarrow as pa

    return pa.array([names if there else None for there in where.tolist()], pa.list_(pa.string()))


def _raw(events: Events, number: int, seq: int, op: str, why: str) -> dict[str, Any]:
    """Return one event for the errors: the reason, and what came, as JSON."""
    from etl_resources.sources.mongodb_values import extended

    def shown(name: str) -> Any:
        values = events.fields.get(name, {}).get(DOCUMENT)
        at = (values.rows == number).nonzero()[0] if values is not None else []
        if values is None or not len(at):
            return None
        start, size = int(values.at[at[0]]), int(values.size[at[0]])
        document = events.buffer.data[start : start + size]
        found = extended(document)
        return {"bson": document.hex()} if found == document else json.loads(found)

    told = {"key": shown("documentKey"), "pos": int(events.pos[number]), "seq": seq, "op": op,
            "values": shown("fullDocument")}  # fmt: skip
    return {"reason": why, "raw": json.dumps(told).encode()}


def _apart(found: list[dict[str, Any]], origin: str) -> pa.RecordBatch | None:
    import pyarrow as pa

    rows = [{**each, "origin": origin, "line": None} for each in found]
    return pa.RecordBatch.from_pylist(rows, schema=unreadable_schema()) if rows else None
