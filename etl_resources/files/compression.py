"""What is inside a file: plain, gzip, Zstandard, or the members of a zip archive; within limits, and never on disk."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from etl_resources.exceptions import ConfigurationError, NotFoundError, UnavailableError
from etl_resources.files.storage import glob_pattern

if TYPE_CHECKING:
    import pyarrow as pa

_STREAMED = {".gz": "gzip", ".zst": "zstd"}
_MAX_MEMBERS = 10_000
_ALWAYS_ALLOWED = 64 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a compressed file may expand before it is refused as a decompression bomb."""

    expanded_bytes: int = 1 << 40
    ratio: int = 250

    def check(self, expanded: int, packed: int, origin: str) -> None:
        """Raise ConfigurationError if `packed` bytes have become suspiciously many."""
        if expanded > self.expanded_bytes or expanded > max(_ALWAYS_ALLOWED, packed * self.ratio):
            raise ConfigurationError(
                f"{origin} expands to more than {expanded:,} bytes from {packed:,}: refused as a decompression bomb",
                where=origin, fix="raise max_expansion or max_expanded_bytes if the file can be trusted",
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Content:
    """A stream of decompressed bytes; `origin` is `path`, or `path!member`, `name` tells the format."""

    origin: str
    name: str
    stream: IO[bytes]


class _Limited(io.RawIOBase):
    """Counts what a decompressor gives, and stops a bomb where it is rather than where it says it is."""

    def __init__(self, stream: Any, packed: int, origin: str, limits: Limits) -> None:
        self._stream, self._packed, self._origin, self._limits, self._expanded = stream, packed, origin, limits, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with _decompression_errors(self._origin):
            block = cast("bytes", self._stream.read(size if size >= 0 else None))
        self._expanded += len(block)
        self._limits.check(self._expanded, self._packed, self._origin)
        return block


def contents(stream: IO[bytes], origin: str, size: int, *, members: str | None, limits: Limits) -> Iterator[Content]:
    """Yield the decompressed contents of one file, by its suffix; of a zip archive those members that match the glob.

    Raises:
        ConfigurationError: a decompression bomb, an encrypted member, or a name that leads out of the archive.
        NotFoundError: no member matches.
        UnavailableError: the file ends in the middle, or its checksum is wrong.
    """
    if origin.endswith(".zip"):
        yield from _zip_members(stream, origin, size, members, limits)
    else:
        yield _decompressed(stream, origin, origin, size, limits)


def _decompressed(stream: IO[bytes], origin: str, name: str, size: int, limits: Limits) -> Content:
    for suffix, codec in _STREAMED.items():
        if name.endswith(suffix):
            import pyarrow as pa

            expanded: pa.CompressedInputStream = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), codec)
            limited = _Limited(expanded, size, origin, limits)
            return Content(origin, name.removesuffix(suffix), cast("IO[bytes]", limited))
    return Content(origin, name, stream)


def _zip_members(stream: IO[bytes], origin: str, size: int, members: str | None, limits: Limits) -> Iterator[Content]:
    with _decompression_errors(origin), zipfile.ZipFile(stream) as archive:
        entries = [e for e in archive.infolist() if not e.is_dir()]
        _check_archive(entries, origin, size, limits)
        wanted = [e for e in entries if _is_wanted(e.filename, members)]
        if not wanted:
            names = ", ".join(e.filename for e in entries[:5]) or "nothing"
            raise NotFoundError(
                f"no member of {origin} matches {members or '*'}", where=origin, fix=f"it holds {names}"
            )
        for entry in wanted:
            inner = f"{origin}!{entry.filename}"
            if entry.filename.endswith(".zip"):
                raise ConfigurationError(f"{inner} is an archive in an archive", where=inner, fix="unpack it first")
            with archive.open(entry) as member:
                guarded = cast("IO[bytes]", _Limited(member, max(entry.compress_size, 1), inner, limits))
                yield _decompressed(guarded, inner, entry.filename, entry.file_size, limits)


def _is_wanted(name: str, members: str | None) -> bool:
    if members is None:
        return not re.search(r"(^|/)(\.|__MACOSX/)", name)
    return re.fullmatch(glob_pattern(members), name) is not None


def _check_archive(entries: list[zipfile.ZipInfo], origin: str, size: int, limits: Limits) -> None:
    if len(entries) > _MAX_MEMBERS:
        raise ConfigurationError(f"{origin} has {len(entries):,} members, more than {_MAX_MEMBERS:,}", where=origin)
    limits.check(sum(e.file_size for e in entries), size, origin)
    for entry in entries:
        parts = re.split(r"[/\\]", entry.filename)
        if ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", entry.filename):
            raise ConfigurationError(
                f"{origin} has a member whose name leads out of the archive: {entry.filename!r}", where=origin,
                fix="such an archive is broken or hostile; have it made again",
            )  # fmt: skip
        if entry.flag_bits & 0x1:
            raise ConfigurationError(f"{origin}!{entry.filename} is encrypted", where=origin, fix="decrypt it first")


@contextmanager
def _decompression_errors(origin: str) -> Iterator[None]:
    """Say of a truncated or damaged file that it is one: Arrow and zipfile each have their own errors for that."""
    import zlib

    try:
        yield
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UnavailableError(
            f"{origin} is damaged or not complete: {error}", where=origin,
            fix="if it is still being written, wait; otherwise have it sent again",
        ) from error  # fmt: skip
