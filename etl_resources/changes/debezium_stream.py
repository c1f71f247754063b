"""One of Debezium's topics: where it is, what was counted, and its messages as events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from etl_resources.change_log import Changes, LogTable
from etl_resources.changes.debezium_types import dumped_schema
from etl_resources.source import Batch, unreadable_schema

if TYPE_CHECKING:
    import pyarrow as pa
    from confluent_kafka import Message

    from etl_resources.changes.debezium_envelopes import AvroEnvelopes, JsonEnvelopes
    from etl_resources.changes.debezium_rows import Memory, Rows
    from etl_resources.sources.kafka_partitions import Offsets, Partition


@dataclass
class Followed:
    """A stream, where it is, and what was counted. `base`: `_pos` is this and the sum of its offsets."""

    table: LogTable
    topic: str
    offsets: Offsets
    base: int
    envelopes: JsonEnvelopes | AvroEnvelopes
    rows: Rows
    memory: Memory
    tombstones: int
    read: int = 0

    @property
    def pos(self) -> int:
        """`_pos` behind what was read."""
        return self.base + sum(self.offsets.next.values())


def changes_of(stream: Followed, messages: list[Message]) -> Iterator[Changes]:
    """Yield messages of a stream as events, in runs of one schema."""
    from etl_resources.changes.debezium_documents import expanded
    from etl_resources.changes.debezium_rows import told

    pos = []
    for message in messages:
        stream.offsets.next[cast("Partition", (message.topic(), message.partition()))] = (
            cast("int", message.offset()) + 1
        )
        pos.append(stream.pos)
    present = [n for n, m in enumerate(messages) if m.value() is not None]
    stream.tombstones += len(messages) - len(present)
    bodies = [cast("bytes", messages[n].value()) for n in present]
    keys: list[bytes | None] = [messages[n].key() for n in present]  # type: ignore[misc,unused-ignore]
    at = [pos[n] for n in present]
    for found in stream.envelopes.runs(bodies):
        run = expanded(found, keys, stream.rows.schema)
        bad = [told(bodies[n], keys[n], at[n], why) for n, why in run.bad]
        chosen, repeated, odd = _chosen(stream, run, keys)
        bad += [told(bodies[run.at[n]], keys[run.at[n]], at[run.at[n]], why) for n, why in odd]
        batch, wrong = _made(stream, run, chosen, at)
        bad += [told(bodies[run.at[n]], keys[run.at[n]], at[run.at[n]], why) for n, why in wrong]
        stream.read += len(chosen) + repeated + len(run.bad) + len(odd)
        if batch.num_rows or bad or repeated:
            yield Changes(
                stream.table.name, Batch(batch, stream.read, unreadable=_apart(bad, stream.topic), repeated=repeated)
            )


def _chosen(stream: Followed, run: Any, keys: list[bytes | None]) -> tuple[list[int], int, list[tuple[int, str]]]:
    """Return the rows of a run that are events, how many of them came again, and those that are of no known kind."""
    from etl_resources.changes.debezium_rows import OPS, places

    if not run.at:
        return [], 0, []
    if "op" not in run.table.column_names:
        return [], 0, [(n, "it is no envelope: it has no `op`") for n in range(len(run.at))]
    chosen, repeated, odd = [], 0, []
    names = places(run.table, [keys[n] for n in run.at])
    for n, (op, place) in enumerate(zip(run.table.column("op").to_pylist(), names, strict=True)):
        if op == "m":  # a message of the application, and of no row
            continue
        if op not in OPS:
            odd.append((n, f"it has no known `op`: {op!r}"))
        elif place is not None and stream.memory.again(place):
            repeated += 1
        else:
            chosen.append(n)
    return chosen, repeated, odd


def _made(stream: Followed, run: Any, chosen: list[int], at: list[int]) -> tuple[pa.RecordBatch, list[tuple[int, str]]]:
    """Return rows; where one of them cannot be made, the others, and why it could not."""
    import pyarrow as pa

    if not chosen:
        return stream.rows.empty(), []
    try:
        return stream.rows.of(run, chosen, [at[run.at[n]] for n in chosen]), []
    except (ValueError, pa.ArrowException):
        pass
    good, wrong = [], []
    for n in chosen:
        try:
            stream.rows.of(run, [n], [at[run.at[n]]])
            good.append(n)
        except (ValueError, pa.ArrowException) as error:
            wrong.append((n, str(error)))
    batch = stream.rows.of(run, good, [at[run.at[n]] for n in good]) if good else stream.rows.empty()
    return batch, wrong


def _apart(found: list[dict[str, Any]], origin: str) -> pa.RecordBatch | None:
    import pyarrow as pa

    rows = [{**each, "origin": origin, "line": None} for each in found]
    return pa.RecordBatch.from_pylist(rows, schema=unreadable_schema()) if rows else None


def position_of(stream: Followed, cluster: str) -> dict[str, Any]:
    """Return what a position holds of a stream."""
    return {
        **stream.offsets.dump(), "pos": stream.pos, "base": stream.base, "cluster": cluster,
        "payload": stream.envelopes.dump(), "schema": dumped_schema(stream.rows.schema), "seen": stream.memory.dump(),
        "tombstones": stream.tombstones,
    }  # fmt: skip
