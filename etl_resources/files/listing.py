"""Which files a stream reads now: those that match, have settled, and have not been loaded."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.files.known import KnownFiles
from etl_resources.files.storage import FileInfo, Storage
from etl_resources.source import Position, Snapshot, Stream

if TYPE_CHECKING:
    from datetime import datetime

    from etl_resources.files.chunks import Unreadable
    from etl_resources.sources.file import FileOptions


@dataclass(frozen=True)
class Round:
    """Files that are read one after the other, and what is told of them when that is done."""

    files: Sequence[FileInfo]
    unreadable: Sequence[Unreadable] = ()
    """What should have named files, and does not, from `origin`."""
    origin: str = ""
    before: Mapping[str, Any] = field(default_factory=dict)
    """What a position in the middle keeps, beside the files that were read."""
    end: Mapping[str, Any] = field(default_factory=dict)
    """The same of the position behind the last file."""
    commit: bool = False
    """Whether it is to be committed by itself, also where there is nothing to read."""


def find(stream: Stream, options: FileOptions, storage: Storage, after: str | None = None) -> list[FileInfo]:
    """Return the files of the stream, by path; only those whose path sorts behind `after`.

    Raises:
        NotFoundError: there is none at all, and the options say that this is an error.
    """
    files = storage.find(options.path, after=after)
    if not files and after is None and options.missing == "error":
        near = storage.nearest(options.path)
        raise NotFoundError(
            f"no file {options.path}", where=f"stream {stream.name}",
            fix=(f"near it there are {', '.join(near)}" if near else "check the path") + "; or say `missing: ok`",
        )  # fmt: skip
    files = _young(files, options.modified_since)
    if not options.settle_seconds:
        return files
    latest = (time.time() - options.settle_seconds) * 1e9
    if options.ordered_names:  # one behind a file that has to wait would put the cursor behind that as well
        return list(takewhile(lambda f: f.modified_ns <= latest, files))
    return [f for f in files if f.modified_ns <= latest]


def known_files(stream: Stream, options: FileOptions, since: Position | None) -> KnownFiles:
    """Return which files have been read.

    Raises:
        ConfigurationError: the position is a listing cursor, and the options no longer promise ordered names.
    """
    fresh = stream.window is not None or isinstance(stream.capture, Snapshot)
    known = KnownFiles.load(None if fresh else since)
    if known.ordered and not options.ordered_names:
        raise ConfigurationError(
            "the files that were loaded so far are known by the last name alone",
            where=f"stream {stream.name}",
            fix="keep `ordered_names: true`, or run with --full-refresh, which loads all files again",
        )
    known.ordered = options.ordered_names
    return known


def new_files(stream: Stream, options: FileOptions, storage: Storage, known: KnownFiles) -> list[FileInfo]:
    """Return the files to read; raises as `find`."""
    after = max(known.files, default=None) if known.ordered else None
    return unread(find(stream, options, storage, after), known, storage)


def unread(
    files: Iterable[FileInfo], known: KnownFiles, storage: Storage, modified_since: datetime | None = None
) -> list[FileInfo]:
    """Return those that have not been loaded, and were written to since a time."""
    return [f for f in _young(files, modified_since) if not known.is_loaded(f, storage)]


def _young(files: Iterable[FileInfo], modified_since: datetime | None) -> list[FileInfo]:
    least = modified_since.timestamp() * 1e9 if modified_since is not None else 0
    return [f for f in files if f.modified_ns >= least]
