"""One read of a queue: micro-batches out of deliveries, what was delivered before, and connections that are lost."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import EtlError, UnavailableError
from etl_resources.messages import MicroBatcher, payload_decoder
from etl_resources.source import Batch, Position
from etl_resources.sources.rabbitmq_columns import NAMES, offsets, property_columns
from etl_resources.sources.rabbitmq_consumer import Consumer, Delivery
from etl_resources.sources.rabbitmq_known import Known, digest_of

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.sources.rabbitmq import RabbitmqOptions, RabbitmqSource

_LOG = logging.getLogger(__name__)
_LOOK = 0.5
"""Seconds for which a queue that says it is empty is watched all the same."""
_PATIENCE = 3.0
"""Seconds without a message after which a stream is at its end; what another queue had may have gone elsewhere."""


class Reading:
    """State of one `read`: what is open, what was committed, and what is acknowledged."""

    def __init__(
        self,
        source: RabbitmqSource,
        where: str,
        options: RabbitmqOptions,
        since: Position | None,
        batch_rows: int,
    ) -> None:
        since = since or {}
        self._source, self._where = source, where
        most = min(options.max_messages, options.prefetch)
        self._options = options.model_copy(update={"max_messages": most})
        self._stream = "offset" in since
        self._batcher: MicroBatcher[Delivery] = MicroBatcher(self._options, batch_rows=batch_rows)
        own = NAMES if options.properties else frozenset()
        self._decoder = payload_decoder(options, since.get("payload"), taken=own)
        self._known = Known(since.get("delivered", ()))
        self._offset: int | None = since.get("offset")
        self._rows_read = 0
        self._consumer: Consumer | None = None
        self._arrived = 0  # on this connection
        self._unacknowledged = 0
        self._last: int | None = None  # tag of the newest message that was handed on
        self._committed: int | None = None  # the same as of the newest commit, until it is acknowledged
        self._handed_on = False  # a part of the open micro-batch
        self._losses = 0  # of the connection, since the last commit
        self._unnamed = 0
        self._ended = False

    def batches(self) -> Generator[Batch, None, None]:
        """Yield what comes; ends as `RabbitmqSource.read` says."""
        consumer = self._open()
        try:
            while not self._over(consumer):
                consumer = self._poll(consumer)
                if self._batcher.due():
                    yield self._batch(*self._batcher.take())
            if self._batcher.pending():
                yield self._batch(*self._batcher.take(end=True))
            self._ended = True
        finally:
            # Bronze may commit and acknowledge only after the end (a full refresh); who stops in the middle does not.
            if self._ended and self._committed is not None and not self._stream:
                consumer.linger()
            else:
                self.close()
            self._warn_of_unnamed()

    def acknowledge(self) -> None:
        """Acknowledge everything that was handed on up to the newest commit."""
        if self._committed is None or self._consumer is None:
            return
        try:
            self._consumer.ask(self._source.resilience.silence, acknowledge=self._committed)
            self._known.confirmed()
            self._unacknowledged = 0
        except EtlError as error:
            # The commit stands. What it holds is delivered again, and recognised by what the position says.
            _LOG.warning("%s: committed, but not acknowledged for sure: %s", self._where, error.what)
        self._committed = None
        if self._ended:
            self.close()

    def close(self) -> None:
        """Hang up."""
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = None

    def _open(self) -> Consumer:
        begin = self._options.start if self._offset is None else self._offset + 1
        consumer = self._consumer = self._source.resilience.call(
            Consumer, self._source.connect, self._options.queue, prefetch=self._options.prefetch, offset=begin,
            where=self._where,
        )  # fmt: skip
        self._stream = consumer.stream
        self._arrived = self._unacknowledged = 0
        return consumer

    def _over(self, consumer: Consumer) -> bool:
        """Tell whether the run ends, which it does only at a word of the server: one that is gone is silent as well.

        Raises:
            UnavailableError: the server does not answer.
        """
        full = self._unacknowledged >= self._options.prefetch  # nobody commits before the end, and no more will come
        if not (full or self._batcher.over() or self._drained(consumer)):
            return False
        ready = consumer.ask(self._source.resilience.silence)
        return full or self._stream or ready == 0 or self._batcher.over() or self._arrived >= consumer.waiting > 0

    def _drained(self, consumer: Consumer) -> bool:
        if self._options.idle_seconds is not None:
            return False
        silence = self._batcher.silence()
        drained = not self._stream and self._arrived >= consumer.waiting
        return silence >= _PATIENCE or (drained and (consumer.waiting > 0 or silence >= _LOOK))

    def _poll(self, consumer: Consumer) -> Consumer:
        """Take what has arrived; return the consumer to go on with."""
        try:
            deliveries = consumer.poll(self._batcher.wait(_LOOK), self._batcher.room)
        except UnavailableError as error:
            return self._reconnect(consumer, error)
        self._arrived += len(deliveries)
        self._batcher.extend(deliveries, sum(len(d.body) for d in deliveries))
        return consumer

    def _reconnect(self, consumer: Consumer, error: UnavailableError) -> Consumer:
        """Return a new consumer, where nobody has seen yet what was not committed; it is delivered to that one."""
        self._losses += 1
        if self._handed_on or self._losses >= self._source.resilience.attempts:
            raise error
        _LOG.warning("%s: %s; connecting again", self._where, error.what)
        self._batcher.take(end=True)
        self._known.disconnected()
        consumer.close()
        return self._open()

    def _batch(self, messages: list[Delivery], commit: bool) -> Batch:  # noqa: FBT001 - as MicroBatcher.take gives it
        fresh = self._newer(messages) if self._stream else self._unknown(messages)
        data, unreadable = self._columns(fresh)
        self._rows_read += len(messages)
        self._unacknowledged += len(messages)
        self._handed_on = not commit
        if messages:
            self._last = messages[-1].tag
        position: dict[str, Any] | None = None
        if commit:
            self._losses, self._committed = 0, self._last
            resume = {"offset": self._offset} if self._stream else {"delivered": self._known.commit()}
            position = {"payload": self._decoder.dump(), **resume}
        repeated = len(messages) - len(fresh)
        return Batch(data, self._rows_read, position, unreadable, repeated, commit)

    def _newer(self, messages: list[Delivery]) -> list[Delivery]:
        """Return the messages of a stream behind the last one; the server starts with a chunk, not with an offset."""
        before = self._offset if self._offset is not None else -1
        fresh = [
            (message, offset)
            for message, offset in zip(messages, offsets(messages), strict=True)
            if offset is not None and offset > before
        ]
        if fresh:
            if before >= 0 and fresh[0][1] > before + 1:
                _LOG.warning(
                    "%s: goes on at offset %d after %d: what was between them was dropped by the retention of the queue"
                    " before it was read, or was no message", self._where, fresh[0][1], before,
                )  # fmt: skip
            self._offset = fresh[-1][1]
        return [message for message, _ in fresh]

    def _unknown(self, messages: list[Delivery]) -> list[Delivery]:
        """Return the messages that were not handed on before."""
        fresh = []
        for message in messages:
            digest = digest_of(message, self._options.identity)
            self._unnamed += digest is None and message.redelivered
            if not self._known.seen(digest):
                fresh.append(message)
        return fresh

    def _columns(self, messages: list[Delivery]) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
        import pyarrow as pa

        bodies = [m.body for m in messages]
        places = pa.array(offsets(messages), pa.int64()) if self._stream else None
        origin = pa.array([self._options.queue] * len(messages), pa.string())
        others = property_columns(messages) if self._options.properties else {}
        others |= {"_origin": origin} | ({"_seq": places} if places is not None else {})
        return self._decoder.decode(bodies).beside(others, bodies, origin, places)

    def _warn_of_unnamed(self) -> None:
        if self._unnamed:
            _LOG.warning(
                "%s: %d messages without a message_id were delivered again; those of them that an earlier read had"
                " committed and not acknowledged are there twice (see `_redelivered`)", self._where, self._unnamed,
            )  # fmt: skip
