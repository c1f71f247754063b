"""Row events of one stream that wait to be decoded together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etl_resources.changes.mysql_events import (
    COMPRESSED_ROWS,
    DELETES,
    HEADER_SIZE,
    SECOND_VERSION,
    UPDATES,
    Event,
    packed,
    uncompressed,
)
from etl_resources.changes.mysql_rows import DELETE, INSERT, UPDATE
from etl_resources.exceptions import EngineError

if TYPE_CHECKING:
    from etl_resources.changes.mysql_shapes import Shape

MOST_BYTES = 1 << 22
MOST_EVENTS = 1 << 16
_LARGEST = 2**31 - 1 - 64


@dataclass(slots=True)
class Transaction:
    """What all events of a transaction have in common."""

    pos: int
    xid: str
    committed: int
    """Microseconds since 1970."""
    origin: str | None = None


@dataclass(slots=True)
class Rows:
    """Row events of one shape whose images hold the same columns, in the order of the log."""

    shape: Shape
    present: tuple[tuple[bool, ...], ...]
    """Of each kind of image that the events hold, which columns: one, or those before and after the change."""
    data: bytearray = field(default_factory=bytearray)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)
    """Those that occur, in order."""
    which: list[int] = field(default_factory=list)
    """Of each event, its place among them."""

    @property
    def full(self) -> bool:
        """There is enough to be decoded."""
        return len(self.data) >= MOST_BYTES or len(self.starts) >= MOST_EVENTS

    def drop(self, transaction: Transaction) -> bool:
        """Forget the events of the last transaction, if it is this one; return whether nothing is left."""
        if self.transactions and self.transactions[-1] is transaction:
            first = self.which.index(len(self.transactions) - 1)
            del self.data[self.starts[first] :], self.starts[first:], self.ends[first:], self.kinds[first:]
            del self.which[first:], self.transactions[-1]
        return not self.starts

    def add(self, kind: int, images: memoryview, transaction: Transaction) -> None:
        """Take in the images of an event."""
        if not self.transactions or self.transactions[-1] is not transaction:
            self.transactions.append(transaction)
        self.which.append(len(self.transactions) - 1)
        self.kinds.append(kind)
        self.starts.append(len(self.data))
        self.data += images
        self.ends.append(len(self.data))


def images(event: Event, columns: int, where: str) -> tuple[int, tuple[tuple[bool, ...], ...], memoryview]:
    """Return what a row event does, which columns its images hold, and the images.

    Raises:
        EngineError: the event is larger than what can be worked on, or of another table than it says.
    """
    data, at, kind = event.data, HEADER_SIZE + 8, event.kind
    if kind in SECOND_VERSION:
        at += int.from_bytes(data[at : at + 2], "little")
    count, at = packed(data, at)
    if count != columns:
        raise EngineError("rows of the binlog have another number of columns than their table", where=where)
    size = (count + 7) // 8
    does = UPDATE if kind in UPDATES else DELETE if kind in DELETES else INSERT
    bitmaps = [data[at + n * size : at + (n + 1) * size] for n in range(2 if does == UPDATE else 1)]
    at += size * len(bitmaps)
    found = memoryview(uncompressed(data[at:])) if kind in COMPRESSED_ROWS else memoryview(data)[at:]
    if len(found) > _LARGEST:
        raise EngineError(f"an event of the binlog has {len(found):,} bytes of rows", where=where)
    if len({*bitmaps}) == 1:
        bitmaps = bitmaps[:1]
    return does, tuple(_bits(bitmap, count) for bitmap in bitmaps), found


_KNOWN: dict[tuple[bytes, int], tuple[bool, ...]] = {}


def _bits(bitmap: bytes, count: int) -> tuple[bool, ...]:
    if (known := _KNOWN.get((bitmap, count))) is None:
        known = tuple(bool(bitmap[n // 8] >> n % 8 & 1) for n in range(count))
        if len(_KNOWN) < 1000:
            _KNOWN[bitmap, count] = known
    return known
