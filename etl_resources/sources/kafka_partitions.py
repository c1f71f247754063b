"""Which partitions a stream reads, from which offset to which, and what of them is lost."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError, NotFoundError, RowsNotConservedError
from etl_resources.hints import nearest
from etl_resources.kafka_errors import translate

if TYPE_CHECKING:
    from confluent_kafka import Consumer

    from etl_resources.kafka import Client
    from etl_resources.source import Position

Partition = tuple[str, int]
_log = logging.getLogger(__name__)


def find_partitions(client: Client, topic: str, where: str) -> list[Partition]:
    """Return the partitions of the topic, or of the topics that match a pattern (`^...`), in order.

    Raises:
        NotFoundError: no such topic; names near ones.
        CredentialsRejectedError: the topic may not be read.
        ConfigurationError: the pattern is none.
    """
    # All of them and not this one only: to ask for a topic by name makes some brokers create it.
    topics = client.ask(lambda c, timeout: c.list_topics(timeout=timeout)).topics
    found = [name for name in topics if _matches(topic, name)]
    if not found:
        raise NotFoundError(
            f"no topic {topic}", where=where,
            fix=(nearest(topic, topics) or "check `topic`")
            + " A user without the right Describe does not see a topic.",
        )  # fmt: skip
    for name in found:
        if topics[name].error is not None:
            raise translate(topics[name].error, f"topic {name}, {where}")
    return sorted((name, number) for name in found for number in topics[name].partitions)


def _matches(topic: str, name: str) -> bool:
    if not topic.startswith("^"):
        return name == topic
    try:
        return not name.startswith("__") and re.search(topic, name) is not None
    except re.error as error:
        raise ConfigurationError(f"topic {topic!r} is no pattern: {error}", fix="write e.g. ^orders-.*") from None


def watermarks(client: Client, partition: Partition) -> tuple[int, int]:
    """Return the offsets of the first message and behind the last."""
    from confluent_kafka import TopicPartition

    def ask(consumer: Consumer, timeout: float) -> tuple[int, int]:
        low, high = consumer.get_watermark_offsets(TopicPartition(*partition), timeout=timeout)
        return int(low), int(high)

    return client.ask(ask)


@dataclass
class Offsets:
    """Where each partition has been read to, as the position keeps it, and what never came.

    `skipped` are offsets that no message had (compaction, markers of transactions), `lost` those whose messages were
    deleted before they were read; both are totals over all runs.
    """

    next: dict[Partition, int] = field(default_factory=dict)
    skipped: int = 0
    lost: int = 0

    @classmethod
    def load(cls, since: Position | None) -> Offsets:
        """Return what a position says."""
        topics: Mapping[str, Mapping[str, int]] = (since or {}).get("topics", {})
        following = {(t, int(number)): offset for t, parts in topics.items() for number, offset in parts.items()}
        return cls(following, (since or {}).get("skipped", 0), (since or {}).get("lost", 0))

    def dump(self) -> dict[str, Any]:
        """Return it for a position."""
        topics: dict[str, dict[str, int]] = {}
        for (topic, number), offset in sorted(self.next.items()):
            topics.setdefault(topic, {})[str(number)] = offset
        return {"topics": topics, "skipped": self.skipped, "lost": self.lost}

    def knows(self, topic: str) -> bool:
        """Tell whether the topic was read before."""
        return any(name == topic for name, _ in self.next)


@dataclass(frozen=True)
class Loss:
    """Messages that were deleted before they were read."""

    partition: Partition
    first: int
    low: int
    """The first offset that is there."""
    high: int

    def __str__(self) -> str:
        name = f"{self.partition[0]}/{self.partition[1]}"
        if self.first > self.high:
            return f"{name} ends at offset {self.high}, and was read to {self.first}: the topic was made anew"
        return f"{name} lost offsets {self.first} to {self.low - 1} ({self.low - self.first} messages)"

    @property
    def count(self) -> int:
        """How many messages are known to be lost."""
        return max(0, self.low - self.first)


def settle(losses: Iterable[Loss], offsets: Offsets, *, go_on: bool, where: str) -> None:
    """Move the offsets over what is lost, or fail.

    Raises:
        RowsNotConservedError: names what is lost, unless `go_on`.
    """
    losses = list(losses)
    if not losses:
        return
    text = "; ".join(map(str, losses))
    if not go_on:
        raise RowsNotConservedError(
            f"messages were deleted from the topic before they were read: {text}", where=where,
            fix="`on_lost: continue` reads on with what is left, and counts them as `lost` in the position;"
            " keep messages for longer (retention.ms), or run more often",
        )  # fmt: skip
    _log.warning("%s: messages were deleted before they were read: %s", where, text)
    for loss in losses:
        offsets.lost += loss.count
        offsets.next[loss.partition] = loss.low


def start_at(
    client: Client, partitions: Iterable[Partition], offsets: Offsets, *, first: str, fresh: bool
) -> tuple[dict[Partition, int], list[Loss]]:
    """Set the next offset of partitions that have none; return the ends there are now, and what is lost.

    `first` (earliest, latest) says where a stream begins that was never read (`fresh`). A partition that has come since
    is read from its beginning.
    """
    ends: dict[Partition, int] = {}
    losses: list[Loss] = []
    known = {topic for topic, _ in offsets.next}
    for partition in partitions:
        low, high = watermarks(client, partition)
        ends[partition] = high
        if partition not in offsets.next:
            grown = partition[0] in known
            offsets.next[partition] = high if fresh and first == "latest" else 0 if grown else low
        at = offsets.next[partition]
        if not low <= at <= high:
            losses.append(Loss(partition, at, low, high))
    return ends, losses
