"""Log files as they are found: which file each is, whatever its name, and how it begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.files.compression import Limits, contents
from etl_resources.files.storage import FileInfo, Storage, is_uri, local_path, storage_errors

if TYPE_CHECKING:
    import os

HEAD_BYTES = 1024
_COMPRESSED = (".gz", ".zst")
_UNKNOWN = re.compile(r"\.(bz2|xz|zip|lz4|Z|7z|rar)$")
_NUMBERED = re.compile(r"[.](\d{1,4})$")
_DATED = re.compile(r"[-_.](?:\d{8}|\d{4}-\d\d(?:-\d\d)?|\d{10})(?:[-_.T]?\d[\d:-]*)?(?=\.|$)")


@dataclass(frozen=True, slots=True)
class Seen:
    """One file. `id` stays with it when it is renamed: device and inode, of an object its URI and entity tag."""

    path: str
    id: str
    size: int
    modified_ns: int

    @property
    def compressed(self) -> bool:
        """Its bytes are not those of the log, and nobody will append to it."""
        return self.path.endswith(_COMPRESSED)

    @property
    def log(self) -> str:
        """Path that the file had as long as it was written to: without what rotation appends to it."""
        folder, _, name = self.path.rpartition("/")
        for suffix in _COMPRESSED:
            name = name.removesuffix(suffix)
        return f"{folder}/{_DATED.sub('', _NUMBERED.sub('', name))}"


def look(found: list[FileInfo]) -> list[Seen]:
    """Return the files that were found, each once, though it may have several names.

    Raises:
        ConfigurationError: a file is compressed in a way that cannot be read.
    """
    seen: dict[str, Seen] = {}
    for info in found:
        if _UNKNOWN.search(info.path):
            raise ConfigurationError(
                f"{info.path} is compressed in a way that is not known here", where=info.path,
                fix="compress logs by gzip or zstd, or leave such files out of `path`",
            )  # fmt: skip
        try:
            one = _seen(info)
        except FileNotFoundError:
            continue  # rotated away since it was listed; it is found under its new name by the next run
        seen.setdefault(one.id, one)
    return list(seen.values())


def _seen(info: FileInfo) -> Seen:
    if is_uri(info.path):
        return Seen(info.path, f"{info.path}#{info.etag}", info.size, info.modified_ns)
    with storage_errors_but_missing(info.path):
        stat = local_path(info.path).stat()
    return Seen(info.path, _identity(stat), stat.st_size, stat.st_mtime_ns)


@contextmanager
def storage_errors_but_missing(path: str) -> Iterator[None]:
    """As `storage_errors`, but a file that is not there stays what it is."""
    with storage_errors(path):
        try:
            yield
        except FileNotFoundError as error:
            missing = error
        else:
            return
    raise missing


def _identity(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}"


@contextmanager
def opened(seen: Seen, storage: Storage, limits: Limits) -> Iterator[IO[bytes] | None]:
    """Open the text of a file; None: the path leads to another file by now, or to none."""
    import os

    try:
        raw = storage.open(seen.path)
    except NotFoundError:
        yield None
        return
    with raw:
        if not is_uri(seen.path) and _identity(os.fstat(raw.fileno())) != seen.id:
            yield None
            return
        with storage_errors(seen.path):
            yield next(contents(raw, seen.path, seen.size, members=None, limits=limits)).stream
