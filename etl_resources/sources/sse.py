"""Server-Sent Events as a source: resumed by Last-Event-ID where the server gives ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar, Literal

from etl_resources.live import LiveConnection
from etl_resources.live_reading import LiveOptions, LiveReading, decoder_of, live_options, own_columns
from etl_resources.source import Batch, Capabilities, Position, Source, Stream, StreamOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.live_feed import Opener


class SseOptions(LiveOptions):
    """What is written under `source: {type: sse, ...}`."""

    type: Literal["sse"] = "sse"


class SseSource(LiveConnection, Source):
    """Reads an event stream until `run_seconds` or `idle_seconds` are over, or the server says that it has ended.

    Events with an id are neither lost nor doubled, as long as the server still has them; those of a stream without ids
    are missed while nobody is connected, and `_missed_since` says since when.
    """

    options_type: ClassVar[type[StreamOptions]] = SseOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        captures=frozenset(), resumes=True, gaps={"missing_column": "the options of an event stream name no column"}
    )

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Connect, and return the declared columns and the source's own: what events hold, only they can tell.

        Raises:
            NotFoundError, CredentialsRejectedError, UnavailableError, ConfigurationError: as `read`.
        """
        import pyarrow as pa

        self._look(stream)
        options = live_options(stream, SseOptions)
        own = own_columns([]) if options.properties else {}
        return pa.schema([*decoder_of(options, None).schema, *((name, array.type) for name, array in own.items())])

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield micro-batches of what comes.

        Raises:
            NotFoundError, CredentialsRejectedError, ConfigurationError: the server's answer.
            UnavailableError: the connection was lost and could not be made anew; what was received is handed on before.
        """
        options = live_options(stream, SseOptions)
        reading = LiveReading(options, since, batch_rows, origin=options.path or self.url)
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
        from etl_resources.sources.sse_session import open_session

        options = live_options(stream, SseOptions)
        return lambda token: open_session(self, options.path, token, options.max_message_bytes, self._where(stream))

    def _where(self, stream: Stream) -> str:
        options = live_options(stream, SseOptions)
        return f"stream {stream.name}, {self.address(options.path).partition('?')[0]}"


SOURCE = SseSource
