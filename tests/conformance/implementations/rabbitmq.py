"""RabbitMQ in the conformance suite: classic queues and stream queues of the private server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pyarrow as pa

from etl_resources.resilience import Policy
from etl_resources.source import Batch, Position, Stream
from etl_resources.sources.rabbitmq import RabbitmqOptions, RabbitmqSource
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.conformance.implementations.file import NdjsonFiles
from tests.conformance.implementations.sse import COLUMNS, idle_seconds, json_records
from tests.servers.proxy import wire_to
from tests.servers.rabbitmq import RabbitServer, shared_rabbitmq

_WRONG = "CONFORMANCE_RABBITMQ_PASSWORD"


class AcknowledgingSource(RabbitmqSource):
    """Acknowledges every micro-batch when the next is asked for, as bronze does behind its commit."""

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        for batch in super().read(stream, since, batch_rows=batch_rows):
            yield batch
            if batch.commit and batch.position is not None:
                self.acknowledge(stream, batch.position)


class RabbitmqHarness(SourceHarness):
    name: ClassVar[str] = "rabbitmq"
    soak: ClassVar[frozenset[str]] = frozenset({"*"})
    source_type = AcknowledgingSource
    gaps: ClassVar[dict[str, str]] = {
        "resume": "what was acknowledged is no longer in the queue, so no earlier position can be read again",
    }
    memory_rows = (10_000, 40_000)
    queue_type: ClassVar[str] = "classic"

    def start(self) -> None:
        os.environ[_WRONG] = "not the password"
        self.server: RabbitServer = shared_rabbitmq()

    def _queue(self, name: str) -> str:
        return f"{self.name} {name}"

    def _open(self, name: str, **settings: Any) -> Opened:
        fast = Policy(attempts=2, timeout=5, silence=10, first_wait=0.01)
        source = AcknowledgingSource(**self.server.settings(resilience=fast, **settings))
        options = {"queue": self._queue(name), "max_messages": 500, "properties": False, "columns": COLUMNS}
        if name.startswith("types"):
            options["columns"] = {}
        if name == "abandoned":
            # What was taken and not acknowledged comes back into the queue in its own time.
            options["idle_seconds"] = idle_seconds(name)
        return source, Stream(name, RabbitmqOptions(**options))

    def fill(self, name: str, data: pa.Table) -> Opened:
        self.server.declare(self._queue(name), self.queue_type)
        self.extend(name, data)
        return self._open(name)

    def extend(self, name: str, data: pa.Table) -> None:
        self.server.publish(self._queue(name), (r.encode() for r in json_records(self.directory, data)))

    def received(self, case: TypeCase) -> pa.Array:
        return NdjsonFiles(self.directory).received(case)

    def missing(self) -> Opened:
        return self._open("no_such_queue")

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        return self.fill(name, data)

    def wrong_credentials(self) -> Opened:
        self.server.declare(self._queue("guarded"), self.queue_type)
        return self._open("guarded", password={"env": _WRONG})

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        self.fill(name, data.slice(0, 5000))
        with wire_to(self.server.port, cut_after=200_000) as wire:
            yield self._open(name, port=wire.port)


class RabbitmqStreamHarness(RabbitmqHarness):
    """A stream queue keeps its messages, and is resumed by offset."""

    name: ClassVar[str] = "rabbitmq-stream"
    soak: ClassVar[frozenset[str]] = frozenset({"*"})
    gaps: ClassVar[dict[str, str]] = {}
    queue_type = "stream"
    memory_rows = (3_000, 12_000)

    def _open(self, name: str, **settings: Any) -> Opened:
        source, stream = super()._open(name, **settings)
        options = stream.options.model_copy(update={"idle_seconds": idle_seconds(name)})
        return source, Stream(name, options)


SOURCES = [RabbitmqHarness, RabbitmqStreamHarness]
