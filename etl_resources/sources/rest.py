"""Source `rest`: records of a JSON API, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from etl_resources.source import Stream, StreamOptions
from etl_resources.sources.rest_api import ApiOptions, ApiSource, checks_of
from etl_resources.sources.rest_pagination import Pagination, pager
from etl_resources.sources.rest_request import filled, values_of

if TYPE_CHECKING:
    from etl_resources.http_client import HttpClient, Request
    from etl_resources.sources.rest_listing import Listing
    from etl_resources.sources.rest_page import Page


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

    @model_validator(mode="after")
    def _body_of_a_post(self) -> RestOptions:
        if (self.body is not None) != (self.method == "POST"):
            raise ValueError("a POST has a `body`, and nothing else has")
        return self


class RestSource(ApiSource):
    """Reads listings page by page; resumes behind the last page that was committed."""

    options_type: ClassVar[type[StreamOptions]] = RestOptions

    def _listing(self, stream: Stream, client: HttpClient, cursor: str | None) -> Listing:
        from etl_resources.http_client import Request
        from etl_resources.sources.rest_listing import Listing
        from etl_resources.sources.rest_page import page_of

        options: RestOptions = self._options(stream)
        where = self._where(stream)
        values = values_of(options.initial if cursor is None else cursor, stream.window)
        path, params, body = (filled(given, values) for given in (options.path, options.params, options.body))

        def fetch(request: Request) -> Page:
            return client.fetch(request, lambda answer: page_of(answer, options.records, where), where)

        pages = pager(
            options.pagination, Request(path, params, options.method, {}, body), options.overlap, client.follow
        )
        return Listing(fetch, pages, checks_of(options, where), options.in_flight, where)

    def _where(self, stream: Stream) -> str:
        path = self._options(stream).path
        return f"stream {stream.name}, {path if '://' in path else self.address.rstrip('/') + '/' + path.lstrip('/')}"


SOURCE = RestSource
