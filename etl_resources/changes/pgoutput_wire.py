"""The messages of pgoutput as one buffer: what can be read at many places of it at once, and its rare messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.exceptions import EngineError
from etl_resources.octets import pieces, windows

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Places = NDArray[np.int64]
    """Byte positions in the buffer, or indices of messages."""

BEGIN, COMMIT, INSERT, UPDATE, DELETE, TRUNCATE = b"BCIUDT"
RELATION, TYPE, ORIGIN, LOGICAL = b"RYOM"
KEY, OLD, NEW = b"KON"
NULL, UNCHANGED, TEXT = b"nut"
KNOWN = bytes([BEGIN, COMMIT, INSERT, UPDATE, DELETE, TRUNCATE, RELATION, TYPE, ORIGIN, LOGICAL])


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """A column as an R message has it; `identity`: part of the replica identity."""

    name: str
    type_oid: int
    typmod: int
    identity: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A version of a table, as an R message has it; `identity` is pg_class.relreplident: d, n, f or i."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]


class Wire:
    """Some messages end to end in a buffer: message i is `octets[starts[i]:ends[i]]`, and `tags[i]` its first byte.

    `int16`, `int32` and `int64` are the big-endian numbers that begin at each place.
    """

    def __init__(self, messages: pa.Array) -> None:
        import numpy as np
        import pyarrow as pa

        wide = pa.types.is_large_binary(messages.type)
        _, offsets, self.data = messages.buffers()
        every = np.frombuffer(offsets, np.int64 if wide else np.int32)
        bounds: Places = every[messages.offset : messages.offset + len(messages) + 1].astype(np.int64)
        self.starts, self.ends = bounds[:-1], bounds[1:]
        self.octets: NDArray[np.uint8] = np.frombuffer(self.data, np.uint8)
        self.int16, self.int32, self.int64 = (windows(self.data, f">i{size}") for size in (2, 4, 8))
        self.tags = self.octets[self.starts]

    def tagged(self, tag: int) -> Places:
        """Return the indices of the messages with this tag."""
        import numpy as np

        return np.flatnonzero(self.tags == tag)

    def message(self, index: int) -> bytes:
        """Return one message."""
        return self.octets[self.starts[index] : self.ends[index]].tobytes()

    def texts(self, starts: Places, ends: Places, given: NDArray[np.bool_]) -> pa.Array:
        """Return `octets[starts[i]:ends[i]]` as strings, null where not given.

        The places must go up; what lies between them is skipped.

        Raises:
            EngineError: they are no UTF-8.
        """
        import pyarrow as pa

        try:
            return pieces(self.data, starts, ends, ~given).cast(pa.string())
        except pa.ArrowInvalid as error:
            raise EngineError("the change log was not understood: a text is no UTF-8") from error


def relation(message: bytes) -> Relation:
    """Return what an R message says."""
    schema, _, rest = message[5:].partition(b"\0")
    name, _, rest = rest.partition(b"\0")
    identity, count, rest = chr(rest[0]), int.from_bytes(rest[1:3]), rest[3:]
    columns = []
    for _ in range(count):
        flags, (column, _, rest) = rest[0], rest[1:].partition(b"\0")
        oid, typmod = int.from_bytes(rest[:4]), int.from_bytes(rest[4:8], signed=True)
        columns.append(RelationColumn(column.decode(), oid, typmod, bool(flags & 1)))
        rest = rest[8:]
    own = schema.decode() or "pg_catalog"
    return Relation(int.from_bytes(message[1:5]), own, name.decode(), identity, tuple(columns))


def truncated(message: bytes) -> list[int]:
    """Return the oids of the relations that a T message empties."""
    count = int.from_bytes(message[1:5])
    return [int.from_bytes(message[6 + 4 * n : 10 + 4 * n]) for n in range(count)]
