"""What the sources `rest` and `graphql` have in common: options, and how a listing of pages is read as a stream."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from etl_resources.exceptions import ConfigurationError
from etl_resources.http import HttpConnection
from etl_resources.read_ahead import read_ahead
from etl_resources.source import Batch, Capabilities, Estimate, Incremental, Position, Source, Stream, StreamOptions
from etl_resources.sources.rest_cursor import Boundary, CursorFormat
from etl_resources.sources.rest_pagination import Told
from etl_resources.sources.rest_request import more_of, total_of

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.http_client import HttpClient
    from etl_resources.sources.rest_listing import Checks, Listing, Step
    from etl_resources.sources.rest_records import Records


class ApiOptions(StreamOptions):
    """Options of every stream of an API that gives its records page by page."""

    columns: dict[str, str] = Field(
        default_factory=dict, description="Types of fields, where those found in the records will not do."
    )
    cursor_format: CursorFormat = Field(
        default="iso", description="How the API wants times: iso, iso_seconds, date, epoch or epoch_ms."
    )
    initial: str | None = Field(default=None, description="The cursor of the first read; left out, it asks for all.")
    look_back: int = Field(
        default=60, ge=0,
        description="Incremental: ask again for so many seconds (or steps of an integer) before the newest cursor.",
    )  # fmt: skip
    look_back_records: int = Field(
        default=20_000, gt=0, description="How many records that time may hold: they are kept in the position."
    )
    commit_pages: int = Field(
        default=500, ge=1, description="Pages after which what came is committed: what a kill costs at most."
    )
    read_ahead: int = Field(default=1, ge=0, le=16, description="Batches fetched while earlier ones are worked on.")
    total: Told | None = Field(default=None, description="Where the API says how many records there are.")
    more: str | None = Field(default=None, description="Path of a boolean that says whether there is another page.")
    identity: tuple[str, ...] = Field(
        default=(), description="Fields that tell records apart; offset pages then overlap by one, to notice changes."
    )
    in_flight: int = Field(default=4, ge=1, le=64, description="Pages asked for at the same time: offset and page.")

    @property
    def node(self) -> str | None:
        """Field of each record that is the record meant; None: it is the record itself."""
        return None

    @property
    def overlap(self) -> int:
        """Records by which offset pages overlap."""
        return 1 if self.identity and self.node is None else 0


class ApiSource(HttpConnection, Source):
    """Reads listings page by page; resumes behind the last page that was committed."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        captures=frozenset({"snapshot", "incremental"}), resumes=True, windows=True
    )

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the fields that the first page shows; raises as `read`."""
        with self.client() as client, closing(self._steps(stream, client, None)) as steps:
            page = next(steps).page
        return self._records(stream, None).sample([page])

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield what is there or new; every batch carries a position, but in a snapshot and a window.

        Raises:
            ListingChangedError: the listing changed while it was read; nothing is lost, it is begun anew.
            EngineError: the API could not answer what it was asked.
            UnavailableError, CredentialsRejectedError, NotFoundError, ConfigurationError: as their names say.
        """
        yield from read_ahead(self._read(stream, since, batch_rows), self._options(stream).read_ahead)

    def estimate(self, stream: Stream, since: Position | None) -> Estimate | None:
        """Return how many records the API says it would give."""
        if self._options(stream).total is None:
            return None
        boundary = self._boundary(stream, since)
        cursor = boundary.asked_from() if boundary is not None else None
        with self.client() as client, closing(self._steps(stream, client, cursor)) as steps:
            return Estimate(rows=next(steps).tally.total)

    @abstractmethod
    def _listing(self, stream: Stream, client: HttpClient, cursor: str | None) -> Listing:
        """Return the listing from a cursor on; None: from the first one there is."""

    @abstractmethod
    def _where(self, stream: Stream) -> str:
        """Return what is read, for messages."""

    def _options(self, stream: Stream) -> Any:
        """Return the options, of the source's own type."""
        if not isinstance(stream.options, self.options_type):
            kind = self.options_type.model_fields["type"].default
            raise ConfigurationError(f"stream {stream.name} is not a {kind} stream", where=str(stream.options.type))
        return stream.options

    def _read(self, stream: Stream, since: Position | None, batch_rows: int) -> Generator[Batch, None, None]:
        from etl_resources.sources.rest_reading import Plan, read

        options: ApiOptions = self._options(stream)
        with self.client() as client:
            plan = Plan(
                listing=partial(self._listing, stream, client),
                records=self._records(stream, since),
                boundary=self._boundary(stream, since),
                commit_pages=options.commit_pages,
                pages_ahead=2 * options.in_flight if options.read_ahead else 0,
                where=self._where(stream),
            )
            yield from read(plan, stream, since, batch_rows)

    def _steps(self, stream: Stream, client: HttpClient, cursor: str | None) -> Generator[Step, None, None]:
        from etl_resources.sources.rest_listing import Tally

        return self._listing(stream, client, cursor).steps({}, Tally())

    def _records(self, stream: Stream, since: Position | None) -> Records:
        from etl_resources.sources.rest_records import Records

        options: ApiOptions = self._options(stream)
        return Records(options.columns, (since or {}).get("schema"), self.max_response_bytes, options.node)

    def _boundary(self, stream: Stream, since: Position | None) -> Boundary | None:
        """Return the boundary of an incremental read; None: of another one."""
        if not isinstance(stream.capture, Incremental) or stream.window is not None:
            return None
        options = cast("ApiOptions", stream.options)
        return Boundary(
            stream.capture.cursor, options.look_back, options.cursor_format, options.look_back_records, since or {},
            f"stream {stream.name}",
        )  # fmt: skip


def checks_of(options: ApiOptions, where: str) -> Checks:
    """Return what the API says of its listing, and can be held to."""
    from etl_resources.sources.rest_listing import Checks

    total, more = options.total, options.more
    return Checks(
        total=lambda page: None if total is None else total_of(page, total, where),
        more=lambda page: None if more is None else more_of(page, more, where),
        identity=() if options.node else options.identity,
    )
