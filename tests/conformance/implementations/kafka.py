"""Topics in the conformance suite: JSON messages in a topic of several partitions, at a private broker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pyarrow as pa

from etl_resources.resilience import Policy
from etl_resources.secret import Secret
from etl_resources.source import Stream
from etl_resources.sources.kafka import KafkaSource, KafkaStreamOptions
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.conformance.implementations.file import _json_text, _json_value
from tests.servers.kafka import kafka_wire, refusing_broker, shared_kafka

PARTITIONS = 4
_PASSWORD = "CONFORMANCE_KAFKA_PASSWORD"
_AS_THEY_ARE = {"int64", "float64", "boolean", "string", "unicode", "delimiters", "struct", "list", "list_of_structs"}


class KafkaHarness(SourceHarness):
    name: ClassVar[str] = "kafka"
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})
    source_type = KafkaSource
    types_in_one = True
    memory_rows = (60_000, 240_000)
    away_rows = 15_000

    def start(self) -> None:
        os.environ[_PASSWORD] = "not the password"
        self.kafka = shared_kafka()

    def _open(self, name: str, servers: str | None = None, **options: Any) -> Opened:
        policy = Policy(timeout=10, silence=2)
        source = KafkaSource(servers=servers or self.kafka.servers, security="plaintext", resilience=policy)
        settings: dict[str, Any] = {"type": "kafka", "topic": f"conformance.{name}", "metadata": (), **options}
        return source, Stream(name, KafkaStreamOptions(**settings))

    def fill(self, name: str, data: pa.Table) -> Opened:
        self.kafka.topic(f"conformance.{name}", PARTITIONS)
        self.extend(name, data)
        return self._open(name)

    def extend(self, name: str, data: pa.Table) -> None:
        rows = (row for batch in data.to_batches(max_chunksize=10_000) for row in batch.to_pylist())
        messages = ((_json_text(row).encode(), None, n % PARTITIONS) for n, row in enumerate(rows))
        self.kafka.produce(f"conformance.{name}", messages, **{"compression.type": "lz4"})

    def received(self, case: TypeCase) -> pa.Array:
        """What JSON has no type for arrives as text."""
        if case.name in _AS_THEY_ARE or case.name.startswith("decimal_38"):
            return case.array()
        if case.name == "decimal_12_2":
            return pa.array([None if v is None else float(v) for v in case.values])
        return pa.array([_json_value(v) for v in case.values], pa.string())

    def missing(self) -> Opened:
        return self._open("no_such_topic")

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        """A tombstone whose key has to fill a column that no message has."""
        self.fill(name, data)
        self.kafka.produce(f"conformance.{name}", [(None, "7")])
        return self._open(name, key_column="no_such_column")

    def wrong_credentials(self) -> Opened:
        _, stream = self._open("credentials")
        return KafkaSource(
            servers=refusing_broker(), security="sasl_plaintext", mechanism="PLAIN", user="someone",
            password=Secret(env=_PASSWORD),
        ), stream  # fmt: skip

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        self.fill(name, data)
        with kafka_wire(self.kafka, stall_after=100_000) as wire:
            yield self._open(name, servers=f"127.0.0.1:{wire.port}")


SOURCES = [KafkaHarness]
