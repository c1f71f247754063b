"""Server-Sent Events as a source: resumed by Last-Event-ID where the server gives ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from etl_resources.live_reading import LiveOptions
from etl_resources.live_source import LiveSource
from etl_resources.source import Capabilities, Stream, StreamOptions

if TYPE_CHECKING:
    from etl_resources.live_feed import Opener


class SseOptions(LiveOptions):
    """What is written under `source: {type: sse, ...}`."""

    type: Literal["sse"] = "sse"


class SseSource(LiveSource):
    """Reads an event stream until `run_seconds` or `idle_seconds` are over, or the server says that it has ended.

    Events with an id are neither lost nor doubled, as long as the server still has them; those of a stream without ids
    are missed while nobody is connected, and `_missed_since` says since when.
    """

    options_type: ClassVar[type[StreamOptions]] = SseOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        captures=frozenset(), resumes=True, gaps={"missing_column": "the options of an event stream name no column"}
    )

    def _opener(self, stream: Stream) -> Opener:
        from etl_resources.sources.sse_session import open_session

        options: SseOptions = self._options(stream)
        return lambda token: open_session(self, options.path, token, options.max_message_bytes, self._where(stream))


SOURCE = SseSource
