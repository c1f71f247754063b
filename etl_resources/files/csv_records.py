"""Where a CSV record begins and ends, found without parsing it: the independent side of the count of rows.

Quotes follow RFC 4180: a field is quoted when it starts with a quote; a quote inside an unquoted field is text. A line
that breaks these rules is set aside by itself, and reading goes on with the next line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from etl_resources.files.chunks import Unreadable
from etl_resources.octets import positions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from etl_resources.octets import Positions

NEWLINE = 10
RETURN = 13


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written; every mark is one ASCII character. No `escape`: a quote is doubled."""

    delimiter: str = ","
    quote: str | None = '"'
    escape: str | None = None
    blank_lines_count: bool = False
    """A blank line is a record: true of a file of one column only."""

    def marks_of(self, data: bytes) -> tuple[str | None, str | None]:
        """Return the quote and the escape character, each only if it is in the data; without them, a line is a record.

        To search for one byte is far quicker than to compare all.
        """
        quote, escape = (mark if mark and mark.encode() in data else None for mark in (self.quote, self.escape))
        return quote, escape

    @cached_property
    def record(self) -> re.Pattern[bytes]:
        """Matches one whole record and the end of its line."""
        return re.compile(rb"%s(?:%s%s)*+\r?(?:\n|\Z)" % (self._field, self._delimiter, self._field), re.DOTALL)

    @cached_property
    def open_record(self) -> re.Pattern[bytes]:
        """Matches a record that ends inside a quoted field, or right behind one."""
        if not self.quote:
            return re.compile(rb"(?!)")
        return re.compile(
            rb"(?:%s%s)*+%s%s(?:%s\r?)?\Z"
            % (self._field, self._delimiter, self._quote, self._quoted_text, self._quote),
            re.DOTALL,
        )

    @property
    def _delimiter(self) -> bytes:
        return re.escape(self.delimiter.encode())

    @property
    def _quote(self) -> bytes:
        return re.escape((self.quote or "").encode())

    @property
    def _quoted_text(self) -> bytes:
        if self.escape:
            return rb"(?:[^%s%s]++|%s.)*+" % (
                self._quote,
                re.escape(self.escape.encode()),
                re.escape(self.escape.encode()),
            )
        return rb"(?:[^%s]++|%s%s)*+" % (self._quote, self._quote, self._quote)

    @property
    def _field(self) -> bytes:
        bare = rb"[^%s\n]*+" % self._delimiter
        if self.escape:
            escape = re.escape(self.escape.encode())
            bare = rb"(?:[^%s\n%s]++|%s.)*+" % (self._delimiter, escape, escape)
        if not self.quote:
            return bare
        q = self._quote
        return rb"(?:%s%s%s(?=%s|\r?\n|\r?\Z)|(?!%s)%s)" % (q, self._quoted_text, q, self._delimiter, q, bare)


@dataclass(slots=True)
class Block:
    """Whole, well quoted records in one piece; `line` is the number of the first."""

    data: bytes
    line: int
    records: int


Piece = Block | Unreadable


def record_pieces(
    blocks: Iterable[bytes], dialect: Dialect, *, first_line: int, max_record_bytes: int
) -> Iterator[Piece]:
    """Yield a stream of bytes as whole records and unreadable lines, in order."""
    carry, line, skipping = b"", first_line, False
    for block in blocks:
        data = carry + block
        if skipping:
            newline = data.find(b"\n") + 1
            data, skipping, line = (data[newline:] if newline else b""), not newline, line + bool(newline)
        taken = 0
        for piece, size, lines in cut(data, dialect, line=line, final=False, max_record_bytes=max_record_bytes):
            taken, line = taken + size, line + lines
            skipping = isinstance(piece, Unreadable) and data[taken - 1] != NEWLINE
            yield piece
        carry = data[taken:]
    for piece, _, _ in cut(carry, dialect, line=line, final=True, max_record_bytes=max_record_bytes):
        yield piece


def cut(
    data: bytes, dialect: Dialect, *, line: int, final: bool, max_record_bytes: int
) -> Iterator[tuple[Piece, int, int]]:
    """Yield the pieces of `data`, each with the bytes and the line ends that it covers; what is left over is not
    complete yet."""
    import numpy as np

    ends, doubtful = record_ends(data, dialect)
    if len(too_long := (np.diff(ends, prepend=-1) > max_record_bytes).nonzero()[0]):
        ends, doubtful = ends[: too_long[0]], True
    taken = 0
    if len(ends):
        taken = int(ends[-1]) + 1
        lines = len(ends) if dialect.marks_of(data) == (None, None) else count_lines(data, 0, taken)
        yield Block(data[:taken], line, count_records(data, ends, dialect)), taken, lines
        line += lines
    if doubtful or final or len(data) - taken > max_record_bytes:
        for piece, size in _walk(data, taken, dialect, line=line, final=final, max_record_bytes=max_record_bytes):
            yield piece, size, count_lines(data, taken, taken + size)
            taken += size


