"""Source `graphql`: records of a query, page by page."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from etl_resources.exceptions import ConfigurationError, EtlError
from etl_resources.http import HttpConnection
from etl_resources.read_ahead import read_ahead
from etl_resources.source import Batch, Capabilities, Estimate, Position, Source, Stream, StreamOptions
from etl_resources.sources.rest import ApiOptions, boundary_of
from etl_resources.sources.rest_pagination import (
    Chained,
    Cursor,
    Numbered,
    Offset,
    PageNumber,
    Pagination,
    RelayPages,
    Strict,
    Told,
    pager,
)
from etl_resources.sources.rest_request import filled, more_of, total_of, values_of

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.http_client import Answer, HttpClient, Request
    from etl_resources.sources.rest_listing import Listing, Step
    from etl_resources.sources.rest_page import Page
    from etl_resources.sources.rest_records import Records


class Relay(Strict):
    """A connection with `pageInfo { hasNextPage endCursor }`."""

    variable: str = Field(default="after", description="Variable of the query that takes the cursor.")
    page_info: str | None = Field(default=None, description="Path of pageInfo; left out, beside the records.")


class GraphqlPagination(Strict):
    """How pages follow each other; exactly one of the keys. Parameters are variables of the query."""

    relay: Relay | None = None
    cursor: Cursor | None = None
    offset: Offset | None = None
    page: PageNumber | None = None

    @model_validator(mode="after")
    def _one(self) -> GraphqlPagination:
        if sum(way is not None for way in (self.relay, self.cursor, self.offset, self.page)) != 1:
            raise ValueError("give one of relay, cursor, offset and page")
        return self


class GraphqlOptions(ApiOptions):
    """What is written under `source: {type: graphql, ...}`. Variables take `{cursor}`, `{start}` and `{end}`."""

    type: Literal["graphql"] = "graphql"
    path: str = Field(default="", description="Behind the connection's `base_url`; left out, that is the endpoint.")
    query: str = Field(description="The query, with a variable for where a page begins.")
    variables: dict[str, Any] = Field(
        default_factory=dict, description="Its variables; one with {cursor} is left out while there is no cursor."
    )
    records: str = Field(description="Path of the records: $.data.orders.edges, or a plain list, $.data.orders.nodes.")
    pagination: GraphqlPagination | None = Field(default=None, description="How pages follow; left out: there is one.")
    total: Told | None = Field(default=None, description="Where the API says how many records there are.")
    more: str | None = Field(default=None, description="Path of a boolean that says whether there is another page.")
    identity: tuple[str, ...] = Field(
        default=(), description="Fields that tell records apart; offset pages then overlap by one, to notice changes."
    )
    in_flight: int = Field(default=2, ge=1, le=64, description="Pages asked for at the same time: offset and page.")

    @model_validator(mode="after")
    def _identity_of_plain_records(self) -> GraphqlOptions:
        if self.identity and self.node:
            raise ValueError("`identity` needs a plain list of records, such as nodes; edges have none of their own")
        return self

    @property
    def node(self) -> str | None:
        """Field of each record that is the record meant: of edges, their node."""
        return "node" if self.records.removesuffix("[*]").endswith(".edges") else None


class GraphqlSource(HttpConnection, Source):
    """Reads a query page by page; errors beside data are errors."""

    options_type: ClassVar[type[StreamOptions]] = GraphqlOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        captures=frozenset({"snapshot", "incremental"}), resumes=True, windows=True
    )

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the fields that the first page shows; raises as `read`."""
        with self.client() as client, closing(_first(self, stream, client, None)) as steps:
            page = next(steps).page
        return _records(self, stream, None).sample([page])

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield what is there or new; every batch carries a position, but in a snapshot and a window.

        Raises:
            EngineError: the API could not answer the query. Others as the source `rest`.
        """
        yield from read_ahead(self._read(stream, since, batch_rows), _options(stream).read_ahead)

    def estimate(self, stream: Stream, since: Position | None) -> Estimate | None:
        """Return how many records the API says it would give."""
        options = _options(stream)
        if options.total is None:
            return None
        boundary = boundary_of(stream, options, since)
        cursor = boundary.asked_from() if boundary is not None else None
        with self.client() as client, closing(_first(self, stream, client, cursor)) as steps:
            return Estimate(rows=next(steps).tally.total)

    def _read(self, stream: Stream, since: Position | None, batch_rows: int) -> Generator[Batch, None, None]:
        from etl_resources.sources.rest_reading import Plan, read

        options = _options(stream)
        with self.client() as client:
            plan = Plan(
                listing=partial(_listing, self, stream, client),
                records=_records(self, stream, since),
                boundary=boundary_of(stream, options, since),
                commit_pages=options.commit_pages,
                pages_ahead=2 * options.in_flight if options.read_ahead else 0,
                where=_where(self, stream),
            )
            yield from read(plan, stream, since, batch_rows)


def _options(stream: Stream) -> GraphqlOptions:
    if not isinstance(stream.options, GraphqlOptions):
        raise ConfigurationError(f"stream {stream.name} is not a graphql stream", where=str(stream.options.type))
    return stream.options


def _where(source: GraphqlSource, stream: Stream) -> str:
    path = _options(stream).path
    return f"stream {stream.name}, {source.address}" + (f" {path}" if path else "")


def _records(source: GraphqlSource, stream: Stream, since: Position | None) -> Records:
    from etl_resources.sources.rest_records import Records

    options = _options(stream)
    return Records(options.columns, (since or {}).get("schema"), source.max_response_bytes, options.node)


def _first(
    source: GraphqlSource, stream: Stream, client: HttpClient, cursor: str | None
) -> Generator[Step, None, None]:
    from etl_resources.sources.rest_listing import Tally

    return _listing(source, stream, client, cursor).steps({}, Tally())


def _listing(source: GraphqlSource, stream: Stream, client: HttpClient, cursor: str | None) -> Listing:
    from dataclasses import replace

    from etl_resources.http_client import Request
    from etl_resources.sources.rest_listing import Checks, Listing

    options, where = _options(stream), _where(source, stream)
    values = values_of(options.initial if cursor is None else cursor, stream.window)
    # Its body are the variables, in which pages are asked for; the query is put around them when it is sent.
    base = Request(options.path, method="POST", body=filled(options.variables, values))

    def fetch(request: Request) -> Page:
        sent = replace(request, body={"query": options.query, "variables": request.body})
        return client.fetch(sent, lambda answer: _page(answer, options, client, where), where)

    total, more = options.total, options.more
    checks = Checks(
        total=lambda page: None if total is None else total_of(page, total, where),
        more=lambda page: None if more is None else more_of(page, more, where),
        identity=() if options.node else options.identity,
    )
    return Listing(fetch, _pager(options, base, client), checks, options.in_flight, where)


def _pager(options: GraphqlOptions, base: Request, client: HttpClient) -> Numbered | Chained:
    way = options.pagination
    if way is None:
        return pager(None, base, 0, client.follow)
    if way.relay is not None:
        beside = options.records.removesuffix("[*]").rpartition(".")[0] + ".pageInfo"
        return RelayPages(base, way.relay.variable, way.relay.page_info or beside)
    plain = Pagination(cursor=way.cursor, offset=way.offset, page=way.page)
    return pager(plain, base, 1 if options.identity and not options.node else 0, client.follow)


def _page(answer: Answer, options: GraphqlOptions, client: HttpClient, where: str) -> Page:
    """Return the page of an answer.

    Raises:
        EtlError: the answer holds errors, whether or not there are data beside them; as `page_of`.
    """
    from etl_resources.sources.graphql_errors import errors_of, is_throttled, pause_for_cost, translate
    from etl_resources.sources.rest_page import page_of

    page, failure = None, None
    try:
        page = page_of(answer, options.records, where)
        document = page.envelope
    except EtlError as error:
        document, failure = _document(answer), error
    errors = errors_of(document)
    if (pause := pause_for_cost(document)) is not None and (not errors or is_throttled(errors)):
        client.gate.pause(pause)
    if errors:
        raise translate(errors, where, client.redact) from None
    if page is None:
        assert failure is not None  # noqa: S101 - one of both
        raise failure
    return page


def _document(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


SOURCE = GraphqlSource
