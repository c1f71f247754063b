"""Source `kafka`: topics, read from the offsets that the last commit to the lake has, and not from the group's."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field, PrivateAttr, model_validator

from etl_resources.changes.debezium_settings import DebeziumLogCapture
from etl_resources.exceptions import ConfigurationError
from etl_resources.kafka import Client, KafkaConnection
from etl_resources.messages import (
    RESERVED,
    Decoder,
    MicroBatcher,
    MicroBatchOptions,
    PayloadOptions,
    payload_decoder,
)
from etl_resources.source import (
    Batch,
    Capabilities,
    Estimate,
    LogCapture,
    Position,
    Source,
    Stream,
    StreamOptions,
)
from etl_resources.sources.kafka_columns import PREFIX
from etl_resources.sources.kafka_partitions import Loss, Offsets, find_partitions, settle, start_at, watermarks

if TYPE_CHECKING:
    import pyarrow as pa
    from confluent_kafka import Message

    from etl_resources.change_log import ChangeLog, LogTable
    from etl_resources.sources.kafka_batches import Batches
    from etl_resources.sources.kafka_reader import Reader

_log = logging.getLogger(__name__)
_SAMPLE = 500
_MESSAGE_BYTES = 100
_LOOK_AROUND = 30.0


class KafkaStreamOptions(MicroBatchOptions, PayloadOptions):
    """A topic, and what its messages are."""

    topic: str = Field(description="Name of the topic; or a pattern that begins with ^, for all topics it matches.")
    format: str = Field(
        default="json",
        pattern="^(json|text|bytes|avro|protobuf)$",
        description="json: an object per message, its keys become columns; text or bytes: one column `payload`;"
        " avro or protobuf: by the schema in the registry whose id stands in front of each message.",
    )
    key_format: Literal["text", "bytes"] = Field(default="text", description="What the keys of messages are.")
    key_column: str | None = Field(
        default=None, description="Column of the payload that a tombstone's key fills, so that it deletes that row."
    )
    metadata: tuple[Literal["topic", "partition", "offset", "timestamp", "key", "headers"], ...] = Field(
        default=("topic", "partition", "offset", "timestamp", "key", "headers"),
        description="What else of a message becomes a column, called `kafka_topic` and so on.",
    )
    start: Literal["earliest", "latest"] = Field(
        default="earliest", description="Where the first run begins; later ones begin where the last commit ended."
    )
    on_lost: Literal["fail", "continue"] = Field(
        default="fail", description="What to do about messages that the topic deleted before they were read."
    )
    group: str | None = Field(
        default=None, description="Consumer group that is told what was committed, to watch the lag; default: etl-NAME."
    )

    @model_validator(mode="after")
    def _key_as_text(self) -> KafkaStreamOptions:
        if self.key_column is not None and self.key_format != "text":
            raise ValueError("`key_column` needs `key_format: text`")
        return self


class KafkaSource(KafkaConnection, Source):
    """Reads every message once: the offsets stand in the same commit as the rows.

    It is no member of its consumer group, so no rebalance takes a partition away from it; the group only learns, after
    each commit, how far the lake is.
    """

    options_type: ClassVar[type[StreamOptions]] = KafkaStreamOptions
    capabilities: ClassVar[Capabilities] = Capabilities(captures=frozenset({"log"}), resumes=True)
    log_type: ClassVar[type[LogCapture]] = DebeziumLogCapture
    _clients: dict[str, Client] = PrivateAttr(default_factory=dict)

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the columns that the newest few hundred messages show; of a log, those of the rows in them.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError: as `read`.
        """
        if isinstance(stream.capture, LogCapture):
            from etl_resources.change_log import LogTable
            from etl_resources.changes.debezium import DebeziumLog

            # No key: of which columns it is does not matter to what columns there are.
            return DebeziumLog(self, stream.name, [LogTable(stream, ())], stream.capture).columns()
        import pyarrow as pa

        from etl_resources.sources.kafka_batches import Batches
        from etl_resources.sources.kafka_reader import Reader

        options, where = _options(stream), self._where(stream)
        with self.consumer(_group(stream)) as client:
            partitions = find_partitions(client, options.topic, where)
            offsets, ends = Offsets(), {}
            for partition in partitions:
                low, high = watermarks(client, partition)
                offsets.next[partition], ends[partition] = max(low, high - _SAMPLE), high
            reader = Reader(client, offsets, ends, silence=self.resilience.silence, where=where, on_loss=lambda _: None)
            reader.assign(partitions)
            messages: list[Message] = []
            while not reader.done and len(messages) < _SAMPLE:
                messages += reader.poll(_SAMPLE, 1.0)
        batches = Batches(options, self._decoder(stream, None), reader, offsets)
        schema = batches.make(messages, commit=False).data.schema
        return pa.schema([field for field in schema if field.name not in RESERVED])

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield the messages up to the end that was there at the start, or for as long as the options say.

        Raises:
            NotFoundError: no such topic.
            RowsNotConservedError: messages were deleted before they were read, and `on_lost` is `fail`.
            SchemaConflictError: Avro, Protobuf: a field became something else altogether.
            UnavailableError: the brokers, or the registry, fell silent.
            CredentialsRejectedError: they refused access.
        """
        from etl_resources.sources.kafka_batches import Batches

        options, offsets = _options(stream), Offsets.load(since)
        with self.consumer(_group(stream)) as client:
            self._clients[stream.name] = client
            try:
                reader = self._reader(stream, client, offsets, fresh=since is None)
                batches = Batches(options, self._decoder(stream, since), reader, offsets)
                yield from self._batches(stream, client, reader, batches, batch_rows)
                if since is None and not reader.read:
                    # Where a first run at the end of the topic began has to be known to the next one.
                    yield batches.make([], commit=True)
            finally:
                del self._clients[stream.name]
                client.finish_commits()

    def _reader(self, stream: Stream, client: Client, offsets: Offsets, *, fresh: bool) -> Reader:
        from etl_resources.sources.kafka_reader import Reader

        options, where = _options(stream), self._where(stream)
        go_on = options.on_lost == "continue"

        def on_loss(*losses: Loss) -> None:
            settle(losses, offsets, go_on=go_on, where=where)

        partitions = find_partitions(client, options.topic, where)
        ends, losses = start_at(client, partitions, offsets, first=options.start, fresh=fresh)
        on_loss(*losses)
        follow = options.idle_seconds is not None
        reader = Reader(
            client, offsets, None if follow else ends, silence=self.resilience.silence, where=where, on_loss=on_loss
        )
        reader.assign(partitions)
        return reader

    def _batches(
        self, stream: Stream, client: Client, reader: Reader, batches: Batches, batch_rows: int
    ) -> Iterator[Batch]:
        options = _options(stream)
        batcher: MicroBatcher[Message] = MicroBatcher(options, batch_rows=batch_rows)
        looked = time.monotonic()
        while not reader.done and not batcher.over():
            if options.idle_seconds is not None and time.monotonic() - looked > _LOOK_AROUND:
                self._take_up_new(stream, client, reader, batches.offsets)
                looked = time.monotonic()
            messages = reader.poll(batcher.room, batcher.wait())
            batcher.extend(messages, sum(map(len, messages)) + _MESSAGE_BYTES * len(messages))
            if batcher.due():
                yield batches.make(*batcher.take())
                reader.resume()
        if batcher.pending():
            yield batches.make(*batcher.take(end=True))

    def _take_up_new(self, stream: Stream, client: Client, reader: Reader, offsets: Offsets) -> None:
        """Read partitions, and topics of the pattern, that have come since the run began, from their beginning."""
        options, where = _options(stream), self._where(stream)
        new = [p for p in find_partitions(client, options.topic, where) if p not in offsets.next]
        _, losses = start_at(client, new, offsets, first="earliest", fresh=False)
        settle(losses, offsets, go_on=options.on_lost == "continue", where=where)
        reader.assign(new)

    def change_log(self, pipeline: str, tables: Sequence[LogTable], capture: LogCapture) -> ChangeLog:
        """Return the log of topics that hold Debezium's change events."""
        from etl_resources.changes.debezium import DebeziumLog

        return DebeziumLog(self, pipeline, tables, capture)

    def latest(self, stream: Stream) -> Position | None:
        """Return the offsets behind the newest messages."""
        with self.consumer(_group(stream)) as client:
            partitions = find_partitions(client, _options(stream).topic, self._where(stream))
            return {"topics": Offsets({p: watermarks(client, p)[1] for p in partitions}).dump()["topics"]}

    def estimate(self, stream: Stream, since: Position | None) -> Estimate:
        """Return how many offsets there are to read, which is at least the number of messages."""
        options, offsets = _options(stream), Offsets.load(since)
        with self.consumer(_group(stream)) as client:
            partitions = find_partitions(client, options.topic, self._where(stream))
            ends, _ = start_at(client, partitions, offsets, first=options.start, fresh=since is None)
        rows = {p: max(0, ends[p] - offsets.next[p]) for p in partitions}
        return Estimate(sum(rows.values()), None, tuple(f"{t}/{n}" for (t, n), count in rows.items() if count))

    def acknowledge(self, stream: Stream, position: Position) -> None:
        """Tell the consumer group how far the lake is; that this fails loses nothing, and is only logged."""
        from confluent_kafka import KafkaException

        try:
            if client := self._clients.get(stream.name):
                client.commit(Offsets.load(position).next)
            else:  # the read has ended: a full refresh is committed as a whole
                with self.consumer(_group(stream)) as other:
                    other.commit(Offsets.load(position).next)
                    other.finish_commits()
        except KafkaException as error:
            _log.warning("%s: the consumer group does not know the commit: %s", self._where(stream), error)

    def _decoder(self, stream: Stream, since: Position | None) -> Decoder:
        options, landed = _options(stream), (since or {}).get("payload", {})
        taken = frozenset(PREFIX + name for name in options.metadata)
        if options.format == "avro":
            from etl_resources.kafka_avro import AvroDecoder

            return AvroDecoder(self.schemas(), landed, taken)
        if options.format == "protobuf":
            from etl_resources.kafka_protobuf import ProtobufDecoder

            return ProtobufDecoder(self.schemas(), landed, taken)
        return payload_decoder(options, landed, taken=taken)

    def _where(self, stream: Stream) -> str:
        return f"stream {stream.name}, {self.address}"


def _options(stream: Stream) -> KafkaStreamOptions:
    if stream.capture is not None and not isinstance(stream.capture, LogCapture):
        raise ConfigurationError(
            "a topic is read from where the last run ended: it has no other capture",
            where=f"stream {stream.name}", fix="leave `capture` out",
        )  # fmt: skip
    return cast("KafkaStreamOptions", stream.options)


def _group(stream: Stream) -> str:
    return _options(stream).group or f"etl-{stream.name}"


SOURCE = KafkaSource
