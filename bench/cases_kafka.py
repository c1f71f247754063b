"""Kafka messages per second."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.cases import _fresh, _row, _task
from bench.measure import Summary, interleaved, run
from bench.report import Row
from tests.servers.kafka import running_kafka

_PARTITIONS = 32
"""The mock cluster keeps 5 MB of each; so many hold four times the messages, compressed."""


def _orders(messages: int) -> Iterator[tuple[bytes, str, int]]:
    text = (
        b'{"order_id": %d, "customer": "C%06d", "amount": %d.25, "placed_at": "2024-02-29T12:00:00Z", "status": "paid"}'
    )
    return ((text % (n, n % 99_991, n % 1000), str(n), n % _PARTITIONS) for n in range(messages))


def kafka_to_bronze(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """Kafka -> bronze, 500,000 JSON orders of 110 bytes with key and metadata."""
    messages = int(500_000 * scale)
    with running_kafka() as kafka:
        for topic, count in (("orders", messages), ("large", 4 * messages)):
            kafka.topic(topic, _PARTITIONS)
            kafka.produce(topic, _orders(count), **{"compression.type": "lz4"})
        ours = "bronze, with account and offsets"
        tasks = {
            "the client, drained (the limit)": (
                sys.executable, _task("kafka_drain"), [kafka.servers, "orders", str(messages)]
            ),
            ours: (sys.executable, _task("kafka_bronze"), [kafka.servers, "orders", "{fresh}"]),
        }  # fmt: skip
        found = interleaved(_fresh(tasks, folder), rounds)
        at_four = run(sys.executable, _task("kafka_bronze"), kafka.servers, "large", str(folder / "large"))
    drained, mine = found.values()
    growth = at_four.peak / 2**20 / mine.peak_mb
    return [
        _row("kafka", drained, messages),
        _row("kafka", mine, messages, figure=f"{messages / mine.seconds:,.0f} messages/s"),
        _row("kafka", Summary(f"{ours}, 4 x the messages", (at_four,)), 4 * messages,
             figure=f"{growth:.2f} x the memory", goal="<= 1.2 x", met=growth <= 1.2),
    ]  # fmt: skip
