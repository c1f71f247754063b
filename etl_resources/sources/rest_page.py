"""One answer of an API: its records as text, cut out of the document, and the rest of it as values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError, EngineError, UnavailableError
from etl_resources.files.json_records import Document, Scan, parse_path, scan

if TYPE_CHECKING:
    from etl_resources.http_client import Answer

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"


@dataclass(frozen=True)
class Page:
    """The records of an answer, not parsed yet; `objects` of them were seen, without looking into them."""

    records: bytes
    """What stands between the brackets of the array."""
    objects: int
    first: bytes = b""
    """The first object; empty: there is none."""
    last: bytes = b""
    line: int = 1
    """Line of the document at which `records` begins."""
    envelope: Any = None
    """The document with an empty array in the place of the records."""
    url: str = ""
    headers: Mapping[str, str] | None = None

    def length(self, expected: int) -> int:
        """Return how many records there are; looks closer if fewer objects were seen than expected."""
        if self.objects >= expected:
            return self.objects
        try:
            return len(json.loads(b"[" + self.records + b"]"))  # a null, say, is a record that is no object
        except ValueError:
            return self.objects

    def without_first(self) -> Page:
        """Return the page without its first object."""
        at = self.records.index(self.first) + len(self.first)
        skipped, rest = self.records[:at], self.records[at:].lstrip(_SPACE).removeprefix(b",")
        line = self.line + self.records.count(b"\n", 0, len(self.records) - len(rest))
        alone = self.objects == 1
        assert skipped  # noqa: S101 - the first object stands there
        return replace(self, records=rest, objects=self.objects - 1, line=line, last=b"" if alone else self.last)

    def value(self, path: str | None) -> Any:
        """Return what stands at a path of the envelope; None: nothing does."""
        found = self.envelope
        for key in parse_path(path):
            found = found.get(key) if isinstance(found, dict) else None
        return found


def identity(record: bytes, fields: Sequence[str]) -> str:
    """Return a hash of what tells a record apart from others: the fields, or all of it where it cannot be read."""
    try:
        value = json.loads(record)
        told = json.dumps([value.get(name) for name in fields]).encode()
    except (ValueError, AttributeError):
        told = record
    return hashlib.blake2b(told, digest_size=16).hexdigest()


def page_of(answer: Answer, records: str | None, where: str) -> Page:
    """Cut the records out of an answer.

    Raises:
        UnavailableError: the document is not whole.
        NotFoundError, ConfigurationError: `records` leads nowhere, or to something that is no array.
        EngineError: it is no JSON.
    """
    body = answer.body.removeprefix(_BOM)
    if body.lstrip(_SPACE)[:1] not in {b"{", b"["}:
        if not body.strip(_SPACE):
            raise UnavailableError("the answer is empty", where=where)
        kind = answer.headers.get("content-type", "something unknown")
        raise EngineError(f"the answer is {kind}, and not JSON", where=where, fix="check `base_url` and `path`")
    found = scan(body, 0)
    if int(found.depth[-1]) != 0:
        raise _cut_off(where)
    start = _Answered(body, where).array(parse_path(records))
    if start is None:
        return Page(b"", 0, envelope=_values(body, where), url=answer.url, headers=answer.headers)
    return _cut(body, found, start, answer, where)


class _Answered(Document):
    """Finds the array of records in a whole document."""

    def __init__(self, body: bytes, where: str) -> None:
        super().__init__(iter((body,)), where, len(body))
        self._body = body

    def array(self, path: list[str]) -> int | None:
        """Return where the array begins; None: there is null in its place."""
        for depth, key in enumerate(path):
            self._descend(key, ".".join(path[:depth]) or "the answer")
        mark = self._cursor.peek()
        if mark == b"[":
            return len(self._body) - len(self._cursor.rest())
        if mark == b"n" and path:
            return None
        raise ConfigurationError(
            f"{'.'.join(path) or 'the answer'} is not an array of records", where=self.origin,
            fix="give the path of the array in `records`, e.g. `$.data.items[*]`",
        )  # fmt: skip


def _cut(body: bytes, found: Scan, start: int, answer: Answer, where: str) -> Page:
    import numpy as np

    n = int(np.searchsorted(found.at, start))
    outside = int(found.depth[n]) - 1
    closed = np.flatnonzero(found.depth[n:] == outside)
    if not len(closed):
        raise _cut_off(where)
    end = n + int(closed[0])
    at, depth = found.at[n + 1 : end], found.depth[n + 1 : end] - outside
    opens = at[(depth == 2) & (np.diff(depth, prepend=1) > 0)]
    closes = at[depth == 1]
    stop = int(found.at[end])
    envelope = _values(body[:start] + b"[]" + body[stop + 1 :], where)
    some = len(opens) > 0 and len(opens) == len(closes)
    return Page(
        records=body[start + 1 : stop],
        objects=len(opens),
        first=body[int(opens[0]) : int(closes[0]) + 1] if some else b"",
        last=body[int(opens[-1]) : int(closes[-1]) + 1] if some else b"",
        line=1 + body.count(b"\n", 0, start + 1),
        envelope=envelope,
        url=answer.url,
        headers=answer.headers,
    )


def _values(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise _cut_off(where) from None


def _cut_off(where: str) -> UnavailableError:
    return UnavailableError(
        "the answer is cut off, or is no JSON", where=where, fix="ask for smaller pages if it stays so"
    )
