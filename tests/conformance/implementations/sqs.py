"""Queues in the conformance suite: JSON messages in a standard queue of moto."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from etl_resources.resilience import Policy
from etl_resources.source import Stream
from etl_resources.sources.sqs import SqsSource, SqsStreamOptions
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.conformance.implementations.file import _json_text
from tests.conformance.implementations.kafka import KafkaHarness
from tests.servers.proxy import wire_to
from tests.servers.s3 import shared_s3
from tests.servers.sqs import MANY, Sqs, shared_sqs

_POLICY = Policy(timeout=5, silence=1, attempts=2, first_wait=0.1)


class SqsHarness(SourceHarness):
    name: ClassVar[str] = "sqs"
    soak: ClassVar[frozenset[str]] = frozenset({"*"})
    source_type = SqsSource
    gaps: ClassVar[dict[str, str]] = {
        "schema": "to look at a message is to take it, so only what is declared is known",
        "missing_column": "the options of a queue name no column",
    }

    def start(self) -> None:
        self.sqs: Sqs = shared_sqs()

    def _open(self, name: str, sqs: Sqs | None = None, **settings: Any) -> Opened:
        options = SqsStreamOptions(type="sqs", queue=f"conformance_{name}", metadata=(), idle_seconds=0.5)
        values = {**(sqs or self.sqs).settings, "resilience": _POLICY, **settings}
        return SqsSource(**values), Stream(name, options)

    def fill(self, name: str, data: pa.Table) -> Opened:
        self.sqs.queue(f"conformance_{name}")
        self.extend(name, data)
        return self._open(name)

    def extend(self, name: str, data: pa.Table) -> None:
        if data.num_rows > MANY:
            pytest.skip("moto takes minutes for so many messages; tests/resources/test_sqs_source.py has it with fewer")
        self.sqs.send(f"conformance_{name}", map(_json_text, data.to_pylist()))

    def received(self, case: TypeCase) -> pa.Array:
        """As any JSON."""
        return KafkaHarness.received(self, case)  # type: ignore[arg-type]

    def missing(self) -> Opened:
        return self._open("no_such_queue")

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        return self.fill(name, data)

    def wrong_credentials(self) -> Opened:
        return self._open("credentials", Sqs(shared_s3(open_requests=1)))

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        """Of a few thousand messages: to send as many as other sources read would take minutes."""
        self.fill(name, data.slice(0, 300))
        with wire_to(self.sqs.port, stall_after=60_000) as wire:
            yield self._open(name, endpoint=f"http://127.0.0.1:{wire.port}")


SOURCES = [SqsHarness]
