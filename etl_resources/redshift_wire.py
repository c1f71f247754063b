"""Results of Redshift as columns: the messages of its protocol, cut up by arithmetic over whole blocks of bytes.

A row is a message `D, length (4 bytes), number of cells (2), cell, cell …`, and a cell is its length (4 bytes, -1 for
a null) and its text. Amazon's driver makes a Python object of every cell and keeps all of them until the result is
complete. Here one step per row finds where it begins, and all else is done for all rows of a block at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import UnavailableError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_HEADER = Struct(">BI")
_FIELD = Struct(">IhIhih")
_ROW, _FIELDS, _ERROR, _READY = b"DTEZ"
_CELLS = 7
"""Bytes of a row before its first cell."""
_READ_BYTES = 1 << 18
_BLOCK_BYTES = 1 << 24


Receive = Callable[[int, bool], bytes]
"""Returns up to so many bytes, none at the end of the connection; told if a row of the answer has come already."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a result as the server announces it."""

    name: str
    oid: int
    typmod: int


class ServerError(Exception):
    """What the server reported: `fields` by the letters of the protocol (C: SQLSTATE, M: message, D: detail)."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(fields.get("M", ""))
        self.fields = dict(fields)


@dataclass(frozen=True, slots=True)
class Block:
    """Some whole rows as they came; the cells of row `i` begin at `data[starts[i]]`."""

    data: bytes
    starts: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.starts)

    def columns(self, count: int, where: str) -> list[pa.Array]:
        """Return the cells of each of the `count` columns as `binary`.

        Raises:
            UnavailableError: the bytes are no such rows; the connection is of no use any more.
        """
        import numpy as np

        data = np.frombuffer(self.data, np.uint8)
        ends = self.starts - (_CELLS - 1) + _numbers(data, self.starts - (_CELLS - 1))
        at, found = self.starts, []
        for _ in range(count):
            if (at + 4 > ends).any():
                break
            lengths = _numbers(data, at)
            starts = at + 4
            at = starts + np.maximum(lengths, 0)
            found.append(_texts(self.data, starts, np.minimum(at, len(data)), lengths < 0))
        if len(found) < count or not np.array_equal(at, ends):
            raise UnavailableError("the server sent rows that are not of the form it announced", where=where)
        return found


def _numbers(data: np.ndarray[Any, Any], at: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the signed 32-bit numbers that begin at `at`."""
    import numpy as np

    parts = [data[at + n].astype(np.int64) << (24 - 8 * n) for n in range(4)]
    whole = parts[0] | parts[1] | parts[2] | parts[3]
    return np.where(whole >= 1 << 31, whole - (1 << 32), whole)


def _texts(data: bytes, starts: Any, ends: Any, nulls: Any) -> pa.Array:
    """Return the texts: every second value of an array over the bytes as they are, without what lies between them."""
    import numpy as np
    import pyarrow as pa

    offsets = np.column_stack([starts, ends]).astype(np.int32).ravel()
    between = pa.Array.from_buffers(
        pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )  # fmt: skip
    return between.take(pa.array(np.arange(0, len(offsets), 2), mask=nulls))


def results(receive: Receive, *, rows: int, where: str) -> Iterator[tuple[Field, ...] | Block]:
    """Yield what a statement answers: first its columns, if it has any, then its rows in blocks of at most `rows`.

    Ends where the server is ready for the next statement, and nowhere else.

    Raises:
        ServerError: the statement failed.
        UnavailableError: the connection ended before.
    """
    buffer, at = bytearray(), 0
    starts: list[int] = []
    failure: ServerError | None = None
    begun = False
    while True:
        kind, at = _advance(buffer, at, starts, rows)
        begun = begun or bool(starts)
        if starts and (kind is not None or at >= _BLOCK_BYTES):
            yield _block(buffer, starts, at)
            starts = []
        if kind:
            body, at = _body(buffer, at)
            if kind == _READY:
                break
            if kind == _FIELDS:
                yield _fields(body)
            elif kind == _ERROR:
                failure = ServerError(_report(body))
        if not starts:
            del buffer[:at]
            at = 0
        if kind is None:
            buffer += _more(receive, failure, where, begun=begun)
    if failure is not None:
        raise failure


def _more(receive: Receive, failure: ServerError | None, where: str, *, begun: bool) -> bytes:
    if not (more := receive(_READ_BYTES, begun)):
        # A server that shuts down says so, and closes.
        raise failure or UnavailableError("the server closed the connection too early", where=where)
    return more


def _body(buffer: bytearray, at: int) -> tuple[bytes, int]:
    """Return the body of the message that begins at `at`, and where it ends."""
    end = at + 1 + int(_HEADER.unpack_from(buffer, at)[1])
    return bytes(buffer[at + 5 : end]), end


def _advance(buffer: bytearray, at: int, starts: list[int], rows: int) -> tuple[int | None, int]:
    """Add the starts of the rows from `at` on; return the kind of what follows them, and where it begins.

    The kind is None where not all of it is there, and 0 where there are `rows` of them.
    """
    size, header, room = len(buffer), _HEADER.unpack_from, rows - len(starts)
    while at + 5 <= size and room:
        kind, length = header(buffer, at)
        end = at + 1 + length
        if end > size:
            return None, at
        if kind != _ROW:
            return kind, at
        starts.append(at + _CELLS)
        at, room = end, room - 1
    return None if room else 0, at


def _block(buffer: bytearray, starts: list[int], end: int) -> Block:
    import numpy as np

    return Block(bytes(memoryview(buffer)[:end]), np.array(starts, np.int64))


def _fields(body: bytes) -> tuple[Field, ...]:
    found, at = [], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(0, at)
        _, _, oid, _, typmod, _ = _FIELD.unpack_from(body, end + 1)
        found.append(Field(body[at:end].decode(), oid, typmod))
        at = end + 1 + _FIELD.size
    return tuple(found)


def _report(body: bytes) -> dict[str, str]:
    parts = (part.decode(errors="replace") for part in body.split(b"\0") if part)
    return {part[0]: part[1:] for part in parts}
