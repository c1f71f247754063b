"""Source `rest`: records of a JSON API, page by page."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, model_validator

from etl_resources.exceptions import ConfigurationError
from etl_resources.http import HttpConnection
from etl_resources.read_ahead import read_ahead
from etl_resources.source import (
    Batch,
    Capabilities,
    Estimate,
    Incremental,
    Position,
    Source,
    Stream,
    StreamOptions,
)
from etl_resources.sources.rest_cursor import Boundary, CursorFormat
from etl_resources.sources.rest_pagination import Pagination, Told, pager
from etl_resources.sources.rest_request import filled, more_of, total_of, values_of

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.http_client import HttpClient, Request
    from etl_resources.sources.rest_listing import Checks, Listing, Step
    from etl_resources.sources.rest_page import Page


class ApiOptions(StreamOptions):
    """What the streams of `rest` and `graphql` have in common."""

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


class RestOptions(ApiOptions):
    """What is written under `source: {type: rest, ...}`. `{cursor}`, `{start}` and `{end}` are filled in."""

    type: Literal["rest"] = "rest"
    path: str = Field(description="Behind the connection's `base_url`, e.g. /orders.")
    method: Literal["GET", "POST"] = "GET"
    params: dict[str, str] = Field(
        default_factory=dict, description="The query; one with {cursor} is left out while there is no cursor."
    )
    body: dict[str, Any] | None = Field(default=None, description="JSON body of a POST; pages are asked for in it.")
    records: str | None = Field(
        default=None, description="Path of the array of records, e.g. $.data.items[*]; left out: the whole answer."
    )
    pagination: Pagination | None = Field(default=None, description="How pages follow; left out: there is one.")
    total: Told | None = Field(default=None, description="Where the API says how many records there are.")
    more: str | None = Field(default=None, description="Path of a boolean that says whether there is another page.")
    identity: tuple[str, ...] = Field(
        default=(), description="Fields that tell records apart; offset pages then overlap by one, to notice changes."
    )
    in_flight: int = Field(default=4, ge=1, le=64, description="Pages asked for at the same time: offset and page.")

    @model_validator(mode="after")
    def _body_of_a_post(self) -> RestOptions:
        if (self.body is not None) != (self.method == "POST"):
            raise ValueError("a POST has a `body`, and nothing else has")
        return self


class RestSource(HttpConnection, Source):
    """Reads listings page by page; resumes behind the last page that was committed."""

    options_type: ClassVar[type[StreamOptions]] = RestOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        captures=frozenset({"snapshot", "incremental"}), resumes=True, windows=True
    )

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the fields that the first page shows; raises as `read`."""
        from etl_resources.sources.rest_records import Records

        options = _options(stream)
        with self.client() as client, closing(_first(self, stream, client)) as steps:
            page = next(steps).page
        return Records(options.columns, None, self.max_response_bytes).sample([page])

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield what is there or new; every batch carries a position, but in a snapshot and a window.

        Raises:
            ListingChangedError: the listing changed while it was read; nothing is lost, it is begun anew.
            UnavailableError, CredentialsRejectedError, NotFoundError, ConfigurationError, EngineError
        """
        yield from read_ahead(self._read(stream, since, batch_rows), _options(stream).read_ahead)

    def estimate(self, stream: Stream, since: Position | None) -> Estimate | None:
        """Return how many records the API says it would give."""
        if _options(stream).total is None:
            return None
        boundary = _boundary(stream, since)
        cursor = boundary.asked_from() if boundary is not None else None
        with self.client() as client, closing(_first(self, stream, client, cursor)) as steps:
            return Estimate(rows=next(steps).tally.total)

    def _read(self, stream: Stream, since: Position | None, batch_rows: int) -> Generator[Batch, None, None]:
        from etl_resources.sources.rest_reading import Plan, read
        from etl_resources.sources.rest_records import Records

        options = _options(stream)
        with self.client() as client:
            plan = Plan(
                listing=partial(_listing, self, stream, client),
                records=Records(options.columns, (since or {}).get("schema"), self.max_response_bytes),
                boundary=_boundary(stream, since),
                commit_pages=options.commit_pages,
                pages_ahead=2 * options.in_flight if options.read_ahead else 0,
                where=_where(self, stream),
            )
            yield from read(plan, stream, since, batch_rows)


def _options(stream: Stream) -> RestOptions:
    if not isinstance(stream.options, RestOptions):
        raise ConfigurationError(f"stream {stream.name} is not a rest stream", where=str(stream.options.type))
    return stream.options


def _where(source: RestSource, stream: Stream) -> str:
    path = _options(stream).path
    return f"stream {stream.name}, {path if '://' in path else source.address.rstrip('/') + '/' + path.lstrip('/')}"


def _listing(source: RestSource, stream: Stream, client: HttpClient, cursor: str | None) -> Listing:
    """Return the listing from a cursor on."""
    from etl_resources.http_client import Request
    from etl_resources.sources.rest_listing import Listing
    from etl_resources.sources.rest_page import page_of

    options, where = _options(stream), _where(source, stream)
    values = values_of(options.initial if cursor is None else cursor, stream.window)
    base = Request(
        filled(options.path, values), filled(options.params, values), options.method, {}, filled(options.body, values)
    )

    def fetch(request: Request) -> Page:
        return client.fetch(request, lambda answer: page_of(answer, options.records, where), where)

    pages = pager(options.pagination, base, 1 if options.identity else 0, client.follow)
    return Listing(fetch, pages, _checks(options, where), options.in_flight, where)


def _checks(options: RestOptions, where: str) -> Checks:
    from etl_resources.sources.rest_listing import Checks

    total, more = options.total, options.more
    return Checks(
        total=lambda page: None if total is None else total_of(page, total, where),
        more=lambda page: None if more is None else more_of(page, more, where),
        identity=options.identity,
    )


def _first(
    source: RestSource, stream: Stream, client: HttpClient, cursor: str | None = None
) -> Generator[Step, None, None]:
    from etl_resources.sources.rest_listing import Tally

    return _listing(source, stream, client, cursor).steps({}, Tally())


def _boundary(stream: Stream, since: Position | None) -> Boundary | None:
    return boundary_of(stream, cast("ApiOptions", stream.options), since)


def boundary_of(stream: Stream, options: ApiOptions, since: Position | None) -> Boundary | None:
    """Return the boundary of an incremental read; None: of another one."""
    if not isinstance(stream.capture, Incremental) or stream.window is not None:
        return None
    return Boundary(
        stream.capture.cursor, options.look_back, options.cursor_format, options.look_back_records, since or {},
        f"stream {stream.name}",
    )  # fmt: skip


SOURCE = RestSource
