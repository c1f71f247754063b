"""The examples of docs/sources/rabbitmq.md are read, and run; what the page promises of memory is counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from etl_resources.source import Stream
from etl_resources.sources.rabbitmq import RabbitmqOptions, RabbitmqSource
from etl_resources.sources.rabbitmq_consumer import Delivery
from etl_resources.sources.rabbitmq_known import Known, digest_of
from tests.servers.rabbitmq import shared_rabbitmq

PAGE = Path(__file__).parents[2] / "docs" / "sources" / "rabbitmq.md"


def test_the_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "not asked for")
    text = PAGE.read_text(encoding="utf-8")
    connection, pipeline = (yaml.safe_load(b) for b in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL))
    written = connection["attributes"]["connections"]["broker"]
    assert written.pop("type") == "rabbitmq"
    assert RabbitmqSource(**written).tls
    server = shared_rabbitmq()
    source = RabbitmqSource(**{**written, **server.settings()})
    for name, stream in pipeline["streams"].items():
        options = RabbitmqOptions(**stream["source"])
        server.declare(options.queue)
        server.publish(options.queue, [b'{"price": 1.5}'])
        (batch,) = source.read(Stream(name, options), None)
        assert batch.data.num_rows == 1
    for option in RabbitmqOptions.model_fields.keys() - {"type", "connection"}:
        assert f"`{option}`" in text, option


def delivery(name: str | None, body: bytes = b"{}") -> Delivery:
    import pika

    return Delivery(1, "", "q", False, pika.BasicProperties(message_id=name), body)


def test_what_was_acknowledged_over_an_earlier_connection_stays_known_until_it_comes_again() -> None:
    """Two micro-batches are committed, neither acknowledged; the first comes again, and is acknowledged then."""
    first, second = (digest_of(delivery(n), "message_id") for n in "ab")
    known = Known()
    for digest in (first, second):
        assert not known.seen(digest)
        known.commit()
    known.disconnected()
    assert known.seen(first)
    known.commit()
    known.confirmed()
    assert known.seen(second)
    assert not known.seen(first)


def test_positions_forget_after_ten_minutes_but_the_run_does_not() -> None:
    now = 1000.0
    left = Known(clock=lambda: now)
    old = digest_of(delivery("old"), "message_id")
    left.seen(old)
    position = left.commit()
    for later, kept in ((300, 2), (601, 1)):
        run = Known(position, clock=lambda later=later: now + later)
        run.seen(digest_of(delivery("new"), "message_id"))
        assert len(run.commit()) == kept
        assert run.seen(old)


def test_a_message_without_an_id_is_never_taken_for_another() -> None:
    assert digest_of(delivery(None), "message_id") is None
    assert digest_of(delivery(None), "body") == digest_of(delivery(None), "body")
    assert digest_of(delivery(""), "body") != digest_of(delivery(None), "body")
    assert digest_of(delivery("a", b"1"), "body") != digest_of(delivery("a", b"2"), "message_id")
