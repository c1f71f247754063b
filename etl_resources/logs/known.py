"""How far each log file has been read, as a position; and which file is the one that was read, under whatever name.

A file that was read is known by its inode, as long as it still holds what was read: its beginning, and the last bytes
before the place where reading stopped. Where the inode is another one (copied and truncated, compressed, moved to
another disk), it is known by a checksum of all that was read.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import IO, Any

from etl_resources.exceptions import UnavailableError
from etl_resources.files.compression import Limits
from etl_resources.files.storage import Storage
from etl_resources.logs.looking import HEAD_BYTES, Seen, opened

TAIL_BYTES = 256
_BLOCK = 1 << 20
_STEP = 16 << 10
"""Of a file that is cut off, nothing can be had of the step in which it ends."""
_FORGET_AFTER = 30 * 86_400
"""Seconds for which a file that is not found any more is remembered; it may come back under another name."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a file has been read: `offset` bytes of text, `line` lines, and what it held up to there."""

    path: str
    id: str
    offset: int = 0
    line: int = 0
    checksum: int = 0
    head: str = ""
    """Hash of the first bytes, at most `HEAD_BYTES` and no more than were read."""
    tail: str = ""
    """Hash of the last bytes before `offset`, at most `TAIL_BYTES`."""
    size: int = 0
    modified_ns: int = 0
    seen: int = 0
    """When it was last found, in seconds since 1970."""

    def unchanged(self, seen: Seen) -> bool:
        """Tell whether nothing was written to the file since it was read."""
        return (self.id, self.size, self.modified_ns) == (seen.id, seen.size, seen.modified_ns)


def digest(data: bytes) -> str:
    """Return the hash of a few bytes as it stands in a position."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


@dataclass
class Marks:
    """The marks of all files, those that are not found at the moment included."""

    all: list[Mark] = field(default_factory=list)

    @classmethod
    def load(cls, position: Mapping[str, Any] | None) -> Marks:
        """Return what `dump` wrote."""
        return cls([Mark(*values) for values in (position or {}).get("files", [])])

    def dump(self) -> dict[str, Any]:
        """Return them as part of a position."""
        return {"files": [list(asdict(mark).values()) for mark in self.all]}

    def put(self, old: Mark | None, new: Mark) -> Mark:
        """Write a mark in the place of another, or as one more."""
        if old is not None and old in self.all:
            self.all[self.all.index(old)] = new
        else:
            self.all.append(new)
        return new


def recognise(files: Iterable[Seen], marks: Marks, storage: Storage, limits: Limits) -> dict[str, Mark]:
    """Return the mark of every file that was read before, by id; what is not found any more is forgotten in time."""
    now = int(time.time())
    found: dict[str, Mark] = {}
    by_id = {mark.id: mark for mark in marks.all}
    strangers = []
    for seen in files:
        mark = by_id.get(seen.id)
        if mark is not None and (mark.unchanged(seen) or still_holds(seen, mark, storage, limits)):
            found[seen.id] = marks.put(mark, replace(mark, path=seen.path, seen=now))
        elif mark is not None:
            marks.put(mark, replace(mark, id=""))  # truncated, or its inode was given to another file
            strangers.append(seen)
        else:
            strangers.append(seen)
    for seen in strangers:
        lost = (m for m in marks.all if m.id not in found)
        mark = next((m for m in lost if holds(seen, m, storage, limits)), None)
        if mark is not None:
            found[seen.id] = marks.put(mark, replace(mark, path=seen.path, id=seen.id, seen=now))
    marks.all = [m for m in marks.all if m.id in found or now - m.seen < _FORGET_AFTER]
    return found


def still_holds(seen: Seen, mark: Mark, storage: Storage, limits: Limits) -> bool:
    """Tell whether the file with the inode of the mark still begins, and stood at the mark, as when it was read."""
    if seen.compressed:
        return holds(seen, mark, storage, limits)
    if seen.size < mark.offset:
        return False
    with opened(seen, storage, limits) as stream:
        if stream is None:
            return False
        if digest(stream.read(min(mark.offset, HEAD_BYTES))) != mark.head:
            return False
        stream.seek(max(0, mark.offset - TAIL_BYTES))
        return digest(stream.read(min(mark.offset, TAIL_BYTES))) == mark.tail


def holds(seen: Seen, mark: Mark, storage: Storage, limits: Limits) -> bool:
    """Tell whether a file begins with all that was read of another one."""
    if not seen.compressed and seen.size < mark.offset:
        return False
    with opened(seen, storage, limits) as stream:
        if stream is None:
            return False
        try:
            head = read_up_to(stream, min(mark.offset, HEAD_BYTES))
            return digest(head) == mark.head and _checksum(stream, head, mark.offset) == mark.checksum
        except UnavailableError:
            return False  # cut off, as a file is that is still being compressed


def _checksum(stream: IO[bytes], head: bytes, size: int) -> int | None:
    """Return the checksum of the first `size` bytes, `head` included; None: there are not so many."""
    checksum, left = zlib.crc32(head), size - len(head)
    while left:
        block = stream.read(min(left, _BLOCK))
        if not block:
            return None
        checksum, left = zlib.crc32(block, checksum), left - len(block)
    return checksum


def is_being_copied(seen: Seen, origin: Seen, storage: Storage, limits: Limits) -> bool:
    """Tell whether all there is of a file is the beginning of another: a copy, complete or not."""
    same = False
    with opened(seen, storage, limits) as copy, opened(origin, storage, limits) as original:
        while copy is not None and original is not None:
            try:
                block = copy.read(_STEP)
            except UnavailableError:
                # Cut off. It is a copy as far as it goes; if it goes nowhere yet, its name has to say so.
                return same or (seen.compressed and seen.path.rpartition(".")[0] == origin.path)
            if not block:
                return True
            if read_up_to(original, len(block)) != block:
                return False
            same = True
    return False


def read_up_to(stream: IO[bytes], size: int) -> bytes:
    """Return the next `size` bytes; fewer only at the end."""
    data = b""
    while len(data) < size and (block := stream.read(size - len(data))):
        data += block
    return data
