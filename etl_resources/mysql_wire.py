"""Result sets of MySQL as columns: the rows of the text protocol, cut up by arithmetic over whole blocks of bytes.

A row on the wire is `length (3 bytes), number (1), cell, cell …`, and a cell is its length and its text; 0xFB is null.
Drivers turn every cell into a Python object. Here one step per row finds where it begins, and all else is done for all
rows of a block at once: the text of a column becomes an Arrow array without an object per cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import UnavailableError
from etl_resources.octets import pieces

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_HEADER = Struct("<I")
_LONGEST_PACKET = 0xFFFFFF
_EOF, _ERROR = 0xFE, 0xFF
_READ_BYTES = 1 << 18
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Block:
    """Some whole rows as they came: row `i` is `data[starts[i]:ends[i]]`."""

    data: bytes
    starts: np.ndarray[Any, Any]
    ends: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self) -> pa.Array:
        """Return the bytes of every row: equal for equal rows, and only for them."""
        return pieces(self.data, self.starts, self.ends)

    def columns(self, count: int, where: str) -> list[pa.Array]:
        """Return the cells of each of the `count` columns as `binary`.

        Raises:
            UnavailableError: the bytes are no such rows; the connection is of no use any more.
        """
        import numpy as np

        data = np.frombuffer(self.data, np.uint8)
        found = []
        at = self.starts
        for _ in range(count):
            starts, lengths, nulls = _cells(data, at)
            at = starts + lengths
            if (at > self.ends).any():
                break
            found.append(pieces(self.data, starts, at, nulls))
        if len(found) < count or not np.array_equal(at, self.ends):
            raise UnavailableError("the server sent rows that are not of the form it announced", where=where)
        return found


def _cells(data: np.ndarray[Any, Any], at: np.ndarray[Any, Any]) -> tuple[Any, Any, Any]:
    """Return start and length of the text of the cells that begin at `at`, and which are null."""
    import numpy as np

    # A row that is shorter than announced would be looked for behind the end: the caller notices.
    last = len(data) - 1
    first = data[np.minimum(at, last)]
    starts, lengths, nulls = at + 1, first.astype(np.int64), first == 0xFB
    if first.max() >= 0xFB:
        lengths[nulls] = 0
        for mark, size in ((0xFC, 2), (0xFD, 3), (0xFE, 8)):
            if (longer := first == mark).any():
                begin = at[longer]
                lengths[longer] = sum(
                    data[np.minimum(begin + 1 + n, last)].astype(np.int64) << 8 * n for n in range(size)
                )
                starts[longer] += size
    return starts, lengths, nulls


def blocks(receive: Callable[[int], bytes], fail: Callable[[bytes], None], *, rows: int, where: str) -> Iterator[Block]:
    """Yield the rows of a result set in blocks of at most `rows`, as they come in.

    `receive(n)` returns up to n bytes, none at the end of the connection; `fail` raises the error of an error packet.

    Raises:
        UnavailableError: the connection ended before the server said that the result is complete.
    """
    buffer = bytearray()
    at, done = 0, False
    starts: list[int] = []
    while not done:
        at, done = _advance(buffer, at, starts, rows, fail)
        if done or len(starts) >= rows or at >= _BLOCK_BYTES:
            if starts:
                yield _block(buffer, starts, at)
            del buffer[:at]
            at, starts = 0, []
        elif more := receive(_READ_BYTES):
            buffer += more
        else:
            raise UnavailableError("the server closed the connection before the result was complete", where=where)


def _advance(
    buffer: bytearray, at: int, starts: list[int], rows: int, fail: Callable[[bytes], None]
) -> tuple[int, bool]:
    """Add the starts of the whole rows that begin at `at` or later; return where to go on, and if the result ended."""
    size, header, room = len(buffer), _HEADER.unpack_from, rows - len(starts)
    while at + 4 < size and room:
        length = header(buffer, at)[0] & 0xFFFFFF
        end = at + 4 + length
        if length == _LONGEST_PACKET:
            if (joined := _join(buffer, at)) is None:
                return at, False
            end, size = joined, len(buffer)
        elif end > size:
            return at, False
        kind = buffer[at + 4]
        if kind >= _EOF:
            if kind == _ERROR:
                fail(bytes(buffer[at + 4 : end]))
            if length < 9:
                return at, True
        starts.append(at + 4)
        at, room = end, room - 1
    return at, False


def _join(buffer: bytearray, at: int) -> int | None:
    """Take out the headers inside of a row that came in several packets; return its end, None: not all is there."""
    ends, end, length = [], at, _LONGEST_PACKET
    while length == _LONGEST_PACKET:
        if end + 4 > len(buffer):
            return None
        length = _HEADER.unpack_from(buffer, end)[0] & 0xFFFFFF
        end += 4 + length
        ends.append(end)
    if end > len(buffer):
        return None
    for inner in reversed(ends[:-1]):
        del buffer[inner : inner + 4]
    return end - 4 * (len(ends) - 1)


def _block(buffer: bytearray, starts: list[int], end: int) -> Block:
    import numpy as np

    begin = np.array(starts, np.int64)
    return Block(bytes(memoryview(buffer)[:end]), begin, np.append(begin[1:] - 4, end))
