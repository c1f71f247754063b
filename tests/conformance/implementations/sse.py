"""Server-Sent Events and WebSockets in the conformance suite, over one server of both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import pyarrow as pa

from etl_resources.resilience import Policy
from etl_resources.secret import Secret
from etl_resources.source import Source, Stream
from etl_resources.sources.sse import SseOptions, SseSource
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.conformance.implementations.file import NdjsonFiles
from tests.servers.proxy import wire_to
from tests.servers.streams import StreamServer, running_streams

_LONGER = {"batches", "abandoned", "resume"}


def idle_seconds(name: str) -> float:
    """Return how long nothing has to come until a read is over; more where a busy machine may hold things up."""
    return 3.0 if name.startswith(("memory", "goes_away")) else 2.0 if name in _LONGER else 0.6


COLUMNS = {"id": "int64", "name": "string", "amount": "float64", "note": "string"}
_TOKEN = "CONFORMANCE_STREAMS_TOKEN"


def json_records(directory: Any, data: pa.Table) -> list[str]:
    """Return the rows as JSON texts, values as files of NDJSON have them."""
    encoded = NdjsonFiles(directory).encode(data).decode()
    return [line for line in encoded.split("\n") if line]


class StreamHarness(SourceHarness):
    """A channel per stream; the server sends the rows again to whoever has not got them."""

    gaps: ClassVar[dict[str, str]] = {"missing_column": "the options of a stream that is pushed name no column"}
    memory_rows = (10_000, 40_000)
    soak: ClassVar[frozenset[str]] = frozenset({"*"})
    kind: ClassVar[str]

    def start(self) -> None:
        os.environ[_TOKEN] = "not the token"
        self.stack = ExitStack()
        self.server: StreamServer = self.stack.enter_context(running_streams())

    def stop(self) -> None:
        self.stack.close()

    def received(self, case: TypeCase) -> pa.Array:
        return NdjsonFiles(self.directory).received(case)

    def source(self, port: int | None = None, **settings: Any) -> Source:
        raise NotImplementedError

    def stream(self, name: str, **options: Any) -> Stream:
        raise NotImplementedError

    def settings(self, port: int | None, **other: Any) -> dict[str, Any]:
        fast = Policy(attempts=2, timeout=5, silence=10, first_wait=0.01)
        url = self.server.url(self.kind, "", port).rstrip("/")
        return {"url": url, "allow_plaintext": True, "resilience": fast, **other}

    def fill(self, name: str, data: pa.Table) -> Opened:
        records = json_records(self.directory, data)
        self.server.channel(name, messages=records, subscribes=self.kind == "ws")
        columns = {n: t for n, t in COLUMNS.items() if n in data.column_names}
        return self.source(), self.stream(name, columns=columns)

    def extend(self, name: str, data: pa.Table) -> None:
        self.server.channels[name].messages += json_records(self.directory, data)

    def missing(self) -> Opened:
        return self.source(), self.stream("no_such_channel")

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        return self.fill(name, data)

    def wrong_credentials(self) -> Opened:
        self.server.channel("guarded", bearer="the token")
        return self.source(auth={"bearer": Secret(env=_TOKEN)}), self.stream("guarded")

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        _, stream = self.fill(name, data.slice(0, 20_000))
        with wire_to(self.server.port, cut_after=50_000) as wire:
            yield self.source(wire.port), stream


class SseHarness(StreamHarness):
    name: ClassVar[str] = "sse"
    source_type = SseSource
    kind = "sse"

    def source(self, port: int | None = None, **settings: Any) -> SseSource:
        return SseSource(**self.settings(port, **settings))

    def stream(self, name: str, **options: Any) -> Stream:
        given = {"path": name, "idle_seconds": idle_seconds(name), "max_messages": 500, "properties": False, **options}
        return Stream(name, SseOptions(**given))


SOURCES = [SseHarness]
