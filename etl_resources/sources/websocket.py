"""WebSockets as a source: subscribed to, listened to, and resumed where the protocol over them can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar, Literal

from etl_resources.live import LiveConnection
from etl_resources.live_reading import LiveReading, decoder_of, live_options, own_columns
from etl_resources.source import Batch, Capabilities, Position, Source, Stream, StreamOptions
from etl_resources.sources.websocket_protocol import WebsocketOptions as _Options

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.live_feed import Opener


class WebsocketOptions(_Options):
    """What is written under `source: {type: websocket, ...}`."""

    type: Literal["websocket"] = "websocket"


class WebsocketSource(LiveConnection, Source):
    """Listens until `run_seconds` or `idle_seconds` are over.

    With `resume` nothing is lost or doubled that the server can send again; without it messages are missed while nobody
    is connected, and those received and not committed when a process dies: `_missed_since` says since when.
    """

    options_type: ClassVar[type[StreamOptions]] = WebsocketOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        captures=frozenset(), resumes=True, gaps={"missing_column": "the options of a WebSocket name no column"}
    )

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Connect, and return the declared columns and the source's own: what messages hold, only they can tell.

        Raises:
            NotFoundError, CredentialsRejectedError, UnavailableError, ConfigurationError: as `read`.
        """
        import pyarrow as pa

        self._look(stream)
        options = live_options(stream, WebsocketOptions)
        own = own_columns([]) if options.properties else {}
        return pa.schema([*decoder_of(options, None).schema, *((name, array.type) for name, array in own.items())])

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield micro-batches of what comes.

        Raises:
            NotFoundError, CredentialsRejectedError, ConfigurationError: the server's answer, or a message too long.
            UnavailableError: the connection was lost and could not be made anew; what was received is handed on before.
        """
        options = live_options(stream, WebsocketOptions)
        reading = LiveReading(options, since, batch_rows, origin=self._place(stream))
        with closing(reading.batches(self._opener(stream), self.resilience, self._where(stream))) as batches:
            yield from batches

    def ping(self) -> bool:
        """Nothing can be tried: `url` alone need not be a stream."""
        return False

    def _look(self, stream: Stream) -> None:
        def look() -> None:
            with self._opener(stream)(None):
                pass

        self.resilience.call(look)

    def _opener(self, stream: Stream) -> Opener:
        from etl_resources.sources.websocket_session import open_session

        options = live_options(stream, WebsocketOptions)
        return lambda token: open_session(self, options, token, self._where(stream))

    def _where(self, stream: Stream) -> str:
        return f"stream {stream.name}, {self._place(stream)}"

    def _place(self, stream: Stream) -> str:
        return self.address(live_options(stream, WebsocketOptions).path).partition("?")[0]


SOURCE = WebsocketSource
