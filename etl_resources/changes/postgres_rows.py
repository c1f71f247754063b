"""Rows of a snapshot's piece, as events of the log."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from etl_resources.change_log import READ, TRUNCATE, UPDATE, event_fields

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.changes.postgres_snapshot import Piece
    from etl_resources.changes.postgres_visibility import View


class Ranking:
    """Where in the log the rows of a piece stand, among the events of the look that began after it was read."""

    def __init__(self, piece: Piece, key: tuple[str, ...]) -> None:
        self.piece, self.key = piece, key
        self._later: list[pa.Table] = []
        self._emptied: int | None = None

    def note(self, events: pa.RecordBatch) -> None:
        """Take notice of events of the stream: those that the piece does not see come after its rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        view = self.piece.view
        later = [xid for xid in pc.unique(events["_xid"]).to_pylist() if not view.sees(view.widened(int(xid)))]
        if not later:
            return
        chosen = events.filter(pc.is_in(events["_xid"], pa.array(later, pa.string())))
        emptied = pc.min(chosen["_pos"].filter(pc.equal(chosen["_op"], TRUNCATE))).as_py()
        if emptied is not None:
            self._emptied = emptied if self._emptied is None else min(emptied, self._emptied)
        self._later.append(pa.table(chosen.select([*self.key, "_pos"])))

    @property
    def mark(self) -> int:
        """The `_pos` of rows that no later event is about."""
        return self.piece.mark if self._emptied is None else min(self.piece.mark, self._emptied)

    def places(self, rows: pa.RecordBatch) -> pa.Array:
        """Return the `_pos` of each row."""
        import pyarrow as pa
        import pyarrow.compute as pc

        mark = self.mark
        if not self._later or not rows.num_rows:
            return pa.repeat(pa.scalar(mark, pa.int64()), rows.num_rows)
        keys = pa.schema([rows.schema.field(name) for name in self.key])
        later = pa.concat_tables([part.cast(pa.schema([*keys, part.schema.field("_pos")])) for part in self._later])
        first = later.group_by(list(self.key)).aggregate([("_pos", "min")])
        own = pa.table(rows.select(list(self.key))).append_column(
            "_etl_row", pa.array(range(rows.num_rows), pa.int64())
        )
        joined = own.join(first, list(self.key), join_type="left outer").sort_by("_etl_row")
        return pc.min_element_wise(joined["_pos_min"], pa.scalar(mark, pa.int64())).combine_chunks()

    def firsts(self, keys: Collection[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
        """Return the `_pos` of rows that cannot be read, by their keys as text: there are few of them."""
        places = dict.fromkeys(keys, self.mark)
        for part in self._later if places else ():
            for batch in part.to_batches(max_chunksize=10_000):
                values = (batch[name].to_pylist() for name in self.key)
                for pos, *key in zip(batch["_pos"].to_pylist(), *values, strict=True):
                    text = tuple(map(str, key))
                    if text in places:
                        places[text] = min(places[text], pos)
        return places


def events(ranking: Ranking) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch | None]]:
    """Yield the rows of a piece as events, and those that cannot be read; `_seq` counts up to -1."""
    piece, seq = ranking.piece, -ranking.piece.rows
    for rows in piece.records:
        yield _as_events(rows, ranking, seq), None
        seq += rows.num_rows
    for records in piece.unreadable:
        yield _as_events(piece.records[0].slice(0, 0), ranking, seq), _as_unreadable(records, ranking, seq)
        seq += records.num_rows


def _as_events(rows: pa.RecordBatch, ranking: Ranking, seq: int) -> pa.RecordBatch:
    import pyarrow as pa

    n = rows.num_rows
    known: dict[str, Any] = {
        "_op": pa.repeat(READ, n), "_pos": ranking.places(rows), "_seq": pa.array(range(seq, seq + n), pa.int64()),
        "_commit_ts": pa.repeat(pa.scalar(ranking.piece.at, pa.timestamp("us", "UTC")), n),
    }  # fmt: skip
    fields = event_fields(rows.schema)
    arrays = [known[f.name] if f.name in known else pa.nulls(n, f.type) for f in fields]
    return pa.RecordBatch.from_arrays([*rows.columns, *arrays], schema=pa.schema([*rows.schema, *fields]))


def _as_unreadable(records: pa.RecordBatch, ranking: Ranking, seq: int) -> pa.RecordBatch:
    import pyarrow as pa

    found = [json.loads(raw) for raw in records["raw"].to_pylist()]
    texts = [tuple(str(values.get(name)) for name in ranking.key) for values in found]
    places = ranking.firsts(texts)
    raws = []
    for n, (values, text) in enumerate(zip(found, texts, strict=True)):
        key = {name: values.get(name) for name in ranking.key}
        event = {"key": key, "pos": places[text], "seq": seq + n, "op": READ, "values": values}
        raws.append(json.dumps(event, ensure_ascii=False).encode())
    return records.set_column(1, records.schema.field(1), pa.array(raws, pa.binary()))


def moved(events: pa.RecordBatch, key: tuple[str, ...], seen_by: View | None) -> list[tuple[str, ...]]:
    """Return the new keys, as text, of rows whose key was changed, and whose large values the event does not have.

    `seen_by`: only those of transactions that this view sees.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    chosen = events.filter(
        pc.and_(
            pc.equal(events["_op"], UPDATE), pc.and_(pc.is_valid(events["_before"]), pc.is_valid(events["_unchanged"]))
        )
    )
    if seen_by is not None:
        seen = [seen_by.sees(seen_by.widened(int(xid))) for xid in chosen["_xid"].to_pylist()]
        chosen = chosen.filter(pa.array(seen, pa.bool_()))
    keys = zip(*(_texts(chosen[name]) for name in key), strict=True)
    return [texts for texts in keys if None not in texts]  # a key that cannot be read cannot be looked for


def _texts(values: pa.Array) -> list[str]:
    import pyarrow as pa

    if pa.types.is_binary(values.type):
        return ["\\x" + value.hex() for value in values.to_pylist()]
    return values.cast(pa.string()).to_pylist()


def shifted(batch: pa.RecordBatch, shift: int) -> pa.RecordBatch:
    """Return events with `_pos` moved on: another server's log begins again."""
    import pyarrow as pa
    import pyarrow.compute as pc

    index = batch.schema.get_field_index("_pos")
    return batch.set_column(index, batch.schema.field(index), pc.add(batch["_pos"], pa.scalar(shift, pa.int64())))


def shifted_unreadable(records: pa.RecordBatch, shift: int) -> pa.RecordBatch:
    """Return what `shifted` does, for events that cannot be read."""
    import pyarrow as pa

    events = [json.loads(raw) for raw in records["raw"].to_pylist()]
    raws = [json.dumps({**event, "pos": event["pos"] + shift}, ensure_ascii=False).encode() for event in events]
    return records.set_column(1, records.schema.field(1), pa.array(raws, pa.binary()))
