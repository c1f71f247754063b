"""Which files have been loaded, as a position: by path, size, modification time and content."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from etl_resources.files.storage import FileInfo, Storage

_XXH3 = "x"
"""Marks a hash as made by XXH3, which takes a tenth of the time; positions of older versions have SHA-256, cut short.
It tells a file that was only touched from one written anew; who can write it needs no collision to hide rows."""
_OLD_DIGITS = 16
_BLOCK = 1 << 20


@dataclass
class KnownFiles:
    """Loaded files: path -> [size, modified (ns), content hash]."""

    files: dict[str, list[Any]] = field(default_factory=dict)
    ordered: bool = False
    """Only the file of the last name is known; all that sort before it have been loaded."""

    @classmethod
    def load(cls, position: Mapping[str, Any] | None) -> KnownFiles:
        """Return what `dump` wrote."""
        if not position:
            return cls()
        root = position["root"]
        files = {root + name: list(entry) for name, entry in position["files"].items()}
        return cls(files, ordered=position.get("ordered", False))

    def dump(self) -> dict[str, Any]:
        """Return it as part of a position, the folder that all paths have in common written once."""
        kept = self.files
        if self.ordered and kept:
            last = max(kept)
            kept = {last: kept[last]}
        ends = (min(kept, default=""), max(kept, default=""))
        root = os.path.commonprefix(ends).rpartition("/")[0]  # noqa: RUF071 - cut at a folder, and right for URIs, too
        root += "/" if root else ""
        dumped: dict[str, Any] = {"root": root, "files": {path[len(root) :]: entry for path, entry in kept.items()}}
        return dumped | ({"ordered": True} if self.ordered else {})

    def is_loaded(self, info: FileInfo, storage: Storage) -> bool:
        """Tell whether the content of a file has been loaded; one that was only touched is remembered as it is now."""
        entry = self.files.get(info.path)
        if entry is None:
            return False
        size, modified_ns, known = entry
        if info.etag is not None:
            return bool(known.strip('"') == info.etag)  # older positions have it in quotes
        if (size, modified_ns) == (info.size, info.modified_ns):
            return True
        if size != info.size or known != content_hash(info.path, storage, old=not known.startswith(_XXH3)):
            return False
        self.add(info, known)
        return True

    def add(self, info: FileInfo, content: str) -> None:
        """Remember a file that has been read to its end; of an object store the entity tag stands for the content."""
        self.files[info.path] = [info.size, info.modified_ns, info.etag or content]


def content_hash(path: str, storage: Storage, *, old: bool = False) -> str:
    """Return the hash of a file, read to its end; `old`: as older versions computed it."""
    with storage.open(path) as stream:
        return HashingReader(stream, old=old).finish()


class HashingReader(io.RawIOBase):
    """Passes a file through and computes its hash on the way."""

    def __init__(self, stream: IO[bytes], *, old: bool = False) -> None:
        import xxhash

        self._stream, self._old, self.size = stream, old, 0
        self._hash: Any = hashlib.sha256() if old else xxhash.xxh3_64()

    def readable(self) -> bool:  # noqa: D102
        return True

    def read(self, size: int = -1) -> bytes:  # noqa: D102
        block = bytes(self._stream.read(size))
        self._hash.update(block)
        self.size += len(block)
        return block

    def finish(self) -> str:
        """Read what is left and return the hash."""
        while self.read(_BLOCK):
            pass
        return str(self._hash.hexdigest()[:_OLD_DIGITS]) if self._old else _XXH3 + str(self._hash.hexdigest())
