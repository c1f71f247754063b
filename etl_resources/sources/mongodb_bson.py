"""BSON documents taken apart in columns: where the values of every key lie, for many documents at once.

Documents are walked side by side, one element per step, so that the work is done by numpy and not per document. Those
that have no company at a step, because their keys are others or they are longer, are walked to their end one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Index: TypeAlias = NDArray[np.int64]

DOUBLE, TEXT, DOCUMENT, ARRAY, BINARY, UNDEFINED, OBJECT_ID, BOOL, DATE, NULL = range(1, 11)
REGEX, POINTER, CODE, SYMBOL, SCOPED_CODE, INT32, TIMESTAMP, INT64, DECIMAL = range(11, 20)
MIN_KEY, MAX_KEY = 0xFF, 0x7F
_COMPANY = 48
"""Elements of one key from which on it is quicker to take a step with numpy than to walk alone."""
_LONG = 256

_FIXED = {
    DOUBLE: 8, UNDEFINED: 0, OBJECT_ID: 12, BOOL: 1, DATE: 8, NULL: 0, INT32: 4, TIMESTAMP: 8, INT64: 8, DECIMAL: 16,
    MIN_KEY: 0, MAX_KEY: 0,
}  # fmt: skip
# Bytes beside those that the length at the beginning of the value tells.
_PREFIXED = {TEXT: 4, CODE: 4, SYMBOL: 4, DOCUMENT: 0, ARRAY: 0, SCOPED_CODE: 0, BINARY: 5, POINTER: 16}


class CorruptError(ValueError):
    """Bytes that are no BSON."""


class Buffer:
    """The bytes of some documents, one after the other."""

    def __init__(self, data: bytes) -> None:
        import numpy as np

        self.data = data
        self.octets: NDArray[np.uint8] = np.frombuffer(data, np.uint8)

    def take(self, at: Index, width: int) -> NDArray[np.uint8]:
        """Return `width` bytes from each place, as rows of a matrix."""
        import numpy as np

        if len(at) and (int(at.min()) < 0 or int(at.max()) + width > len(self.octets)):
            raise CorruptError("a value that ends behind its document")
        taken: NDArray[np.uint8] = self.octets[at[:, None] + np.arange(width)]
        return taken

    def numbers(self, at: Index, kind: str) -> NDArray[Any]:
        """Return the numbers of a numpy type (`<i4`, `<i8`, `<f8`, `<u8`) that lie at these places."""
        import numpy as np

        return self.take(at, np.dtype(kind).itemsize).view(kind)[:, 0]

    def text(self, at: Index, length: Index) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Return offsets and bytes of runs, as Arrow wants them."""
        import numpy as np

        offsets = np.zeros(len(at) + 1, np.int32)
        np.cumsum(length, out=offsets[1:])
        if offsets[-1] > len(at) * _LONG:
            runs = zip(at.tolist(), length.tolist(), strict=True)
            return offsets, np.frombuffer(b"".join(self.data[start : start + size] for start, size in runs), np.uint8)
        index = np.repeat((at - offsets[:-1]).astype(np.int64), length) + np.arange(offsets[-1])
        return offsets, self.octets[index]

    def sizes(self, kind: int, at: Index) -> Index:
        """Return how many bytes the values of one type take that begin at these places."""
        import numpy as np

        if kind in _FIXED:
            return np.full(len(at), _FIXED[kind], np.int64)
        if kind in _PREFIXED:
            length = self.numbers(at, "<i4").astype(np.int64)
            if (length < 0).any():
                raise CorruptError("a value of negative length")
            return length + _PREFIXED[kind]
        return np.array([self.size(kind, n) for n in at.tolist()], np.int64)

    def size(self, kind: int, at: int) -> int:
        """Return how many bytes the value takes that begins here, of a type without a fixed size."""
        if kind in _PREFIXED:
            length = int.from_bytes(self.data[at : at + 4], "little")
            if length >= 1 << 31:
                raise CorruptError("a value of negative length")
            return length + _PREFIXED[kind]
        if kind == REGEX:
            return self.name_end(self.name_end(at) + 1) + 1 - at
        raise CorruptError(f"no type {kind}")

    def name_end(self, at: int) -> int:
        """Return where the zero behind a name lies."""
        try:
            return self.data.index(b"\0", at)
        except ValueError:
            raise CorruptError("a name without an end") from None


@dataclass
class Values:
    """Values of one type under one key: to which document each belongs, where it begins, and how long it is."""

    buffer: Buffer
    rows: Index
    at: Index
    size: Index
    _fields: dict[str, Field] | None = field(default=None, repr=False)
    _elements: tuple[Index, Field] | None = field(default=None, repr=False)

    def fields(self) -> dict[str, Field]:
        """Return the fields of embedded documents; their rows count these values."""
        if self._fields is None:
            self._fields = fields_of(self.buffer, self.at)
        return self._fields

    def elements(self) -> tuple[Index, Field]:
        """Return how many elements each array has, and all of them, one after the other."""
        if self._elements is None:
            self._elements = _elements_of(self.buffer, self.at)
        return self._elements


Field: TypeAlias = dict[int, Values]
"""The values of one key, by BSON type."""


def document_starts(data: bytes) -> Index:
    """Return where the documents of a stream begin."""
    import numpy as np

    starts, at = [], 0
    while at < len(data):
        starts.append(at)
        at += struct.unpack_from("<i", data, at)[0]
    return np.array(starts, np.int64)


