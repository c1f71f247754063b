"""A stream of events of a shop, orders and page views, sent to Kafka as a shop would send them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from etl_resources.exceptions import EtlError, UnavailableError
from etl_resources.extras import client

ORDERS, PAGE_VIEWS = "shop.orders", "shop.page_views"
"""Names of the topics."""
_PATHS = ("/", "/search", "/product", "/cart", "/checkout")
_STATES = ("placed", "paid", "shipped")
_BROKEN = b'{"order_id": "O'
_ONE_IN = 200
_DELIVERY_SECONDS = 30

Event = tuple[str, str, bytes | None]
"""Topic, key and body; no body deletes the order of the key."""


@dataclass(frozen=True)
class Sent:
    """How many events went out: `orders` counts orders and not their events."""

    orders: int
    order_events: int
    page_views: int
    broken: int
    erased: int


def events(orders: int, *, seed: int, began: datetime) -> Iterator[Event]:
    """Yield the events of so many orders in the order of their times; the same arguments give the same events.

    Each order is placed, mostly paid and shipped, after a few page views; one in 200 is followed by an event that broke
    on the way, and one in 200 is erased.
    """
    chance = random.Random(seed)  # noqa: S311 - a demo, not a secret
    at = began
    for number in range(orders):
        order, customer = f"O{seed}-{number:07}", f"C{chance.randrange(max(10, orders // 5)):06}"
        for view in range(chance.randint(1, 4)):
            at += timedelta(seconds=chance.randint(1, 20))
            seen = {
                "view_id": f"{order}-{view}", "customer_id": customer, "path": chance.choice(_PATHS),
                "duration_ms": chance.randint(200, 60_000), "at": at.isoformat(),
            }  # fmt: skip
            yield PAGE_VIEWS, customer, json.dumps(seen).encode()
        amount = f"{chance.randint(500, 50_000) / 100:.2f}"
        for state in _STATES[: chance.choice((1, 2, 3, 3, 3))]:
            at += timedelta(seconds=chance.randint(1, 60))
            known = {
                "order_id": order, "customer_id": customer, "status": state, "amount": amount, "at": at.isoformat(),
            }  # fmt: skip
            yield ORDERS, order, json.dumps(known).encode()
        if number % _ONE_IN == _ONE_IN - 1:
            yield ORDERS, order, _BROKEN
            yield ORDERS, order, None


def send(servers: str, *, orders: int, seed: int, began: datetime | None = None) -> Sent:
    """Send the events to the brokers at `servers` (`host:port`, in clear text), and wait until they have them.

    Raises:
        ConfigurationError: the extra `kafka` is not installed.
        UnavailableError: the brokers did not take all events in 30 seconds.
        EtlError: they refused one.
    """
    from etl_resources.kafka_errors import translate

    library = client("confluent_kafka", extra="kafka")
    refused: list[Any] = []
    settings = {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 20, "log_level": 2}
    producer = library.Producer({**settings, "message.timeout.ms": _DELIVERY_SECONDS * 1000})
    counts = {"order_events": 0, "page_views": 0, "broken": 0, "erased": 0}
    for topic, key, body in events(orders, seed=seed, began=began or datetime(2024, 2, 29, tzinfo=UTC)):
        what = "erased" if body is None else "broken" if body == _BROKEN else "order_events"
        counts["page_views" if topic == PAGE_VIEWS else what] += 1
        while True:
            try:
                producer.produce(
                    topic, body, key, on_delivery=lambda error, _: refused.append(error) if error else None
                )
                break
            except BufferError:
                producer.poll(0.5)
        producer.poll(0)
    left = producer.flush(_DELIVERY_SECONDS)
    where = f"Kafka at {servers}"
    if refused:
        error: EtlError = translate(refused[0], where)
        raise error
    if left:
        raise UnavailableError(f"{left} events were not taken", where=where, fix="check KAFKA_SERVERS")
    return Sent(orders, **counts)
