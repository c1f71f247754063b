"""Messages of some partitions, each offset once and in order, to the end that was there or as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from etl_resources.exceptions import ConfigurationError, CredentialsRejectedError, NotFoundError
from etl_resources.kafka_errors import translate
from etl_resources.sources.kafka_partitions import Loss, Offsets, Partition, watermarks

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from etl_resources.kafka import Client

_AT_ONCE = 10_000
_EOF = "_PARTITION_EOF"
_FINAL = (CredentialsRejectedError, NotFoundError, ConfigurationError)
_OUT_OF_RANGE = ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE")


class Reader:
    """Reads what it was assigned. `ends` are the offsets to stop at; None: there is no end.

    `repeated` counts messages that the brokers sent although they had been read.
    """

    def __init__(
        self,
        client: Client,
        offsets: Offsets,
        ends: dict[Partition, int] | None,
        *,
        silence: float,
        where: str,
        on_loss: Callable[[Loss], None],
    ) -> None:
        self._client, self._offsets, self._ends = client, offsets, ends
        self._silence, self._where, self._on_loss = silence, where, on_loss
        self._open: set[Partition] = set()
        self._began: dict[Partition, int] = {}
        self._skipped_before = offsets.skipped
        self.repeated = 0
        self._heard = time.monotonic()

    def assign(self, partitions: list[Partition]) -> None:
        """Begin to read partitions, from their next offsets."""
        from confluent_kafka import TopicPartition

        ends = self._ends
        self._began |= {p: self._offsets.next[p] for p in partitions}
        wanted = [p for p in partitions if ends is None or self._offsets.next[p] < ends[p]]
        self._open.update(wanted)
        self._client.consumer.incremental_assign([TopicPartition(*p, self._offsets.next[p]) for p in wanted])
        self.resume()

    def resume(self) -> None:
        """Let the time of silence begin anew: nothing was asked for in the meantime."""
        self._heard = time.monotonic()

    @property
    def read(self) -> int:
        """The running count of messages, told from the offsets alone."""
        passed = sum(self._offsets.next[p] - began for p, began in self._began.items())
        return passed - (self._offsets.skipped - self._skipped_before) + self.repeated

    @property
    def done(self) -> bool:
        """Whether every partition was read to its end."""
        return not self._open

    def poll(self, most: int, wait: float) -> list[Message]:
        """Return the next messages, `most` of them at most, after `wait` seconds at most.

        Raises:
            UnavailableError: there was not a sign of the brokers for the time of silence.
            CredentialsRejectedError, NotFoundError, RowsNotConservedError: as their names say.
        """
        found = self._client.consumer.consume(1, wait)
        if found and most > 1:
            found += self._client.consumer.consume(min(most, _AT_ONCE) - 1, 0)
        self._client.check()
        accepted = self._accepted(found)
        if accepted:
            self.resume()
            self._client.last = None
        elif self._ends is not None and time.monotonic() - self._heard > self._silence:
            raise self._client.away(f"no message of {self._waiting()}", after=self._silence)
        return accepted

    def _waiting(self) -> str:
        return ", ".join(f"{topic}/{number}" for topic, number in sorted(self._open)[:5])

    def _accepted(self, found: list[Message]) -> list[Message]:
        following, ends = self._offsets.next, self._ends
        accepted = []
        for message in found:
            partition = cast("Partition", (message.topic(), message.partition()))
            if (error := message.error()) is not None:
                self._told(error, partition)
                continue
            offset, expected = cast("int", message.offset()), following[partition]
            if partition not in self._open or (ends is not None and offset >= ends[partition]):
                self._close(partition)
                continue
            if offset < expected:
                self.repeated += 1
                continue
            # Compaction and the markers of transactions leave offsets without a message.
            self._offsets.skipped += offset - expected
            following[partition] = offset + 1
            accepted.append(message)
            if ends is not None and offset + 1 >= ends[partition]:
                self._close(partition)
        return accepted

    def _told(self, error: KafkaError, partition: Partition) -> None:
        """Deal with what stands among the messages instead of one."""
        if error.name() == _EOF:
            self.resume()
            if self._ends is not None:
                self._close(partition)
        elif error.name() in _OUT_OF_RANGE and partition in self._open:
            self._lost(partition)
        elif isinstance(told := translate(error, self._where), _FINAL):
            raise told
        else:  # the library goes on trying; what lasts is told when the time of silence is over
            self._client.note(error)

    def _lost(self, partition: Partition) -> None:
        from confluent_kafka import TopicPartition

        low, high = watermarks(self._client, partition)
        before = self._offsets.next[partition]
        self._on_loss(Loss(partition, self._offsets.next[partition], low, high))
        self._began[partition] += self._offsets.next[partition] - before
        at = TopicPartition(*partition, self._offsets.next[partition])
        self._client.consumer.incremental_unassign([TopicPartition(*partition)])
        self._client.consumer.incremental_assign([at])

    def _close(self, partition: Partition) -> None:
        from confluent_kafka import TopicPartition

        if partition in self._open:
            self._open.discard(partition)
            self._client.consumer.pause([TopicPartition(*partition)])
