"""How an API gives a long list in pages: what is asked for each, and where the next one is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from etl_resources.exceptions import EngineError, NotFoundError
from etl_resources.http_client import Request
from etl_resources.sources.rest_page import Page

State = Mapping[str, Any]
"""Which page is the next, as JSON."""


class Strict(BaseModel):
    """A model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Offset(Strict):
    """`?offset=200&limit=100`."""

    size: int = Field(default=100, ge=2, description="Records per page.")
    offset: str = Field(default="offset", description="Parameter: records to skip.")
    limit: str = Field(default="limit", description="Parameter: records to give.")


class PageNumber(Strict):
    """`?page=3&per_page=100`."""

    size: int = Field(default=100, ge=1, description="Records per page.")
    page: str = Field(default="page", description="Parameter: number of the page.")
    limit: str | None = Field(default="per_page", description="Parameter: records per page; null: there is none.")
    first: int = Field(default=1, description="Number of the first page.")


class Cursor(Strict):
    """The answer holds a mark that is sent with the next request; exactly one of `path` and `header` says where."""

    param: str = Field(default="cursor", description="Parameter that the mark is sent in.")
    path: str | None = Field(default=None, description="Path of the mark in the body, e.g. $.meta.next_cursor.")
    header: str | None = Field(default=None, description="Header that holds the mark.")

    @model_validator(mode="after")
    def _one_place(self) -> Cursor:
        if (self.path is None) == (self.header is None):
            raise ValueError("give either `path` or `header`")
        return self


class Link(Strict):
    """A header `Link: <https://...>; rel="next"` (RFC 8288)."""


class NextUrl(Strict):
    """The body holds the address of the next page."""

    path: str = Field(description="Path of the address in the body, e.g. $.next.")


class Pagination(Strict):
    """How pages follow each other; exactly one of the keys."""

    offset: Offset | None = None
    page: PageNumber | None = None
    cursor: Cursor | None = None
    link: Link | None = None
    next_url: NextUrl | None = None

    @model_validator(mode="after")
    def _one(self) -> Pagination:
        if sum(way is not None for way in (self.offset, self.page, self.cursor, self.link, self.next_url)) != 1:
            raise ValueError("give one of offset, page, cursor, link and next_url")
        return self


class Told(Strict):
    """A number that the API tells; exactly one of `path` and `header` says where."""

    path: str | None = None
    header: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Told:
        if (self.path is None) == (self.header is None):
            raise ValueError("give either `path` or `header`")
        return self


@dataclass(frozen=True)
class Numbered:
    """Pages whose requests are known beforehand: by offset or by number, from 0 on."""

    base: Request
    way: Offset | PageNumber
    overlap: int = 0
    """By so many records a page begins before the end of the one before (offset only)."""

    @property
    def stride(self) -> int:
        """New records per page."""
        return self.way.size - self.overlap

    def request(self, number: int) -> Request:
        """Return the request for a page."""
        if isinstance(self.way, Offset):
            return self._at(number * self.stride)
        named = {self.way.page: self.way.first + number}
        if self.way.limit is not None:
            named[self.way.limit] = self.way.size
        return _with(self.base, named)

    def behind(self, number: int, length: int) -> Request:
        """Return the request for what follows a page that has only `length` records."""
        if isinstance(self.way, Offset):
            return self._at(number * self.stride + length)
        return self.request(number + 1)

    def _at(self, offset: int) -> Request:
        assert isinstance(self.way, Offset)  # noqa: S101 - asked by the callers
        return _with(self.base, {self.way.offset: offset, self.way.limit: self.way.size})


class Chained(Protocol):
    """Pages of which each tells where the next one is."""

    def request(self, state: State) -> Request:
        """Return the request for a page; an empty state is the first."""

    def following(self, state: State, page: Page) -> State | None:
        """Return the next page; None: it was the last."""