def count_lines(data: bytes, start: int, stop: int) -> int:
    """Return how many line ends there are from `start` to before `stop`."""
    import numpy as np

    # Several times as fast as bytes.count.
    return int(np.count_nonzero(np.frombuffer(data, np.uint8)[start:stop] == NEWLINE))


def record_ends(data: bytes, dialect: Dialect) -> tuple[Positions, bool]:
    """Return the positions of the line ends that end a record, up to the first that is in doubt; and whether one is."""
    import numpy as np

    octets = np.frombuffer(data, np.uint8)
    quote, escape = dialect.marks_of(data)
    ends = positions(data, NEWLINE)
    quotes = positions(data, ord(quote)) if quote else ends[:0]
    if escape:
        escaped = escaped_positions(octets, ord(escape))
        ends, quotes = (np.setdiff1d(found, escaped, assume_unique=True) for found in (ends, quotes))
    if not len(quotes):
        return ends, False
    in_doubt = _first_misplaced(octets, quotes, dialect)
    if in_doubt is not None:
        ends = ends[: np.searchsorted(ends, in_doubt)]
    return ends[~within_quotes(quotes, ends)], in_doubt is not None


def count_records(data: bytes, ends: Positions, dialect: Dialect) -> int:
    """Return how many records there are between the ends; blank lines are none, unless the file has one column."""
    import numpy as np

    if dialect.blank_lines_count or not len(ends):
        return len(ends)
    length = np.diff(ends, prepend=-1) - 1
    if length.min() > 1:
        return len(ends)
    octets = np.frombuffer(data, np.uint8)
    blank = (length == 0) | ((length == 1) & (octets[ends - 1] == RETURN))
    return len(ends) - int(np.count_nonzero(blank))


def escaped_positions(octets: NDArray[np.uint8], escape: int) -> Positions:
    """Return the positions that stand behind an odd number of escape characters."""
    import numpy as np

    marks = np.flatnonzero(octets == escape)
    gaps = np.flatnonzero(np.diff(marks) != 1)
    first, last = (
        marks[np.concatenate([[0], gaps + 1])[: len(marks)]],
        marks[np.concatenate([gaps, [-1]])[: len(marks)]],
    )
    behind: Positions = last[(last - first) % 2 == 0] + 1
    return behind[behind < len(octets)]


def within_quotes(quotes: Positions, at: Positions) -> NDArray[np.bool_]:
    """Tell which positions have an odd number of quotes before them."""
    import numpy as np

    # To search for what is sorted itself is far quicker than to count along every byte.
    odd: NDArray[np.bool_] = np.searchsorted(quotes, at) % 2 == 1
    return odd


def _first_misplaced(octets: NDArray[np.uint8], quotes: Positions, dialect: Dialect) -> int | None:
    """Return the first quote that neither opens a field at its start, nor closes one at its end, nor is doubled."""
    import numpy as np

    last = len(octets) - 1
    opening, closing = quotes[::2], quotes[1::2]
    before, after = octets[opening - 1], octets[np.minimum(closing + 1, last)]
    opens = (before == ord(dialect.delimiter)) | (before == NEWLINE) | (opening == 0)
    closes = (after == ord(dialect.delimiter)) | (after == NEWLINE) | (after == RETURN) | (closing == last)
    if not dialect.escape and dialect.quote:
        opens |= before == ord(dialect.quote)
        closes |= after == ord(dialect.quote)
    wrong = [int(found[(~fine).argmax()]) for found, fine in ((opening, opens), (closing, closes)) if not fine.all()]
    return min(wrong, default=None)


def _walk(
    data: bytes, start: int, dialect: Dialect, *, line: int, final: bool, max_record_bytes: int
) -> Iterator[tuple[Piece, int]]:
    """Go record by record where quotes are in doubt. Exact and slow, and only for the rest of one block."""
    good = at = start
    records = 0
    while at < len(data):
        found = dialect.record.match(data, at)
        if found and (final or data[found.end() - 1] == NEWLINE) and found.end() - at <= max_record_bytes:
            blank = not found.group().strip(b"\r\n")
            records, at = records + (not blank or dialect.blank_lines_count), found.end()
            continue
        if not final and len(data) - at <= max_record_bytes and (found or dialect.open_record.match(data, at)):
            break
        newline = data.find(b"\n", at)
        if newline < 0 and not final and len(data) - at <= max_record_bytes:
            break
        if at > good:
            yield Block(data[good:at], line, records), at - good
            line += data.count(b"\n", good, at)
        stop = newline + 1 if newline >= 0 else len(data)
        yield Unreadable(_reason(stop - at, max_record_bytes), data[at:stop].rstrip(b"\r\n"), line), stop - at
        line += newline >= 0
        good, at, records = stop, stop, 0
    if at > good:
        yield Block(data[good:at], line, records), at - good


def _reason(size: int, max_record_bytes: int) -> str:
    if size > max_record_bytes:
        return f"record too long: more than {max_record_bytes:,} bytes"
    return "bad quote: a quoted field is not closed, or text follows its closing quote"
