"""The examples of docs/sources/kafka.md and docs/sources/sqs.md are read and run, and their tables are complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl_resources.source import Stream, StreamOptions
from etl_resources.sources.kafka import KafkaSource, KafkaStreamOptions
from etl_resources.sources.sqs import SqsSource, SqsStreamOptions
from tests.servers.kafka import shared_kafka
from tests.servers.sqs import shared_sqs

DOCS = Path(__file__).parents[2] / "docs" / "sources"


def page(name: str) -> tuple[str, list[Any]]:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    return text, [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)]


@pytest.mark.parametrize(("name", "options"), [("kafka", KafkaStreamOptions), ("sqs", SqsStreamOptions)])
def test_every_option_and_its_default_stand_in_the_table(name: str, options: type[StreamOptions]) -> None:
    text, _ = page(name)
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, flags=re.MULTILINE))
    fields = {n: f for n, f in options.model_fields.items() if n not in {"type", "connection"}}
    assert set(rows) == set(fields)
    for option, field in fields.items():
        if isinstance(field.default, int | float | str):
            assert rows[option] == f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def test_the_examples_of_kafka_run() -> None:
    kafka = shared_kafka()
    connection, pipeline = page("kafka")[1]
    written = connection["attributes"]["connections"]["broker"]
    assert written.pop("type") == "kafka"
    KafkaSource(**written)
    for topic, body in (("shop.orders", b'{"order_id": "7", "amount": 5}'), ("shop.views.de", b'{"path": "/"}')):
        kafka.topic(topic)
        kafka.produce(topic, [(body, "7"), (None, "7")])
    here = KafkaSource(servers=kafka.servers, security="plaintext")
    for name, stream in pipeline["streams"].items():
        [batch] = here.read(Stream(name, KafkaStreamOptions(**stream["source"])), None)
        assert batch.data.num_rows == 2
        assert set(stream["key"]) <= set(batch.data.schema.names)


def test_the_examples_of_sqs_run() -> None:
    sqs = shared_sqs()
    connection, pipeline = page("sqs")[1]
    written = connection["attributes"]["connections"]["queues"]
    assert written.pop("type") == "sqs"
    SqsSource(**written)
    for name, stream in pipeline["streams"].items():
        queue = sqs.queue(stream["source"]["queue"])
        sqs.send(queue, ['{"order_id": 1, "amount": 5}'], **({"group": "g"} if queue.endswith("fifo") else {}))
        options = SqsStreamOptions(**{**stream["source"], "idle_seconds": 0.2})
        [batch] = SqsSource(**sqs.settings).read(Stream(name, options), None)
        assert set(stream["key"]) <= set(batch.data.schema.names)
