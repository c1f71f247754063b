"""A connection that consumes one queue in a thread of its own, so that heartbeats are answered while a lake commits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from etl_resources.exceptions import EtlError, UnavailableError
from etl_resources.rabbitmq_errors import translate, translated

if TYPE_CHECKING:
    import pika

OFFSET = "x-stream-offset"
_TURN = 1.0
_LINGER = 600.0


class Delivery(NamedTuple):
    """One message as the server delivered it."""

    tag: int
    exchange: str
    routing_key: str
    redelivered: bool
    properties: pika.BasicProperties
    body: bytes


def is_stream(connection: pika.BlockingConnection, queue: str) -> bool:
    """Tell whether a queue is a stream, without taking anything from it: only the server knows, and it refuses to begin
    at an offset in other queues."""
    from pika.exceptions import ChannelClosedByBroker

    channel = connection.channel()
    try:
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue, lambda *_: None, arguments={OFFSET: "next"})
    except ChannelClosedByBroker as refusal:
        if refusal.reply_code != 406 or OFFSET not in refusal.reply_text:
            raise
        return False
    channel.close()
    return True


class Consumer:
    """Gets messages until it is closed; at most `prefetch` of them are unacknowledged, and in memory.

    `stream` tells whether the queue is a stream, `waiting` how many messages another one had ready at the beginning.
    `offset` is where to begin in a stream.
    """

    def __init__(
        self, connect: Callable[[], pika.BlockingConnection], queue: str, *, prefetch: int, offset: Any, where: str
    ) -> None:
        self._queue, self._where = queue, where
        self._arrived: SimpleQueue[Delivery | None] = SimpleQueue()
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._stop = threading.Event()
        self._until: float | None = None
        self._error: EtlError | None = None
        self._connection = connect()
        try:
            with translated(where):
                self.stream = is_stream(self._connection, queue)
                self._channel = self._connection.channel()
                self.waiting = int(self._channel.queue_declare(queue, passive=True).method.message_count)
                self._channel.basic_qos(prefetch_count=prefetch)
                self._channel.add_on_cancel_callback(self._cancelled)
                arguments = {OFFSET: offset} if self.stream else None
                self._channel.basic_consume(queue, self._arrive, arguments=arguments)
        except BaseException:
            self._hang_up()
            raise
        self._thread = threading.Thread(target=self._run, name=f"rabbitmq {queue}", daemon=True)
        self._thread.start()

    def poll(self, timeout: float, most: int) -> list[Delivery]:
        """Return up to `most` messages, as soon as there is one; none after `timeout` seconds.

        Raises:
            UnavailableError, NotFoundError, ...: the connection is lost; nothing can be acknowledged on it any more.
        """
        found: list[Delivery] = []
        with suppress(Empty):
            while len(found) < most:
                # What came before a loss cannot be acknowledged any more, and is delivered again.
                delivery = self._arrived.get(timeout=0 if found else timeout) if self._thread.is_alive() else None
                if delivery is None:
                    self._thread.join(timeout=1)
                    raise self._error or UnavailableError("the connection is closed", where=self._where)
                found.append(delivery)
        return found

    def ask(self, timeout: float, *, acknowledge: int | None = None) -> int:
        """Return how many messages are ready, after acknowledging everything up to a tag.

        An acknowledgement has no answer in AMQP; the server works off a channel in order, so a question behind it has.

        Raises:
            UnavailableError, NotFoundError, ...: the connection is lost, or there was no answer for `timeout` seconds.
        """
        answer: SimpleQueue[int | None] = SimpleQueue()

        def task() -> None:
            try:
                if acknowledge is not None:
                    self._channel.basic_ack(acknowledge, multiple=True)
                declared = self._channel.queue_declare(self._queue, passive=True)
                answer.put(int(declared.method.message_count))
            finally:
                answer.put(None)

        self._submit(task)
        until = time.monotonic() + timeout
        while time.monotonic() < until and (self._thread.is_alive() or not answer.empty()):
            with suppress(Empty):
                ready = answer.get(timeout=0.1)
                if ready is not None:
                    return ready
                break
        self._thread.join(timeout=1)  # its error says more
        raise self._error or UnavailableError(f"no answer for {timeout:g} seconds", where=self._where)

    def linger(self) -> None:
        """Stay connected for a while, for an acknowledgement that comes after the end."""
        self._until = time.monotonic() + _LINGER

    def close(self) -> None:
        """Hang up; what was not acknowledged goes back into the queue."""
        self._stop.set()
        self._submit(lambda: None)
        self._thread.join(timeout=1)

    def _submit(self, task: Callable[[], None]) -> None:
        from pika.exceptions import AMQPError

        self._tasks.put(task)
        with suppress(AMQPError):  # closed: the thread has ended, and its error says so
            self._connection.add_callback_threadsafe(lambda: None)

    def _arrive(self, _: Any, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        self._arrived.put(
            Delivery(
                method.delivery_tag, method.exchange, method.routing_key, method.redelivered, properties, body
            )
        )  # fmt: skip

    def _cancelled(self, _: Any) -> None:
        self._error = UnavailableError(
            "the server ended the consumer: the queue was deleted, or moves to another node", where=self._where,
            fix="run again",
        )  # fmt: skip

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and self._error is None:
                with translated(self._where):
                    self._connection.process_data_events(time_limit=_TURN)
                    while not self._tasks.empty():
                        self._tasks.get()()
                    self._check_channel()
                if self._until is not None and time.monotonic() > self._until:
                    break
        except EtlError as error:
            self._error = error
        finally:
            self._arrived.put(None)
            self._hang_up()

    def _check_channel(self) -> None:
        """Notice a channel that the server closed, which the client does not tell while it only waits."""
        if self._channel.is_closed:
            reason = self._channel._closing_reason  # noqa: SLF001 - it is nowhere else until something is sent
            raise translate(reason, self._where) if reason else UnavailableError("channel closed", where=self._where)

    def _hang_up(self) -> None:
        from pika.exceptions import AMQPError

        with suppress(AMQPError, OSError):  # it was lost before
            self._connection.close()