def fields_of(buffer: Buffer, starts: Index) -> dict[str, Field]:
    """Return the fields of documents, in the order of their first appearance.

    Raises:
        CorruptError: they are no BSON, or have a key twice.
    """
    import numpy as np

    found: dict[bytes, dict[int, list[Values]]] = {}
    first: dict[bytes, tuple[int, int]] = {}
    for steps, key, kind, values in _steps(buffer, starts, keyed=True):
        found.setdefault(key, {}).setdefault(kind, []).append(values)
        place = (int(values.rows[0]), int(steps[0]))
        first[key] = min(first.get(key, place), place)
    fields: dict[str, Field] = {}
    for key, by_kind in sorted(found.items(), key=lambda item: first[item[0]]):
        try:
            name = key.decode()
        except UnicodeDecodeError:
            raise CorruptError("a key that is not UTF-8") from None
        fields[name] = {kind: _joined(pieces) for kind, pieces in by_kind.items()}
        rows = np.concatenate([values.rows for values in fields[name].values()])
        if len(np.unique(rows)) < len(rows):
            raise CorruptError(f"a document with the key {name!r} twice")
    return fields


def _elements_of(buffer: Buffer, starts: Index) -> tuple[Index, Field]:
    import numpy as np

    counts = np.zeros(len(starts), np.int64)
    found: dict[int, list[tuple[Index, Values]]] = {}
    for steps, _, kind, values in _steps(buffer, starts, keyed=False):
        np.maximum.at(counts, values.rows, steps + 1)
        found.setdefault(kind, []).append((steps, values))
    first = np.cumsum(counts) - counts
    field_: Field = {}
    for kind, pieces in found.items():
        placed = [Values(buffer, first[v.rows] + steps, v.at, v.size) for steps, v in pieces]
        field_[kind] = _joined(placed)
    return counts, field_


def _joined(pieces: list[Values]) -> Values:
    import numpy as np

    if len(pieces) == 1:
        return pieces[0]
    rows, at, size = (np.concatenate([getattr(p, name) for p in pieces]) for name in ("rows", "at", "size"))
    order = np.argsort(rows, kind="stable")
    return Values(pieces[0].buffer, rows[order], at[order], size[order])


Step: TypeAlias = tuple["Index", bytes, int, Values]
"""Numbers of the elements within their documents, their key and type, and where they are."""


def _steps(buffer: Buffer, starts: Index, *, keyed: bool) -> Iterator[Step]:
    """Yield the first elements of all documents, then the second ones …; where keys do not count, they are empty."""
    import numpy as np

    octets = buffer.octets
    rows = np.arange(len(starts), dtype=np.int64)
    ends = starts + buffer.numbers(starts, "<i4") - 1
    if len(ends) and int(ends.max()) >= len(octets):
        raise CorruptError("a document that ends behind the others")
    alone = _Alone(buffer, keyed=keyed)
    at, step = starts + 4, 0
    while len(rows):
        if (at > ends[rows]).any():
            raise CorruptError("an element that ends behind its document")
        kinds = octets[at]
        going = kinds != 0
        if (at[~going] != ends[rows[~going]]).any():
            raise CorruptError("a document that ends before its length")
        rows, at, kinds = rows[going], at[going], kinds[going]
        following = np.zeros(len(at), np.int64)
        for key, same in _by_key(buffer, at):
            for kind in np.unique(kinds[same]).tolist():
                chosen = same[kinds[same] == kind]
                value_at = at[chosen] + len(key) + 2
                size = buffer.sizes(kind, value_at)
                following[chosen] = value_at + size
                steps = np.full(len(chosen), step, np.int64)
                yield steps, key if keyed else b"", kind, Values(buffer, rows[chosen], value_at, size)
        left = following == 0
        for row, start in zip(rows[left].tolist(), at[left].tolist(), strict=True):
            alone.walk(row, start, int(ends[row]), step)
        rows, at, step = rows[~left], following[~left], step + 1
    yield from alone.steps()


def _by_key(buffer: Buffer, at: Index) -> Iterator[tuple[bytes, Index]]:
    """Yield each key with the elements that have it, but for those that few have; `at` is where the elements begin."""
    import numpy as np

    left = np.arange(len(at), dtype=np.int64)
    last = len(buffer.octets) - 1
    for _ in range(len(at) // _COMPANY):
        if len(left) < _COMPANY:
            return
        start = int(at[left[0]]) + 1
        key = buffer.data[start : buffer.name_end(start)]
        wanted = np.frombuffer(key + b"\0", np.uint8)
        index = np.minimum(at[left][:, None] + np.arange(1, len(wanted) + 1), last)
        same = (buffer.octets[index] == wanted).all(axis=1)
        yield key, left[same]
        left = left[~same]


class _Alone:
    """Documents that are walked one by one."""

    def __init__(self, buffer: Buffer, *, keyed: bool) -> None:
        self._buffer, self._keyed = buffer, keyed
        self._found: dict[tuple[bytes, int], list[tuple[int, int, int, int]]] = {}

    def walk(self, row: int, at: int, end: int, step: int) -> None:
        """Take the elements from `at` on, of which the first is element number `step` of document `row`."""
        data, buffer = self._buffer.data, self._buffer
        while at < end:
            kind, stop = data[at], buffer.name_end(at + 1)
            key = data[at + 1 : stop] if self._keyed else b""
            size = _FIXED.get(kind)
            if size is None:
                size = buffer.size(kind, stop + 1)
            self._found.setdefault((key, kind), []).append((step, row, stop + 1, size))
            at, step = stop + 1 + size, step + 1
        if at != end or data[end]:
            raise CorruptError("an element that ends behind its document")

    def steps(self) -> Iterator[Step]:
        """Yield what was found."""
        import numpy as np

        for (key, kind), elements in self._found.items():
            steps, rows, at, size = np.array(elements, np.int64).T
            order = np.argsort(rows, kind="stable")
            yield steps[order], key, kind, Values(self._buffer, rows[order], at[order], size[order])
