"""A source that is pushed to: what `sse` and `websocket` have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from etl_resources.live import LiveConnection
from etl_resources.live_reading import LiveReading, decoder_of, live_options, own_columns
from etl_resources.source import Batch, Position, Source, Stream

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.live_feed import Opener
    from etl_resources.live_reading import LiveOptions


class LiveSource(LiveConnection, Source):
    """Listens until `run_seconds` or `idle_seconds` are over, or the server says that the stream has ended."""

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Connect, and return the declared columns and the source's own: what messages hold, only they can tell.

        Raises:
            NotFoundError, CredentialsRejectedError, UnavailableError, ConfigurationError: as `read`.
        """
        import pyarrow as pa

        self._look(stream)
        options: LiveOptions = self._options(stream)
        own = own_columns([]) if options.properties else {}
        return pa.schema([*decoder_of(options, None).schema, *((name, array.type) for name, array in own.items())])

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield micro-batches of what comes.

        Raises:
            NotFoundError, CredentialsRejectedError, ConfigurationError: the server's answer, or a message too long.
            UnavailableError: the connection was lost and could not be made anew; what was received is handed on before.
        """
        reading = LiveReading(self._options(stream), since, batch_rows, origin=self._place(stream))
        with closing(reading.batches(self._opener(stream), self.resilience, self._where(stream))) as batches:
            yield from batches

    def rereads(self, stream: Stream) -> bool:  # noqa: ARG002 - true of no such stream
        """What was pushed is not pushed again, or only the last of it."""
        return False

    def ping(self) -> bool:
        """Nothing can be tried: `url` alone need not be a stream."""
        return False

    @abstractmethod
    def _opener(self, stream: Stream) -> Opener:
        """Return what opens a session, behind a token where there is one."""

    def _options(self, stream: Stream) -> Any:
        """Return the options, of the source's own type."""
        return live_options(stream, self.options_type)

    def _look(self, stream: Stream) -> None:
        def look() -> None:
            with self._opener(stream)(None):
                pass

        self.resilience.call(look)

    def _where(self, stream: Stream) -> str:
        return f"stream {stream.name}, {self._place(stream)}"

    def _place(self, stream: Stream) -> str:
        return self.address(self._options(stream).path).partition("?")[0]
