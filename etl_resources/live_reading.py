"""One read of a stream that is pushed: micro-batches, where to resume, and what came twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from pydantic import Field

from etl_resources.exceptions import ConfigurationError, EtlError
from etl_resources.live_feed import EndedError, Feed, Opener, Received, Token
from etl_resources.messages import MicroBatcher, MicroBatchOptions, PayloadOptions, payload_decoder
from etl_resources.resilience import Policy
from etl_resources.source import Batch, Position, Stream, StreamOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.messages import Decoder

NAMES = frozenset({"_received_at", "_missed_since", "_event", "_token"})
_LOOK = 0.5
_DIGESTS = 1000
"""Messages with the same token that can be told apart after a resumption; of more than so many the newest."""


class LiveOptions(MicroBatchOptions, PayloadOptions):
    """Options of every source that is pushed to."""

    path: str = Field(default="", description="Added to the `url` of the connection.")
    max_messages: int = Field(default=10_000, gt=0, description="Commit after so many messages,")
    run_seconds: float | None = Field(default=60.0, gt=0, description="End the run after so many seconds.")
    buffer_bytes: int = Field(
        default=16 << 20, gt=0,
        description="Messages that are received while the lake is busy, at most; then the server has to wait.",
    )  # fmt: skip
    max_message_bytes: int = Field(default=8 << 20, gt=0, description="Size of a message.")
    properties: bool = Field(default=True, description="Columns _received_at, _missed_since, _token and (sse) _event.")


def live_options(stream: Stream, kind: type[StreamOptions]) -> Any:
    """Return the options of a stream, which has neither a capture nor partitions.

    Raises:
        ConfigurationError: it has, or is a stream of another source.
    """
    if not isinstance(stream.options, kind):
        raise ConfigurationError(f"stream {stream.name} is of another source", where=str(stream.options))
    if stream.capture is not None or stream.window is not None:
        raise ConfigurationError(
            "what is pushed is read as it comes: it has neither a cursor nor partitions",
            where=f"stream {stream.name}", fix="leave `capture` and `partitions` out",
        )  # fmt: skip
    return stream.options


def decoder_of(options: LiveOptions, landed: Any) -> Decoder:
    """Return what decodes the bodies."""
    return payload_decoder(options, landed, taken=NAMES if options.properties else frozenset())


def own_columns(messages: list[Received]) -> dict[str, pa.Array]:
    """Return the columns that stand beside the payload's."""
    import pyarrow as pa

    moment = pa.timestamp("us", "UTC")
    missed = [None if m.missed_since is None else round(m.missed_since * 1e6) for m in messages]
    return {
        "_received_at": pa.array([round(m.at * 1e6) for m in messages], moment),
        "_missed_since": pa.array(missed, moment),
        "_token": pa.array([None if m.token is None else str(m.token) for m in messages], pa.string()),
        "_event": pa.array([m.kind for m in messages], pa.string()),
    }


class LiveReading:
    """State of one `read`."""

    def __init__(self, options: LiveOptions, since: Position | None, batch_rows: int, *, origin: str) -> None:
        since = since or {}
        self._options, self._origin = options, origin
        self._decoder = decoder_of(options, since.get("payload"))
        self._batcher: MicroBatcher[Received] = MicroBatcher(options, batch_rows=batch_rows)
        self.token: Token | None = since.get("token")
        self.seen_at: float | None = since.get("seen_at")
        self._digests: list[str] = list(since.get("digests", ()))  # of the messages that carry the token
        self._awaited: Counter[str] = Counter()
        self._resumption = 0
        self._rows_read = 0
        self._began = time.monotonic()

    def batches(self, opener: Opener, policy: Policy, where: str) -> Generator[Batch, None, None]:
        """Yield what comes until the run is over; what was received is handed on before an error is raised."""
        feed = Feed(
            opener, policy, token=self.token, seen_at=self.seen_at, buffer_bytes=self._options.buffer_bytes,
            where=where,
        )  # fmt: skip
        failure: EtlError | None = None
        try:
            while not self._over(feed):
                self._add(feed.poll(self._batcher.wait(_LOOK), self._batcher.room))
                if self._batcher.due():
                    yield self._batch(*self._batcher.take())
            feed.check()
        except EtlError as error:
            failure = error
        finally:
            feed.close()
        failure = failure or feed.error  # one that came to light while it hung up
        # What was received may never be sent again, so it is handed on first, whatever happened.
        while found := feed.rest(self._batcher.room):
            self._add(found)
            if self._batcher.due():
                yield self._batch(*self._batcher.take())
        if self._batcher.pending():
            yield self._batch(*self._batcher.take(end=True))
        if failure is not None and not isinstance(failure, EndedError):
            raise failure

    def _over(self, feed: Feed) -> bool:
        """Tell whether the run ends; what comes over a new connection is waited for as long again."""
        limit = self._options.run_seconds
        if limit is not None and time.monotonic() - self._began >= limit:
            return True
        return self._batcher.over() and feed.connected_seconds >= (self._options.idle_seconds or 0)

    def _add(self, messages: list[Received]) -> None:
        self._batcher.extend(messages, sum(len(m.body) for m in messages))

    def _batch(self, messages: list[Received], commit: bool) -> Batch:  # noqa: FBT001 - as MicroBatcher.take gives it
        fresh = [message for message in messages if not self._repeated(message)]
        data, unreadable = self._columns(fresh)
        self._rows_read += len(messages)
        if messages:
            self.seen_at = messages[-1].at
        position: dict[str, Any] | None = None
        if commit:
            position = {"payload": self._decoder.dump(), "seen_at": self.seen_at}
            if self.token is not None:
                position |= {"token": self.token, "digests": self._digests}
        return Batch(data, self._rows_read, position, unreadable, len(messages) - len(fresh), commit)

    def _repeated(self, message: Received) -> bool:
        """Tell whether a message was handed on before a resumption: it has the same token, and the same body.

        Several messages may have the same token (a time, say), and some of them may be new.
        """
        if message.token is None:
            return False
        digest = blake2b(message.body, digest_size=10).hexdigest()
        if message.resumption and message.token == self.token:
            if message.resumption != self._resumption:
                self._resumption, self._awaited = message.resumption, Counter(self._digests)
            if self._awaited[digest]:
                self._awaited[digest] -= 1
                return True
        if message.token != self.token:
            self.token, self._digests = message.token, []
        self._digests = [*self._digests[-_DIGESTS:], digest]
        return False

    def _columns(self, messages: list[Received]) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
        import pyarrow as pa

        bodies = [m.body for m in messages]
        whole = [n for n, m in enumerate(messages) if m.problem is None]
        decoded = self._decoder.decode([bodies[n] for n in whole])
        if len(whole) < len(messages):
            broken = [(n, m.problem) for n, m in enumerate(messages) if m.problem is not None]
            bad = sorted([*broken, *((whole[n], reason) for n, reason in decoded.bad)])
            decoded = replace(decoded, bad=bad)
        origin = pa.array([self._origin] * len(messages), pa.string())
        others = own_columns(messages) if self._options.properties else {}
        return decoded.beside({**others, "_origin": origin}, bodies, origin)
