"""From row events to the batches of a stream: after image, before image, place in the log, and what cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.change_log import DELETE, INSERT, TRUNCATE, UPDATE, Changes, event_fields
from etl_resources.changes import mysql_rows as rows_
from etl_resources.changes.mysql_row_values import values
from etl_resources.changes.mysql_unreadable import unreadable_event
from etl_resources.source import Batch, unreadable_schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.changes.mysql_charsets import Charsets
    from etl_resources.changes.mysql_gtid import GtidSet
    from etl_resources.changes.mysql_pending import Rows, Transaction
    from etl_resources.changes.mysql_shapes import Definition, Shape

_OPERATIONS = [INSERT, UPDATE, DELETE]


@dataclass(slots=True)
class Decoded:
    """All images of some events, before and after in one list, and which of them belong together."""

    columns: list[pa.Array]
    misfits: list[pa.Array | None]
    event: NDArray[np.int64]
    """Of each row, its event."""
    number: NDArray[np.int64]
    """Its place in the event."""
    before: NDArray[np.int64]
    """Its image before the change; -1: there is none."""
    after: NDArray[np.int64]
    missing: tuple[str, ...] = ()
    """Columns that no image holds."""


class Streamed:
    """Makes the batches of one stream, and counts its events apart from what it makes."""

    def __init__(self, cursor: int, charsets: Charsets, where: str) -> None:
        self.cursor, self.charsets, self.where = cursor, charsets, where
        self.held: GtidSet | None = None
        """Transactions of another server that the stream holds, where a cursor of this one says nothing of them."""
        self.rows_read = 0
        self._last: Transaction | None = None
        self._rows_of_last = 0

    def changes(self, rows: Rows) -> Changes:
        """Decode the events; those at or before the cursor are counted as repeated."""
        import numpy as np

        shape, kinds = rows.shape, np.array(rows.kinds, np.int64)
        decoded = self._decode(rows, kinds)
        which = np.array(rows.which, np.int64)
        first = self._numbered(rows, decoded, which)
        moved = _moved(decoded, shape)
        # A change of the key is two events.
        row = np.repeat(np.arange(len(decoded.event)), 1 + moved)
        leaves = np.zeros(len(row), bool)
        leaves[:-1] = row[1:] == row[:-1]
        event = decoded.event[row]
        operation = np.where(leaves, rows_.DELETE, kinds[event])
        self.rows_read += len(decoded.event) + int(moved.sum())
        sequence = 2 * (first[event] + decoded.number[row]) + ~leaves
        made = _Made(shape, decoded, rows.transactions, row, operation, which[event], sequence)
        return self._batch(made)

    def repeats(self, transaction: Transaction) -> bool:
        """Return whether the stream holds a transaction already."""
        return transaction.pos <= self.cursor or (self.held is not None and self.held.holds(transaction.xid))

    def truncated(self, definition: Definition, transaction: Transaction) -> Changes:
        """Return the event of a table that was emptied."""
        import pyarrow as pa

        schema = pa.schema(definition.plan.schema)
        event = {
            "_op": TRUNCATE, "_pos": transaction.pos, "_seq": 0, "_xid": transaction.xid,
            "_commit_ts": transaction.committed, "_origin": transaction.origin,
        }  # fmt: skip
        self.rows_read += 1
        data = pa.RecordBatch.from_pylist([event], schema=pa.schema([*schema, *event_fields(schema)]))
        return Changes(definition.name, Batch(data, self.rows_read))

    def _decode(self, rows: Rows, kinds: NDArray[np.int64]) -> Decoded:
        import numpy as np

        rows.data += bytes(rows_.PADDING)
        data, raw = np.frombuffer(rows.data, np.uint8), rows.data
        layouts = [rows_.Layout(rows.shape.columns, list(present)) for present in rows.present]
        found = rows_.find(data, np.array(rows.starts), np.array(rows.ends), layouts, self.where)
        return decode(data, raw, rows.shape, found, kinds, self.charsets)

    def _numbered(self, rows: Rows, decoded: Decoded, which: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return of each event how many rows of the stream its transaction had before it."""
        import numpy as np

        counts = np.bincount(decoded.event, minlength=len(rows.starts))
        before = np.cumsum(counts) - counts
        begins = np.searchsorted(which, np.arange(len(rows.transactions)))
        first: NDArray[np.int64] = before - before[begins][which]
        carried = self._rows_of_last if self._last is rows.transactions[0] else 0
        first[which == 0] += carried
        self._last = rows.transactions[-1]
        self._rows_of_last = int(first[-1] + counts[-1])
        return first

    def _batch(self, made: _Made) -> Changes:
        import numpy as np

        repeated = np.array([self.repeats(t) for t in made.transactions], bool)[made.which]
        readable, unreadable = made.readable(), None
        if not readable.all():
            unreadable = made.unreadable(np.flatnonzero(~readable & ~repeated), self.where)
        keep = readable & ~repeated
        data = made.data() if keep.all() else made.only(np.flatnonzero(keep)).data()
        return Changes(made.shape.stream, Batch(data, self.rows_read, None, unreadable, int(repeated.sum())))


