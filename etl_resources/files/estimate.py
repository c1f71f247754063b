"""About how many records files hold, from a look at the beginning of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etl_resources.files.formats import format_of
from etl_resources.files.storage import FileInfo, Storage, storage_errors

if TYPE_CHECKING:
    from etl_resources.sources.file import FileOptions

_LOOK = 256 << 10
_TEXT = (".csv", ".tsv", ".txt", ".ndjson", ".jsonl")


def rows_of(files: Sequence[FileInfo], options: FileOptions, storage: Storage) -> int | None:
    """Return how many lines as many bytes would hold, headers left out; None for anything but plain text."""
    if not files:
        return 0
    first = files[0].path
    if not first.endswith(_TEXT) or (kind := format_of(first, options, first)) not in ("csv", "ndjson"):
        return None
    with storage_errors(first), storage.open(first) as stream:
        start = stream.read(_LOOK)
    lines, total = start.count(b"\n"), sum(f.size for f in files)
    headers = len(files) if kind == "csv" and options.header else 0
    return max(round(total * lines / len(start)) - headers, 0) if lines else 0
