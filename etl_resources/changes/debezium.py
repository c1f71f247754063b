"""Debezium's topics as a change log: each stream is the topic of a table, in the order of its offsets."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from etl_resources.change_log import Boundary, ChangeLog, Changes, Finding, Lag, LogState, LogTable
from etl_resources.changes.debezium_settings import DebeziumLogCapture
from etl_resources.changes.debezium_types import dumped_schema, loaded_schema
from etl_resources.exceptions import ConfigurationError, LogLostError
from etl_resources.source import Batch, LogCapture, Position, unreadable_schema
from etl_resources.sources.kafka_partitions import Offsets, Partition, find_partitions, start_at, watermarks

if TYPE_CHECKING:
    import pyarrow as pa
    from confluent_kafka import Message

    from etl_resources.changes.debezium_envelopes import AvroEnvelopes, JsonEnvelopes
    from etl_resources.changes.debezium_rows import Memory, Rows
    from etl_resources.kafka import Client
    from etl_resources.sources.kafka import KafkaSource, KafkaStreamOptions
    from etl_resources.sources.kafka_reader import Reader

_POLL = 10_000


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


class DebeziumLog(ChangeLog):
    """Nothing is set up at the far end. `_pos` counts the messages of the topic up to the event, of all partitions."""

    def __init__(self, source: KafkaSource, pipeline: str, tables: Sequence[LogTable], capture: LogCapture) -> None:
        if not isinstance(capture, DebeziumLogCapture):
            capture = DebeziumLogCapture(**capture.model_dump())
        self.source, self.tables, self.capture = source, tuple(tables), capture
        self.group = f"etl-{pipeline}"
        self.where = f"Debezium's topics, {source.address}"
        for table in self.tables:
            _check(table)

    def read(self, since: Mapping[str, Position | None]) -> Generator[Changes | Boundary, None, None]:
        """As `ChangeLog.read`; a stream without a position begins at the first message that the topic has."""
        from etl_resources.sources.kafka_reader import Reader

        with self.source.consumer(self.group) as client:
            cluster = self._cluster(client)
            streams = [self._followed(t, since[t.name], cluster) for t in self.tables if t.name in since]
            merged, ends = self._begin(client, streams)
            continuous = self.capture.mode == "continuous"
            reader = Reader(
                client, merged, None if continuous else ends, silence=self.source.resilience.silence, where=self.where,
                on_loss=lambda loss: self._lost([str(loss)]),
            )  # fmt: skip
            reader.assign(list(merged.next))
            stop = time.monotonic() + self.capture.lasts
            while True:
                over = yield from self._tick(reader, streams)
                done = time.monotonic() > stop if continuous else reader.done
                if over or done:
                    yield Boundary(
                        {s.table.name: _position(s, cluster) for s in streams}, lag=Lag(), caught_up=done or reader.done
                    )
                if done:
                    return
                reader.resume()

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        """Do nothing: the topic keeps its messages for as long as it is set to."""

    def renewed(self, position: Position | None) -> Position | None:
        """Return the position at the first message that the topic still has; a snapshot only Debezium can take."""
        if position is None:
            return None
        behind = position.get("base", 0) + sum(n for parts in position["topics"].values() for n in parts.values())
        return {**position, "topics": {}, "base": behind, "seen": ""}

    def preflight(self) -> list[Finding]:
        """As `ChangeLog.preflight`."""
        found = []
        with self.source.consumer(self.group) as client:
            for table in self.tables:
                partitions = find_partitions(client, _options(table).topic, self.where)
                marks = [watermarks(client, p) for p in partitions]
                count = sum(high - low for low, high in marks)
                found.append(Finding("ok", f"{len(partitions)} partitions, {count} messages", "", table.name))
                if any(low for low, _ in marks):
                    found.append(Finding(
                        "warning", "the topic has deleted its first messages: rows that have not changed since are not"
                        " in it", "let Debezium take a snapshot (an incremental one, by a signal)", table.name,
                    ))  # fmt: skip
        return found

    def state(self, since: Mapping[str, Position | None]) -> LogState:
        """As `ChangeLog.state`."""
        left = 0
        with self.source.consumer(self.group) as client:
            for table in self.tables:
                position = since.get(table.name)
                at = Offsets.load(position)
                for partition in find_partitions(client, _options(table).topic, self.where):
                    low, high = watermarks(client, partition)
                    following = at.next.get(partition, low)
                    if not low <= following <= high:
                        return LogState("lost", news=True, notes=[f"{partition[0]}/{partition[1]} has {low} to {high}"])
                    left += high - following
        if all(p is None for p in since.values()):
            return LogState("none", news=left > 0)
        return LogState("ok", left > 0, Lag(seconds=None if left else 0.0), [f"{left} messages to read"])

    def remove(self) -> None:
        """Do nothing: nothing was set up."""

    def _cluster(self, client: Client) -> str:
        return str(client.ask(lambda c, timeout: c.list_topics(timeout=timeout)).cluster_id or "")

    def _followed(self, table: LogTable, since: Position | None, cluster: str) -> Followed:
        from etl_resources.changes.debezium_envelopes import AvroEnvelopes, JsonEnvelopes
        from etl_resources.changes.debezium_rows import Memory, Rows

        options, kept = _options(table), since or {}
        if kept.get("cluster", cluster) != cluster:
            self._lost(["it is another cluster than the one that was read until now"])
        avro = options.format == "avro"
        envelopes = AvroEnvelopes(self.source.schemas()) if avro else JsonEnvelopes(kept.get("payload", {}))
        rows = Rows(loaded_schema(kept.get("schema")), table.key, self.capture.unavailable, f"topic {options.topic}")
        memory = Memory.load(kept.get("seen", ""), self.capture.remember)
        offsets, base = Offsets.load(since), kept.get("base", 0)
        return Followed(table, options.topic, offsets, base, envelopes, rows, memory, kept.get("tombstones", 0))

    def _begin(self, client: Client, streams: list[Followed]) -> tuple[Offsets, dict[Partition, int]]:
        """Return where all of them begin, in one, and the ends there are now."""
        ends: dict[Partition, int] = {}
        merged = Offsets()
        for stream in streams:
            partitions = find_partitions(client, stream.topic, self.where)
            here, losses = start_at(client, partitions, stream.offsets, first="earliest", fresh=not stream.offsets.next)
            if losses:
                self._lost([str(loss) for loss in losses])
            ends |= here
            merged.next |= stream.offsets.next
        return merged, ends

    def _lost(self, what: list[str]) -> None:
        raise LogLostError(
            "; ".join(what), where=self.where,
            fix="etl capture resnapshot reads what the topic still has; let Debezium take a snapshot for the rest",
        )  # fmt: skip

    def _tick(self, reader: Reader, streams: list[Followed]) -> Generator[Changes, None, bool]:
        """Read many messages, or those that are there; return whether there were any."""
        count = 0
        while count < self.capture.most and not reader.done:
            messages = reader.poll(min(_POLL, self.capture.most - count), 0.05 if count else self.capture.every)
            count += len(messages)
            for stream in streams:
                mine = [m for m in messages if m.topic() == stream.topic]
                if mine:
                    yield from _changes(stream, mine)
            if not messages and (count or self.capture.mode == "continuous"):
                break
        return count > 0


def _changes(stream: Followed, messages: list[Message]) -> Iterator[Changes]:
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


def _position(stream: Followed, cluster: str) -> dict[str, Any]:
    return {
        **stream.offsets.dump(), "pos": stream.pos, "base": stream.base, "cluster": cluster,
        "payload": stream.envelopes.dump(), "schema": dumped_schema(stream.rows.schema), "seen": stream.memory.dump(),
        "tombstones": stream.tombstones,
    }  # fmt: skip


def _options(table: LogTable) -> KafkaStreamOptions:
    return cast("KafkaStreamOptions", table.stream.options)


def _check(table: LogTable) -> None:
    """Refuse what cannot be followed.

    Raises:
        ConfigurationError: says what.
    """
    options = _options(table)
    if options.format not in {"json", "avro"} or options.topic.startswith("^") or not table.key:
        raise ConfigurationError(
            "a log of Debezium's is one topic per stream, `format: json` or `avro`, and has a key",
            where=f"stream {table.name}", fix="name the table's topic, its format, and `key`",
        )  # fmt: skip
