"""WebSockets as a source: subscribed to, listened to, and resumed where the protocol over them can."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from etl_resources.live_source import LiveSource
from etl_resources.source import Capabilities, Stream, StreamOptions
from etl_resources.sources.websocket_protocol import WebsocketOptions as _Options

if TYPE_CHECKING:
    from etl_resources.live_feed import Opener


class WebsocketOptions(_Options):
    """What is written under `source: {type: websocket, ...}`."""

    type: Literal["websocket"] = "websocket"


class WebsocketSource(LiveSource):
    """Listens until `run_seconds` or `idle_seconds` are over.

    With `resume` nothing is lost or doubled that the server can send again; without it messages are missed while nobody
    is connected, and those received and not committed when a process dies: `_missed_since` says since when.
    """

    options_type: ClassVar[type[StreamOptions]] = WebsocketOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        captures=frozenset(), resumes=True, gaps={"missing_column": "the options of a WebSocket name no column"}
    )

    def _opener(self, stream: Stream) -> Opener:
        from etl_resources.sources.websocket_session import open_session

        options: WebsocketOptions = self._options(stream)
        return lambda token: open_session(self, options, token, self._where(stream))


SOURCE = WebsocketSource
