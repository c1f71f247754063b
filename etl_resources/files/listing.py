"""Which files a stream reads now: those that match, have settled, and have not been loaded."""

from __future__ import annotations

import time
from itertools import takewhile
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.files.known import KnownFiles
from etl_resources.files.storage import FileInfo, Storage
from etl_resources.source import Position, Snapshot, Stream

if TYPE_CHECKING:
    from etl_resources.sources.file import FileOptions


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
    if options.modified_since is not None:
        least = options.modified_since.timestamp() * 1e9
        files = [f for f in files if f.modified_ns >= least]
    if not options.settle_seconds:
        return files
    latest = (time.time() - options.settle_seconds) * 1e9
    if options.ordered_names:  # one behind a file that has to wait would put the cursor behind that as well
        return list(takewhile(lambda f: f.modified_ns <= latest, files))
    return [f for f in files if f.modified_ns <= latest]


def new_files(
    stream: Stream, options: FileOptions, storage: Storage, since: Position | None
) -> tuple[list[FileInfo], KnownFiles]:
    """Return the files to read, and what is known of the others.

    Raises:
        NotFoundError: as `find`.
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
    after = max(known.files, default=None) if known.ordered else None
    return [f for f in find(stream, options, storage, after) if not known.is_loaded(f, storage)], known
