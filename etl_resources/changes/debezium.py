"""Debezium's topics as a change log: each stream is the topic of a table, in the order of its offsets."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from etl_resources.change_log import Boundary, ChangeLog, Changes, Finding, Lag, LogState, LogTable
from etl_resources.changes.debezium_settings import DebeziumLogCapture
from etl_resources.changes.debezium_stream import Followed, changes_of, position_of
from etl_resources.changes.debezium_types import loaded_schema
from etl_resources.exceptions import ConfigurationError, LogLostError
from etl_resources.source import LogCapture, Position
from etl_resources.sources.kafka_partitions import Offsets, Partition, find_partitions, start_at, watermarks

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.kafka import Client
    from etl_resources.sources.kafka import KafkaSource, KafkaStreamOptions
    from etl_resources.sources.kafka_reader import Reader

_POLL, _SAMPLE = 10_000, 500


class DebeziumLog(ChangeLog):
    """Nothing is set up at the far end. `_pos` counts the messages of the topic up to the event, of all partitions."""

    def __init__(self, source: KafkaSource, pipeline: str, tables: Sequence[LogTable], capture: LogCapture) -> None:
        if not isinstance(capture, DebeziumLogCapture):
            capture = DebeziumLogCapture(**capture.model_dump())
        self.source, self.tables, self.capture = source, tuple(tables), capture
        self.resilience, self.lasts = source.resilience, capture.time
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
                        {s.table.name: position_of(s, cluster) for s in streams},
                        lag=Lag(),
                        caught_up=done or reader.done,
                    )
                if done:
                    return
                reader.resume()

    def columns(self) -> pa.Schema:
        """Return the columns of the rows of the first table, as its newest messages show them; raises as `read`."""
        from etl_resources.sources.kafka_reader import Reader

        with self.source.consumer(self.group) as client:
            stream = self._followed(self.tables[0], None, self._cluster(client))
            marks = {p: watermarks(client, p) for p in find_partitions(client, stream.topic, self.where)}
            merged = Offsets({p: max(low, high - _SAMPLE) for p, (low, high) in marks.items()})
            stream.offsets.next.update(merged.next)
            ends = {p: high for p, (_, high) in marks.items()}
            silence = self.source.resilience.silence
            reader = Reader(client, merged, ends, silence=silence, where=self.where, on_loss=lambda _: None)
            reader.assign(list(marks))
            while not reader.done:
                if messages := reader.poll(_SAMPLE, 1.0):
                    deque(changes_of(stream, messages), 0)
        return stream.rows.schema

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
                    yield from changes_of(stream, mine)
            if not messages and (count or self.capture.mode == "continuous"):
                break
        return count > 0


def _options(table: LogTable) -> KafkaStreamOptions:
    return cast("KafkaStreamOptions", table.stream.options)


def _check(table: LogTable) -> None:
    """Refuse what cannot be followed.

    Raises:
        ConfigurationError: says what.
    """
    options = _options(table)
    if options.format not in {"json", "avro"} or options.topic.startswith("^"):
        raise ConfigurationError(
            "a log of Debezium's is one topic per stream, with `format: json` or `avro`",
            where=f"stream {table.name}", fix="name the table's topic, and its format",
        )  # fmt: skip
