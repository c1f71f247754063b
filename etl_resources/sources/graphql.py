"""Source `graphql`: records of a query, page by page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from etl_resources.exceptions import EtlError
from etl_resources.source import Stream, StreamOptions
from etl_resources.sources.rest_api import ApiOptions, ApiSource, checks_of
from etl_resources.sources.rest_pagination import (
    Chained,
    Cursor,
    Numbered,
    Offset,
    PageNumber,
    Pagination,
    RelayPages,
    Strict,
    pager,
)
from etl_resources.sources.rest_request import filled, values_of

if TYPE_CHECKING:
    from etl_resources.http_client import Answer, HttpClient, Request
    from etl_resources.sources.rest_listing import Listing
    from etl_resources.sources.rest_page import Page


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


class GraphqlSource(ApiSource):
    """Reads a query page by page; errors beside data are errors."""

    options_type: ClassVar[type[StreamOptions]] = GraphqlOptions

    def _listing(self, stream: Stream, client: HttpClient, cursor: str | None) -> Listing:
        from dataclasses import replace

        from etl_resources.http_client import Request
        from etl_resources.sources.rest_listing import Listing

        options: GraphqlOptions = self._options(stream)
        where = self._where(stream)
        values = values_of(options.initial if cursor is None else cursor, stream.window)
        # Its body are the variables, in which pages are asked for; the query is put around them when it is sent.
        base = Request(options.path, method="POST", body=filled(options.variables, values))

        def fetch(request: Request) -> Page:
            sent = replace(request, body={"query": options.query, "variables": request.body})
            return client.fetch(sent, lambda answer: _page(answer, options, client, where), where)

        return Listing(fetch, _pager(options, base, client), checks_of(options, where), options.in_flight, where)

    def _where(self, stream: Stream) -> str:
        path = self._options(stream).path
        return f"stream {stream.name}, {self.address}" + (f" {path}" if path else "")


def _pager(options: GraphqlOptions, base: Request, client: HttpClient) -> Numbered | Chained:
    way = options.pagination
    if way is None:
        return pager(None, base, 0, client.follow)
    if way.relay is not None:
        beside = options.records.removesuffix("[*]").rpartition(".")[0] + ".pageInfo"
        return RelayPages(base, way.relay.variable, way.relay.page_info or beside)
    plain = Pagination(cursor=way.cursor, offset=way.offset, page=way.page)
    return pager(plain, base, options.overlap, client.follow)


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
