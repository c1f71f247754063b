"""Source `sqs`: queues of Amazon SQS, standard and FIFO; a message is deleted after it was committed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, PrivateAttr

from etl_resources.exceptions import ConfigurationError
from etl_resources.messages import MicroBatchOptions, PayloadOptions, payload_decoder
from etl_resources.source import Batch, Capabilities, Estimate, Position, Source, Stream, StreamOptions
from etl_resources.sources.sqs_columns import PREFIX, columns
from etl_resources.sqs import LONGEST_POLL, SqsConnection, translated

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.sources.sqs_reading import Reading


class SqsStreamOptions(MicroBatchOptions, PayloadOptions):
    """A queue, and what its messages are."""

    queue: str = Field(description="Name or URL of the queue; a name that ends in .fifo is a FIFO queue.")
    max_messages: int = Field(
        default=10_000, gt=0, le=100_000, description="Commit after so many messages (all of them are in flight),"
    )
    idle_seconds: float | None = Field(
        default=3.0, gt=0, description="The run ends when no message has come for so many seconds,"
    )
    run_seconds: float | None = Field(default=600.0, gt=0, description="or after so many seconds.")
    visibility_seconds: int = Field(
        default=120, ge=3, le=43_200,
        description="For how long others do not see a message; extended while it is worked on.",
    )  # fmt: skip
    receivers: int = Field(default=8, ge=1, le=64, description="Requests for messages at the same time.")
    metadata: tuple[
        Literal["message_id", "sent_at", "receive_count", "group", "sequence", "attributes"], ...
    ] = Field(
        default=("message_id", "sent_at", "receive_count", "group", "sequence", "attributes"),
        description="What else of a message becomes a column, called `sqs_message_id` and so on.",
    )  # fmt: skip


class SqsSource(SqsConnection, Source):
    """Takes messages out of queues. What cannot be parsed goes to the error list, and is deleted as well."""

    options_type: ClassVar[type[StreamOptions]] = SqsStreamOptions
    capabilities: ClassVar[Capabilities] = Capabilities(captures=frozenset(), resumes=True)
    _readings: dict[str, Reading] = PrivateAttr(default_factory=dict)

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the declared columns and those beside the body: to look at a message is to take it.

        Raises:
            NotFoundError, CredentialsRejectedError, UnavailableError: as `read`.
        """
        import pyarrow as pa

        options = _options(stream)
        self._waiting(stream)
        decoder = payload_decoder(options, None)
        beside = columns([], options.metadata, "")
        return pa.schema([*decoder.schema, *((n, a.type) for n, a in beside.items() if n != "_origin")])

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield the messages that come, until there is none for `idle_seconds`, or after `run_seconds`.

        A consumer that stops early, or fails, leaves its uncommitted messages to be received again at once.

        Raises:
            NotFoundError: no such queue.
            UnavailableError, CredentialsRejectedError: the queue did not answer, or refused.
        """
        from etl_resources.sources.sqs_known import Known
        from etl_resources.sources.sqs_lease import Lease
        from etl_resources.sources.sqs_reading import Reading

        options, since = _options(stream), since or {}
        longest = min(LONGEST_POLL, options.idle_seconds or LONGEST_POLL)
        with self.client(connections=options.receivers + 10, longest_poll=longest) as sqs:
            url = self.queue_url(sqs, options.queue)
            decoder = payload_decoder(
                options, since.get("payload"), taken=frozenset(PREFIX + name for name in options.metadata)
            )
            where = f"queue {options.queue}, {self.address}"
            lease = Lease(sqs, url, options.visibility_seconds, self.resilience, where)
            with closing(lease):
                known = Known(since.get("known", ()))
                reading = Reading(sqs, url, options, self.resilience, lease=lease, decoder=decoder, known=known)
                self._readings[stream.name] = reading
                try:
                    yield from reading.batches(batch_rows)
                finally:
                    del self._readings[stream.name]
                    lease.release()

    def rereads(self, stream: Stream) -> bool:  # noqa: ARG002 - true of no queue
        """A queue has forgotten what was taken out of it."""
        return False

    def acknowledge(self, stream: Stream, position: Position) -> None:  # noqa: ARG002 - the reading knows what it gave
        """Delete from the queue what was committed."""
        if reading := self._readings.get(stream.name):
            reading.acknowledge()

    def latest(self, stream: Stream) -> Position | None:
        """Return how many messages wait, about; a sensor watches it."""
        return {"waiting": self._waiting(stream)}

    def estimate(self, stream: Stream, since: Position | None) -> Estimate | None:  # noqa: ARG002 - a queue forgets
        """Return how many messages wait, about."""
        return Estimate(rows=self._waiting(stream))

    def _waiting(self, stream: Stream) -> int:
        options = _options(stream)

        def ask() -> int:
            with translated(f"queue {options.queue}, {self.address}"):
                name = "ApproximateNumberOfMessages"
                answer: Any = cast("Any", sqs).get_queue_attributes(QueueUrl=url, AttributeNames=[name])
                return int(answer["Attributes"][name])

        with self.client() as sqs:
            url = self.queue_url(sqs, options.queue)
            return self.resilience.call(ask)


def _options(stream: Stream) -> SqsStreamOptions:
    if stream.capture is not None:
        raise ConfigurationError(
            "a queue is emptied: it has no other capture", where=f"stream {stream.name}", fix="leave `capture` out"
        )
    return cast("SqsStreamOptions", stream.options)


SOURCE = SqsSource