def decode(
    data: NDArray[np.uint8], raw: bytearray, shape: Shape, found: list[rows_.Images], kinds: NDArray[np.int64],
    charsets: Charsets,
) -> Decoded:  # fmt: skip
    """Decode the images that `mysql_rows.find` has found."""
    import numpy as np
    import pyarrow as pa

    sides = [_side(data, raw, shape, images, charsets) for images in found]
    if len(found) == 2:
        count = len(found[0])
        for n, (before, after) in enumerate(zip(*sides, strict=True)):
            if after is None:  # what the server leaves out has not changed
                sides[1][n] = before
        missing = tuple(t.name for t, side in zip(shape.targets, sides[1], strict=True) if side is None)
        event, number = found[1].event, found[1].number // 2
        before, after = np.arange(count), np.arange(count, 2 * count)
    else:
        count = len(found[0])
        missing = tuple(t.name for t, side in zip(shape.targets, sides[0], strict=True) if side is None)
        event, number = found[0].event, found[0].number
        is_update = kinds[event] == rows_.UPDATE
        main = np.flatnonzero(~(is_update & (number % 2 == 0)))
        event, kind = event[main], kinds[event[main]]
        number = np.where(kind == rows_.UPDATE, number[main] // 2, number[main])
        before = np.where(kind == rows_.INSERT, -1, np.where(kind == rows_.UPDATE, main - 1, main))
        after = np.where(kind == rows_.DELETE, -1, main)
    columns, misfits = [], []
    for n, target in enumerate(shape.targets):
        parts = [side[n] or (pa.nulls(count, target.arrow), None) for side in sides]
        columns.append(parts[0][0] if len(parts) == 1 else pa.concat_arrays([part[0] for part in parts]))
        texts = [pa.nulls(count, pa.string()) if part[1] is None else part[1] for part in parts]
        misfits.append(pa.concat_arrays(texts) if any(part[1] is not None for part in parts) else None)
    return Decoded(columns, misfits, event, number, before, after, missing)


def _side(data: Any, raw: bytearray, shape: Shape, images: rows_.Images, charsets: Charsets) -> list[Any]:
    """Return the values of each target and their misfits; None: these images do not hold it."""
    places = {id(column): n for n, column in enumerate(images.columns)}
    found: list[Any] = []
    for target, place in zip(shape.targets, shape.places, strict=True):
        n = places.get(id(shape.columns[place]))
        found.append(None if n is None else values(data, raw, images, n, target, charsets))
    return found


def _moved(decoded: Decoded, shape: Shape) -> NDArray[np.bool_]:
    """Return which rows are updates that change the key."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    both = np.flatnonzero((decoded.before >= 0) & (decoded.after >= 0))
    moved = np.zeros(len(decoded.event), bool)
    if len(both):
        before, after = pa.array(decoded.before[both]), pa.array(decoded.after[both])
        for target, column in zip(shape.targets, decoded.columns, strict=True):
            if target.name in shape.key:
                differs = pc.not_equal(column.take(before), column.take(after))
                moved[both] |= pc.fill_null(differs, False).to_numpy(zero_copy_only=False)  # noqa: FBT003 - the fill value
    return moved


@dataclass(slots=True)
class _Made:
    """The events of a batch as numbers; `row` is the place in `decoded` of what each is about."""

    shape: Shape
    decoded: Decoded
    transactions: list[Transaction]
    row: NDArray[np.int64]
    operation: NDArray[np.int64]
    which: NDArray[np.int64]
    sequence: NDArray[np.int64]

    def only(self, those: NDArray[np.int64]) -> _Made:
        """Return some of the events."""
        row, operation, which, sequence = (a[those] for a in (self.row, self.operation, self.which, self.sequence))
        return _Made(self.shape, self.decoded, self.transactions, row, operation, which, sequence)

    def image(self, *, of_key: bool) -> NDArray[np.int64]:
        """Return the image that gives an event its columns; of a delete only the key is given."""
        import numpy as np

        is_delete = self.operation == rows_.DELETE
        deleted = self.decoded.before[self.row] if of_key else -1
        return np.where(is_delete, deleted, self.decoded.after[self.row])

    def readable(self) -> NDArray[np.bool_]:
        """Return which events have no value that its type cannot hold."""
        import numpy as np
        import pyarrow.compute as pc

        good = np.ones(len(self.row), bool)
        for target, misfits in zip(self.shape.targets, self.decoded.misfits, strict=True):
            if misfits is not None:
                at = self.image(of_key=target.name in self.shape.key)
                odd = pc.is_valid(misfits).to_numpy(zero_copy_only=False)
                good &= ~(odd[at] & (at >= 0))
        return good

    def data(self) -> pa.RecordBatch:
        """Return the events as the stream's schema has them."""
        import numpy as np
        import pyarrow as pa

        plain, of_key = self.image(of_key=False), self.image(of_key=True)
        key, missing = self.shape.key, self.decoded.missing
        columns = [
            taken(column, of_key if target.name in key else plain)
            for target, column in zip(self.shape.targets, self.decoded.columns, strict=True)
        ]
        which = pa.array(self.which)
        transactions = self.transactions
        unchanged = pa.nulls(len(self.row), pa.list_(pa.string()))
        if missing:
            gone = self.operation == rows_.DELETE
            unchanged = pa.array([list(missing)], unchanged.type).take(pa.array(np.zeros(len(gone), int), mask=gone))
        return pa.RecordBatch.from_arrays(
            [
                *columns,
                pa.array(_OPERATIONS).take(pa.array(self.operation)),
                pa.array([t.pos for t in transactions], pa.int64()).take(which),
                pa.array(self.sequence, pa.int64()),
                pa.array([t.xid for t in transactions], pa.string()).take(which),
                pa.array([t.committed for t in transactions], pa.timestamp("us", "UTC")).take(which),
                pa.array([t.origin for t in transactions], pa.string()).take(which),
                unchanged,
                self._before(),
            ],
            schema=self.shape.schema,
        )

    def _before(self) -> pa.StructArray:
        import pyarrow as pa

        before, type_ = self.decoded.before[self.row], self.shape.schema.field("_before").type
        if (before < 0).all():
            return pa.nulls(len(before), type_)
        children = [taken(column, before) for column in self.decoded.columns]
        missing = pa.array(before < 0) if (before < 0).any() else None
        return pa.StructArray.from_arrays(children, fields=list(type_), mask=missing)

    def unreadable(self, those: NDArray[np.int64], origin: str) -> pa.RecordBatch | None:
        """Return events as records that cannot be read; they are few, so they may be turned into objects."""
        import pyarrow as pa

        if not len(those):
            return None
        some = self.only(those)
        given, found = some.data().to_pylist(), []
        odd: list[dict[str, str]] = [{} for _ in given]
        for target, misfits in zip(self.shape.targets, self.decoded.misfits, strict=True):
            if misfits is not None:
                texts = taken(misfits, some.image(of_key=target.name in self.shape.key)).to_pylist()
                for row, text in enumerate(texts):
                    if text is not None:
                        odd[row][target.name] = text
        for event, texts in zip(given, odd, strict=True):
            found.append(unreadable_event(event, self.shape.row, self.shape.key, texts, origin))
        return pa.RecordBatch.from_pylist(found, schema=unreadable_schema())


def taken(column: pa.Array, at: NDArray[np.int64]) -> pa.Array:
    """Return the values at some places, null where the place is -1."""
    import numpy as np
    import pyarrow as pa

    if len(at) == len(column) and (at == np.arange(len(at))).all():
        return column
    nowhere = at < 0
    return column.take(pa.array(at, mask=nowhere if nowhere.any() else None))
