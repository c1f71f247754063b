"""RabbitMQ queues as a source: classic, quorum and stream queues, acknowledged after the commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PrivateAttr

from etl_resources.exceptions import ConfigurationError
from etl_resources.messages import MicroBatchOptions, PayloadOptions
from etl_resources.rabbitmq import RabbitmqConnection
from etl_resources.source import Batch, Capabilities, Estimate, Position, Source, Stream, StreamOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.sources.rabbitmq_reading import Reading


class RabbitmqOptions(MicroBatchOptions, PayloadOptions):
    """What is written under `source: {type: rabbitmq, ...}`."""

    type: Literal["rabbitmq"] = "rabbitmq"
    queue: str = Field(description="Name of the queue; it has to exist.")
    prefetch: int = Field(
        default=20_000, ge=1, le=65_535,
        description="Messages the server sends ahead of their acknowledgement: what is in memory at most.",
    )  # fmt: skip
    max_messages: int = Field(default=10_000, gt=0, description="Commit after so many messages (or `prefetch`),")
    identity: Literal["message_id", "body"] = Field(
        default="message_id",
        description="What tells that a message was delivered before: its message_id together with its body; `body`: two"
        " messages without an id and with the same body are the same message.",
    )
    start: Literal["first", "last", "next"] | int = Field(
        default="first", description="Stream queues: where to begin without a position; a number is an offset."
    )
    properties: bool = Field(default=True, description="Columns of headers, routing key and properties.")


class RabbitmqSource(RabbitmqConnection, Source):
    """Takes messages out of queues, each acknowledged when it is committed; stream queues are read by offset.

    A message that cannot be parsed is committed to the error list and acknowledged as well.
    """

    options_type: ClassVar[type[StreamOptions]] = RabbitmqOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        captures=frozenset(), resumes=True, gaps={"missing_column": "the options of a queue name no column"}
    )
    _readings: dict[str, Reading] = PrivateAttr(default_factory=dict)

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the declared columns and those of the properties: a message that is looked at counts as delivered.

        Raises:
            NotFoundError, CredentialsRejectedError, UnavailableError: as `read`.
        """
        import pyarrow as pa

        from etl_resources.messages import payload_decoder
        from etl_resources.sources.rabbitmq_columns import NAMES, property_columns

        options = _options(stream)
        self._waiting(stream)
        decoder = payload_decoder(options, None, taken=NAMES if options.properties else frozenset())
        own = property_columns([]) if options.properties else {}
        return pa.schema([*decoder.schema, *((name, array.type) for name, array in own.items())])

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield micro-batches; ends with the messages that were there when it began, by idle_seconds or run_seconds.

        Raises:
            NotFoundError: no such queue or vhost.
            CredentialsRejectedError: the user is refused, or may not read the queue.
            UnavailableError: the server went away and did not come back. What was not committed is delivered again.
            ConfigurationError: a window or a capture was asked for.
        """
        from etl_resources.sources.rabbitmq_reading import Reading

        options = _options(stream)
        if (before := self._readings.pop(stream.name, None)) is not None:
            before.close()
        reading = Reading(self, self._where(stream.name), options, since, batch_rows)
        self._readings[stream.name] = reading
        with closing(reading.batches()) as batches:
            yield from batches

    def rereads(self, stream: Stream) -> bool:
        """A queue has forgotten what was taken out of it; a stream queue keeps it."""
        return self._waiting(stream) is None

    def acknowledge(self, stream: Stream, position: Position) -> None:  # noqa: ARG002 - the newest, always
        """Acknowledge what was committed; where that fails it is delivered again, and recognised."""
        reading = self._readings.get(stream.name)
        if reading is not None:
            reading.acknowledge()

    def estimate(self, stream: Stream, since: Position | None) -> Estimate | None:  # noqa: ARG002 - a queue forgets
        """Return how many messages wait; the server does not tell it of a stream queue."""
        waiting = self._waiting(stream)
        return None if waiting is None else Estimate(rows=waiting)

    def latest(self, stream: Stream) -> Position | None:
        """Return how many messages wait, which is what a sensor watches; None of a stream queue."""
        waiting = self._waiting(stream)
        return None if waiting is None else {"waiting": waiting}

    def _waiting(self, stream: Stream) -> int | None:
        """Return how many messages a queue has ready; None of a stream queue, of which the server does not know."""
        return self.resilience.call(self._count, stream)

    def _count(self, stream: Stream) -> int | None:
        from etl_resources.rabbitmq_errors import translated
        from etl_resources.sources.rabbitmq_consumer import is_stream

        queue = _options(stream).queue
        connection = self.connect()
        with translated(self._where(stream.name)):
            try:
                if is_stream(connection, queue):
                    return None
                return int(connection.channel().queue_declare(queue, passive=True).method.message_count)
            finally:
                if connection.is_open:
                    connection.close()

    def _where(self, stream: str) -> str:
        return f"stream {stream}, {self.address}"


def _options(stream: Stream) -> RabbitmqOptions:
    if not isinstance(stream.options, RabbitmqOptions):
        raise ConfigurationError(f"stream {stream.name} is not a rabbitmq stream", where=str(stream.options))
    if stream.capture is not None or stream.window is not None:
        raise ConfigurationError(
            "a queue is read as it comes: it has neither a cursor nor partitions", where=f"stream {stream.name}",
            fix="leave `capture` and `partitions` out",
        )  # fmt: skip
    return stream.options


SOURCE = RabbitmqSource
