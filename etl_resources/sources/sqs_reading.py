"""One run over a queue: received, handed on in micro-batches, deleted when they are committed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from etl_resources.messages import Decoder, MicroBatcher
from etl_resources.source import Batch
from etl_resources.sources import sqs_columns
from etl_resources.sources.sqs_known import Known
from etl_resources.sqs import LONGEST_POLL, translated

if TYPE_CHECKING:
    from etl_resources.resilience import Policy
    from etl_resources.sources.sqs import SqsStreamOptions
    from etl_resources.sources.sqs_lease import Lease

_AT_ONCE = 10
_MESSAGE_BYTES = 500


class Reading:
    """Receives with several requests at once. A message is deleted once the lake has it, and never before."""

    def __init__(
        self,
        sqs: Any,
        url: str,
        options: SqsStreamOptions,
        policy: Policy,
        *,
        lease: Lease,
        decoder: Decoder,
        known: Known,
    ) -> None:
        self._sqs, self._url, self._options, self._policy = sqs, url, options, policy
        self._lease, self._decoder, self._known = lease, decoder, known
        self._origin = url.rpartition("/")[2]
        self._fifo = url.endswith(".fifo")
        self._handed: list[str] = []  # ids in batches that were yielded since the last commit
        self._ids: set[str] = set()  # of all messages that are held
        self._received = self._repeated = self._told = 0

    def batches(self, batch_rows: int) -> Iterator[Batch]:
        """Yield what comes until the queue is empty for `idle_seconds`, or `run_seconds` are over."""
        batcher: MicroBatcher[dict[str, Any]] = MicroBatcher(self._options, batch_rows=batch_rows)
        with ThreadPoolExecutor(self._options.receivers, thread_name_prefix="sqs-receive") as pool:
            while not batcher.over():
                hold = self._fifo and batcher.pending()
                found = self._receive(pool, batcher.room, 0 if hold else max(1, batcher.wait(LONGEST_POLL)))
                new = self._taken(found)
                batcher.extend(new, sum(len(m["Body"]) + _MESSAGE_BYTES for m in new))
                # A FIFO queue gives nothing more of a group before what it gave is deleted.
                blocked = hold and not found
                if batcher.due() or blocked:
                    yield self._batch(*batcher.take(end=blocked))
            if batcher.pending() or self._repeated > self._told:
                yield self._batch(*batcher.take(end=True))

    def acknowledge(self) -> None:
        """Delete what was handed on, all of which is committed now."""
        self._known.committed()
        handed, self._handed = self._handed, []
        self._ids.difference_update(handed)
        self._known.deleted(self._lease.delete(handed))

    def _receive(self, pool: ThreadPoolExecutor, room: int, wait: float) -> list[dict[str, Any]]:
        seconds = min(LONGEST_POLL, round(wait))
        first = self._request(min(_AT_ONCE, room), seconds)
        # Only where one request brought as much as it may, others are sent beside each other.
        more = min(self._options.receivers, (room - len(first)) // _AT_ONCE) if len(first) == _AT_ONCE else 0
        for found in pool.map(lambda _: self._request(_AT_ONCE, 0), range(more)):
            first += found
        return first

    def _request(self, most: int, seconds: int) -> list[dict[str, Any]]:
        def ask() -> list[dict[str, Any]]:
            with translated(f"queue {self._origin}"):
                answer = self._sqs.receive_message(
                    QueueUrl=self._url, MaxNumberOfMessages=most, WaitTimeSeconds=seconds,
                    VisibilityTimeout=self._options.visibility_seconds,
                    MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"],
                )  # fmt: skip
            return list(answer.get("Messages", ()))

        # Safe to repeat: what an answer that got lost has taken is delivered again.
        return self._policy.call(ask)

    def _taken(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return those that are new; what is in the lake already is deleted, now that it has come again."""
        self._received += len(found)
        self._lease.hold({m["MessageId"]: m["ReceiptHandle"] for m in found})
        new, committed = [], []
        for message in found:
            name = message["MessageId"]
            if name in self._ids:
                self._repeated += 1  # its timeout ended before it could be extended; it has a new receipt now
            elif self._known.seen(name):
                self._repeated += 1
                committed.append(name)
            else:
                self._ids.add(name)
                new.append(message)
        if committed:
            self._known.deleted(self._lease.delete(committed))
        return new

    def _batch(self, messages: list[dict[str, Any]], commit: bool) -> Batch:  # noqa: FBT001 - as `take` gives it
        bodies = [m["Body"].encode() for m in messages]
        others = sqs_columns.columns(messages, self._options.metadata, self._origin)
        data, unreadable = self._decoder.decode(bodies).beside(others, bodies, others["_origin"], None)
        ids = [m["MessageId"] for m in messages]
        self._handed += ids
        self._known.handed(ids)
        repeated, self._told = self._repeated - self._told, self._repeated
        position = {"known": self._known.dump(), "payload": self._decoder.dump()}
        waiting = len(self._ids) - len(self._handed)
        return Batch(data, self._received - waiting, position, unreadable, repeated, commit)
