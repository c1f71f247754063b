"""A WebSocket whose server can resume, in the conformance suite."""

from __future__ import annotations

from typing import Any, ClassVar

from etl_resources.source import Stream
from etl_resources.sources.websocket import WebsocketOptions, WebsocketSource
from tests.conformance.implementations.sse import StreamHarness, idle_seconds


class WebsocketHarness(StreamHarness):
    name: ClassVar[str] = "websocket"
    source_type = WebsocketSource
    kind = "ws"
    memory_rows = (3_000, 12_000)

    def source(self, port: int | None = None, **settings: Any) -> WebsocketSource:
        return WebsocketSource(**self.settings(port, **settings))

    def stream(self, name: str, **options: Any) -> Stream:
        given: dict[str, Any] = {
            "path": name, "idle_seconds": idle_seconds(name), "max_messages": 500, "properties": False,
            "subscribe": [{"op": "subscribe"}],
            "resume": {"token": "$.id", "subscribe": [{"op": "subscribe", "after": "{token}"}]},
        }  # fmt: skip
        return Stream(name, WebsocketOptions(**(given | options)))


SOURCES = [WebsocketHarness]
