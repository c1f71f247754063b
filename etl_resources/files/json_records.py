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

_NOT_SPACE = re.compile(rb"[^ \t\r\n]")
_SCALAR_END = re.compile(rb"[,}\]]")
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
    at = np.flatnonzero((folded == ord("{")) | (folded == ord("}")))
    at = at[~within_quotes(np.flatnonzero(is_quote), at)]
    return Scan(at, depth + np.cumsum(np.where(folded[at] == ord("{"), 1, -1)))


class Cursor:
    """A place in a text that is read block by block, and the number of its line."""

    def __init__(self, blocks: Iterable[bytes], origin: str) -> None:
        self._blocks, self._origin = iter(blocks), origin
        self._text, self._at, self.line = b"", 0, 1

    def rest(self) -> bytes:
        """Return what has been read and not been dropped."""
        self._text, self._at = self._text[self._at :], 0
        return self._text

    def drop(self, size: int) -> None:
        """Go on by `size` bytes."""
        self.line += self._text.count(b"\n", self._at, self._at + size)
        self._at += size

    def more(self) -> bool:
        """Read another block; false: there is none."""
        block = next(self._blocks, None)
        self._text, self._at = self._text[self._at :] + (block or b""), 0
        return block is not None

    def peek(self) -> bytes:
        """Return the next byte that is not space; empty at the end."""
        while not (found := _NOT_SPACE.search(self._text, self._at)):
            self.drop(len(self._text) - self._at)
            if not self.more():
                return b""
        self.drop(found.start() - self._at)
        return found.group()

    def string(self) -> str:
        """Return the string that stands here, and go behind it."""
        import json

        while not (found := _STRING.match(self._text, self._at)):
            if not self.more():
                raise ConfigurationError(f"{self._origin} is not JSON", where=f"{self._origin}, line {self.line}")
        self.drop(found.end() - self._at)
        return str(json.loads(found.group()))

    def skip_value(self) -> None:
        """Go behind the value that stands here."""
        mark = self.peek()
        if mark == b'"':
            self.string()
        elif mark in {b"{", b"["}:
            self._skip_brackets()
        else:
            while not (found := _SCALAR_END.search(self._text, self._at)) and self.more():
                pass
            self.drop((found.start() if found else len(self._text)) - self._at)

    def _skip_brackets(self) -> None:
        depth, size = 0, 4096  # most values are small; the scanner takes a piece at a time
        while True:
            piece = self._text[self._at : self._at + size]
            found = scan(piece, depth)
            closed = (found.depth == 0).nonzero()[0]
            if len(closed):
                self.drop(int(found.at[closed[0]]) + 1)
                return
            if len(found.at):
                depth = int(found.depth[-1])
                self.drop(int(found.at[-1]) + 1)
            if self._at + size >= len(self._text) and not self.more() and len(piece) < size:
                self.drop(len(self._text) - self._at)
                return
            size *= 4


class Document:
    """A JSON document read from its beginning, block by block."""

    def __init__(self, blocks: Iterable[bytes], origin: str, max_record_bytes: int) -> None:
        self._cursor, self.origin, self._limit = Cursor(blocks, origin), origin, max_record_bytes

    def records(self, path: list[str]) -> Iterator[Piece]:
        """Yield blocks of whole records.

        Raises:
            NotFoundError: the path leads nowhere.
            ConfigurationError: it leads to something that is no array.
        """
        for depth, key in enumerate(path):
            self._descend(key, ".".join(path[:depth]) or "the document")
        first = self._cursor.peek()
        if first == b"[":
            self._cursor.drop(1)
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
        cursor = self._cursor
        while True:
            text = cursor.rest()
            found = scan(text, inside)
            closed = (found.depth < inside).nonzero()[0]
            stop = int(found.at[closed[0]]) if len(closed) else len(text)
            ends = found.at[(found.depth == inside) & (found.at < stop)]
            taken = int(ends[-1]) + 1 if len(ends) else 0
            if taken:
                yield Block(text[:taken], cursor.line, len(ends))
                cursor.drop(taken)
            if len(closed):
                array_ends = inside and text[stop : stop + 1] == b"]"
                yield from self._leftover(text[taken : stop if array_ends else stop + 1])
                cursor.drop(stop + 1 - taken)
                if array_ends:
                    return
                continue
            if len(text) - taken > self._limit:
                raise ConfigurationError(
                    f"a record of {self.origin} is longer than {self._limit:,} bytes", where=f"line {cursor.line}",
                    fix="a bracket may not be closed there; else raise max_record_bytes",
                )  # fmt: skip
            if not cursor.more():
                reason = "the file ends before the array does" if inside else "the file ends within the record"
                yield from self._leftover(text[taken:], reason, always=bool(inside))
                cursor.drop(len(text) - taken)
                return

    def _behind_array(self, *, nested: bool) -> Iterator[Piece]:
        """Behind the array there is the rest of the document, or its end; anything else was not seen as a record."""
        cursor = self._cursor
        mark = cursor.peek()
        if mark == b"" or (nested and mark in {b",", b"}"}):
            return
        while text := cursor.rest():
            while len(text) <= self._limit and cursor.more():
                text = cursor.rest()
            yield Unreadable("text behind the end of the array", text, cursor.line)
            cursor.drop(len(text))
            cursor.more()

    def _leftover(self, text: bytes, reason: str = "not an object", *, always: bool = False) -> Iterator[Piece]:
        """Yield what is left behind the last object, if it is more than space."""
        body = text.strip(_SPACE + b",")
        if body or always:
            line = self._cursor.line + text[: text.find(body[:1]) if body else 0].count(b"\n")
            yield Unreadable(reason, body, line)

    def _descend(self, key: str, parent: str) -> None:
        if self._cursor.peek() != b"{":
            raise ConfigurationError(f"{parent} of {self.origin} is not an object, so has no {key}", where=self.origin)
        seen: list[str] = []
        while self._cursor.peek() in {b"{", b","}:
            self._cursor.drop(1)
            if self._cursor.peek() == b"}":
                break
            name = self._cursor.string()
            if self._cursor.peek() != b":":
                break
            self._cursor.drop(1)
            if name == key:
                return
            seen.append(name)
            self._cursor.skip_value()
        raise NotFoundError(
            f"no {key} in {parent} of {self.origin}", where=self.origin,
            fix=f"`records` may begin with {', '.join(seen[:8])}" if seen else "check `records`",
        )  # fmt: skip
