"""Where a JSON record begins and ends, found without parsing it, in a document of any size.

Records are the elements of one array (the document itself, or reached by a path of keys), or the objects that stand one
behind the other at the top of a document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.files.chunks import Unreadable
from etl_resources.files.csv_records import Block, Piece, escaped_positions, within_quotes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SPACE = b" \t\r\n"


def parse_path(path: str | None) -> list[str]:
    """Return the keys of `products`, `$.products[*]` or `data.items`."""
    keys = [k for k in (path or "").removeprefix("$").removesuffix("[*]").split(".") if k]
    if any(re.search(r"[\[\]*]", key) for key in keys):
        raise ConfigurationError(
            f"records: {path!r} is not a path of keys to one array",
            fix="write it as `products` or `$.data.products[*]`",
        )
    return keys


@dataclass(slots=True)
class Scan:
    """Positions of the brackets of a text outside of its strings, and how deep it is behind each."""

    at: NDArray[np.int64]
    depth: NDArray[np.int64]


def scan(text: bytes, depth: int) -> Scan:
    """Scan text that begins outside of a string, `depth` deep; a string that is not closed hides what follows it."""
    import numpy as np

    octets = np.frombuffer(text, np.uint8)
    is_quote = octets == ord('"')
    is_quote[escaped_positions(octets, ord("\\"))] = False
    folded = octets | np.uint8(32)  # takes [ for {, and ] for }
    at = np.flatnonzero(((folded == ord("{")) | (folded == ord("}"))) & ~within_quotes(is_quote))
    return Scan(at, depth + np.cumsum(np.where(folded[at] == ord("{"), 1, -1)))


class Document:
    """A JSON document read from its beginning, block by block."""

    def __init__(self, blocks: Iterable[bytes], origin: str, max_record_bytes: int) -> None:
        self._blocks, self.origin, self._limit = iter(blocks), origin, max_record_bytes
        self._text, self._line = b"", 1

    def records(self, path: list[str]) -> Iterator[Piece]:
        """Yield blocks of whole records.

        Raises:
            NotFoundError: the path leads nowhere.
            ConfigurationError: it leads to something that is no array.
        """
        for depth, key in enumerate(path):
            self._descend(key, ".".join(path[:depth]) or "the document")
        first = self._peek()
        if first == b"[":
            self._drop(1)
            yield from self._split(1)
            yield from self._behind_array(nested=bool(path))
        elif path or first not in {b"{", b""}:
            found = {b"{": "an object", b'"': "a string"}.get(first, "no array")
            raise ConfigurationError(
                f"{'.'.join(path) or 'the document'} of {self.origin} is {found}, not an array of records",
                where=self.origin, fix="give the path of the array in `records`",
            )  # fmt: skip
        else:
            yield from self._split(0)

    def _split(self, inside: int) -> Iterator[Piece]:
        """Cut at the end of every object that stands directly in the array (`inside` 1) or at the top (0)."""
        while True:
            found = scan(self._text, inside)
            closed = (found.depth < inside).nonzero()[0]
            stop = int(found.at[closed[0]]) if len(closed) else len(self._text)
            ends = found.at[(found.depth == inside) & (found.at < stop)]
            if len(ends):
                size = int(ends[-1]) + 1
                yield self._take(size, len(ends))
                stop -= size
            if len(closed):
                array_ends = inside and self._text[stop : stop + 1] == b"]"
                yield from self._leftover(self._text[: stop if array_ends else stop + 1])
                self._drop(stop + 1)
                if array_ends:
                    return
                continue
            if len(self._text) > self._limit:
                raise ConfigurationError(
                    f"a record of {self.origin} is longer than {self._limit:,} bytes", where=f"line {self._line}",
                    fix="a bracket may not be closed there; else raise max_record_bytes",
                )  # fmt: skip
            if not self._more():
                reason = "the file ends before the array does" if inside else "the file ends within the record"
                yield from self._leftover(self._text, reason, always=bool(inside))
                self._drop(len(self._text))
                return

    def _behind_array(self, *, nested: bool) -> Iterator[Piece]:
        """Behind the array there is the rest of the document, or its end; anything else was not seen as a record."""
        mark = self._peek()
        if mark == b"" or (nested and mark in {b",", b"}"}):
            return
        while self._text:
            while len(self._text) <= self._limit and self._more():
                pass
            yield Unreadable("text behind the end of the array", self._text, self._line)
            self._drop(len(self._text))
            self._more()

    def _leftover(self, text: bytes, reason: str = "not an object", *, always: bool = False) -> Iterator[Piece]:
        """Yield what is left behind the last object, if it is more than space."""
        body = text.strip(_SPACE + b",")
        if body or always:
            line = self._line + text[: text.find(body[:1]) if body else 0].count(b"\n")
            yield Unreadable(reason, body, line)

    def _take(self, size: int, records: int) -> Block:
        block = Block(self._text[:size], self._line, records)
        self._drop(size)
        return block

    def _descend(self, key: str, parent: str) -> None:
        if self._peek() != b"{":
            raise ConfigurationError(f"{parent} of {self.origin} is not an object, so has no {key}", where=self.origin)
        seen: list[str] = []
        while self._peek() in {b"{", b","}:
            self._drop(1)
            if self._peek() == b"}":
                break
            name = self._string()
            if self._peek() != b":":
                break
            self._drop(1)
            if name == key:
                return
            seen.append(name)
            self._skip_value()
        raise NotFoundError(
            f"no {key} in {parent} of {self.origin}", where=self.origin,
            fix=f"`records` may begin with {', '.join(seen[:8])}" if seen else "check `records`",
        )  # fmt: skip

    def _string(self) -> str:
        import json

        self._peek()
        while not (found := _STRING.match(self._text)):
            if not self._more():
                raise ConfigurationError(f"{self.origin} is not JSON", where=f"{self.origin}, line {self._line}")
        self._drop(found.end())
        return str(json.loads(found.group()))

    def _skip_value(self) -> None:
        mark = self._peek()
        if mark == b'"':
            self._string()
        elif mark in {b"{", b"["}:
            self._skip_brackets()
        else:
            while not (found := re.search(rb"[,}\]]", self._text)) and self._more():
                pass
            self._drop(found.start() if found else len(self._text))

    def _skip_brackets(self) -> None:
        depth = 0
        while True:
            found = scan(self._text, depth)
            closed = (found.depth == 0).nonzero()[0]
            if len(closed):
                self._drop(int(found.at[closed[0]]) + 1)
                return
            if len(found.at):
                depth = int(found.depth[-1])
                self._drop(int(found.at[-1]) + 1)
            if not self._more():
                return

    def _peek(self) -> bytes:
        """Return the next byte that is not space; empty at the end."""
        while not (stripped := self._text.lstrip(_SPACE)):
            self._drop(len(self._text))
            if not self._more():
                return b""
        self._drop(len(self._text) - len(stripped))
        return self._text[:1]

    def _drop(self, size: int) -> None:
        self._line += self._text.count(b"\n", 0, size)
        self._text = self._text[size:]

    def _more(self) -> bool:
        block = next(self._blocks, None)
        self._text += block or b""
        return block is not None