@dataclass(frozen=True)
class OnePage:
    """Everything in one answer."""

    base: Request

    def request(self, state: State) -> Request:  # noqa: ARG002 - there is only one
        """Return the request."""
        return self.base

    def following(self, state: State, page: Page) -> State | None:  # noqa: ARG002
        """Return None: there is no other."""
        return None


@dataclass(frozen=True)
class CursorPages:
    """Pages by a mark in the body or in a header."""

    base: Request
    way: Cursor

    def request(self, state: State) -> Request:
        """Return the request for a page."""
        return _with(self.base, {self.way.param: state["cursor"]}) if state else self.base

    def following(self, state: State, page: Page) -> State | None:
        """Return the state with the mark of the page."""
        if self.way.path is not None:
            mark = page.value(self.way.path)
        else:
            mark = (page.headers or {}).get((self.way.header or "").lower())
        return None if mark in {None, ""} else _moved(state, {"cursor": mark})


@dataclass(frozen=True)
class RelayPages:
    """Pages of a GraphQL connection: by `endCursor` of its `pageInfo`, while that says `hasNextPage`."""

    base: Request
    variable: str
    page_info: str

    def request(self, state: State) -> Request:
        """Return the request for a page."""
        return _with(self.base, {self.variable: state["cursor"]}) if state else self.base

    def following(self, state: State, page: Page) -> State | None:
        """Return the state with the mark of the page's end.

        Raises:
            NotFoundError: the answer does not say whether there is another page.
        """
        info = page.value(self.page_info)
        more = info.get("hasNextPage") if isinstance(info, dict) else None
        mark = info.get("endCursor") if isinstance(info, dict) else None
        if not isinstance(more, bool) or (more and mark is None):
            raise NotFoundError(
                f"there is no hasNextPage and endCursor in {self.page_info} of the answer",
                fix="have the query ask for `pageInfo { hasNextPage endCursor }`",
            )
        return _moved(state, {"cursor": mark}) if more else None


@dataclass(frozen=True)
class LinkedPages:
    """Pages by the address of the next one, in the body at `path`, or else in the header `Link`."""

    base: Request
    path: str | None
    follow: Callable[[str, str], str]
    """From the page's address and its link to an address that may be asked, without credentials."""

    def request(self, state: State) -> Request:
        """Return the request for a page."""
        return replace(self.base, url=str(state["url"]), params={}) if state else self.base

    def following(self, state: State, page: Page) -> State | None:
        """Return the state with the address in the page."""
        link = page.value(self.path) if self.path is not None else _next_link((page.headers or {}).get("link"))
        return _moved(state, {"url": self.follow(page.url, str(link))}) if link else None


def pager(way: Pagination | None, base: Request, overlap: int, follow: Callable[[str, str], str]) -> Numbered | Chained:
    """Return what makes the requests for a way of pagination."""
    if way is None:
        return OnePage(base)
    if way.offset is not None or way.page is not None:
        numbered = way.offset or way.page
        assert numbered is not None  # noqa: S101 - one of both
        return Numbered(base, numbered, overlap if way.offset is not None else 0)
    if way.cursor is not None:
        return CursorPages(base, way.cursor)
    return LinkedPages(base, way.next_url.path if way.next_url is not None else None, follow)


def _with(base: Request, params: Mapping[str, Any]) -> Request:
    """Return the request with more parameters: in the query, or in the body of one that has one."""
    if base.body is not None:
        return replace(base, body={**base.body, **params})
    return replace(base, params={**base.params, **{name: str(value) for name, value in params.items()}})


def _moved(state: State, following: State) -> State:
    if dict(state) == dict(following):
        raise EngineError(
            "a page names itself as the next one, which would go on for ever", fix="check `pagination`; the API may "
            "take no notice of the parameter",
        )  # fmt: skip
    return following


def _next_link(header: str | None) -> str | None:
    import httpx

    found = httpx.Response(200, headers={"link": header} if header else {}).links.get("next", {})
    return found.get("url")
