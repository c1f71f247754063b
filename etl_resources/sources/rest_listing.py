"""The pages of a listing in their order, several at a time, and whether the listing held still while it was read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from etl_resources.exceptions import UnavailableError
from etl_resources.http_client import Request
from etl_resources.sources.rest_page import Page, identity
from etl_resources.sources.rest_pagination import Chained, Numbered, Offset, State


class ListingChangedError(UnavailableError):
    """Records may have been skipped, because the listing became shorter or was sorted anew while it was read.

    Transient, but not by asking for the same page again: the listing has to be read from its beginning.
    """


@dataclass(frozen=True)
class Checks:
    """What an API tells beside the records, and what tells a record apart."""

    total: Callable[[Page], int | None] = lambda page: None  # noqa: ARG005
    """How many records the whole listing has."""
    more: Callable[[Page], bool | None] = lambda page: None  # noqa: ARG005
    """Whether there is another page."""
    identity: Sequence[str] = ()


@dataclass(frozen=True)
class Tally:
    """What has been read of a listing, as far as later pages have to agree with it."""

    received: int = 0
    total: int | None = None
    last: str | None = None
    """Identity of the last record."""
    size: int | None = None
    """Records per page, where pages are numbered."""


@dataclass(frozen=True)
class Step:
    """A page, and where to go on behind it (None: it was the last)."""

    page: Page
    following: State | None
    tally: Tally


class Listing:
    """Reads pages with `fetch`, at most `in_flight` at the same time."""

    def __init__(
        self, fetch: Callable[[Request], Page], pager: Numbered | Chained, checks: Checks, in_flight: int, where: str
    ) -> None:
        self._fetch, self._pager, self._checks = fetch, pager, checks
        self._in_flight, self._where = in_flight, where

    def steps(self, state: State, tally: Tally) -> Generator[Step, None, None]:
        """Yield the pages from a state on; an empty state is the beginning.

        Raises:
            ListingChangedError: see there. What `fetch` raises.
        """
        if isinstance(self._pager, Numbered):
            yield from self._numbered(self._pager, int(state.get("page", 0)), tally)
        else:
            yield from self._chained(self._pager, state, tally)

    def _chained(self, pager: Chained, state: State, tally: Tally) -> Generator[Step, None, None]:
        following: State | None = state
        while following is not None:
            page = self._fetch(pager.request(following))
            tally = self._counted(page, tally, page.length(page.objects))
            following = pager.following(following, page)
            if following is None:
                self._check_end(tally)
            yield Step(page, following, tally)

    def _numbered(self, pager: Numbered, first: int, tally: Tally) -> Generator[Step, None, None]:
        pool = ThreadPoolExecutor(self._in_flight, thread_name_prefix="page")
        ahead: deque[Future[Page]] = deque()
        number = asked = first
        try:
            while True:
                # The first page alone: it may tell how many there are, or be the only one.
                room = self._in_flight if number > first else 1
                while len(ahead) < room and (not ahead or asked < _pages(pager, tally, asked + 1)):
                    ahead.append(pool.submit(self._fetch, pager.request(asked)))
                    asked += 1
                page = ahead.popleft().result()
                step = self._step(pager, number, page, tally)
                tally, number = step.tally, number + 1
                if step.following is None:
                    self._check_end(tally)
                yield step
                if step.following is None:
                    return
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _step(self, pager: Numbered, number: int, page: Page, tally: Tally) -> Step:
        """Check a page against what was asked for and what came before it."""
        length = page.length(tally.size or pager.way.size)
        if number > 0:
            page, new = self._joined(pager, page, length, tally), max(0, length - pager.overlap)
        else:
            new = length
        tally = self._counted(page, tally, new)
        size = self._size_if_more(pager, number, length, page, tally)
        return Step(page, None if size is None else {"page": number + 1}, replace(tally, size=size))

    def _size_if_more(self, pager: Numbered, number: int, length: int, page: Page, tally: Tally) -> int | None:
        """Return how many records pages have; None: this was the last one."""
        size = tally.size or pager.way.size
        more = self._checks.more(page)
        told_end = more is False or (tally.total is not None and tally.received >= tally.total)
        if told_end or (length == 0 and more is None and tally.total is None):
            return None
        if length >= size:
            return size
        # Shorter than asked for: the end, unless something follows it.
        if not (more or tally.total is not None):
            behind = self._fetch(pager.behind(number, length))
            if not behind.length(1):
                return None
        if number == 0 and length and not isinstance(pager.way, Offset):
            return length  # the server has pages of its own size, and numbers them
        raise ListingChangedError(
            f"page {number} has {length} of {size} records though it is not the last: records may be missing",
            where=self._where,
            fix=f"if the API gives no more than {length} at once, set `size: {length}`; else it was changed while it"
            " was read: run again",
        )

    def _joined(self, pager: Numbered, page: Page, length: int, tally: Tally) -> Page:
        """Check that the page begins where the one before it ended; return it without what they share."""
        if not self._checks.identity or tally.last is None:
            return page
        begins = identity(page.first, self._checks.identity) if page.first else None
        if pager.overlap and begins != tally.last:
            raise self._changed("a page does not begin with the record that the one before it ended with")
        if not pager.overlap and begins == tally.last:
            raise self._changed("a page begins with the record that the one before it ended with")
        return page.without_first() if pager.overlap and length else page

    def _counted(self, page: Page, tally: Tally, length: int) -> Tally:
        total = self._checks.total(page)
        if total is not None and tally.total is not None and total < tally.total:
            raise self._changed(f"there were {tally.total} records, and now there are {total}")
        last = identity(page.last, self._checks.identity) if page.last and self._checks.identity else tally.last
        return Tally(tally.received + length, tally.total if total is None else total, last, tally.size)

    def _check_end(self, tally: Tally) -> None:
        if tally.total is not None and tally.received != tally.total:
            raise self._changed(f"the API counts {tally.total} records, and {tally.received} came")

    def _changed(self, what: str) -> ListingChangedError:
        return ListingChangedError(
            f"the listing changed while it was read: {what}", where=self._where,
            fix="run again: it is read from its beginning; if it happens often, sort by something that does not change,"
            " or use a pagination by cursor if the API has one",
        )  # fmt: skip


def _pages(pager: Numbered, tally: Tally, otherwise: int) -> int:
    """Return how many pages there are, where the total is known."""
    if tally.total is None or tally.size is None:
        return otherwise
    return 1 + max(0, -(-(tally.total - tally.size) // (tally.size - pager.overlap)))


def tally_of(dumped: Any) -> Tally:
    """Return what `dump_tally` wrote."""
    return replace(Tally(), **(dumped or {}))


def dump_tally(tally: Tally) -> dict[str, Any]:
    """Return a tally as JSON."""
    return {"received": tally.received, "total": tally.total, "last": tally.last, "size": tally.size}
