"""Files become batches: one after the other, each remembered as loaded once it has been read to its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, cast

from etl_resources.exceptions import ConfigurationError, NotFoundError, UnavailableError
from etl_resources.files import json_types
from etl_resources.files.assemble import Assembler
from etl_resources.files.chunks import Chunk
from etl_resources.files.compression import Content, Limits, contents
from etl_resources.files.formats import chunks_of, format_of, json_settings, reads_in_order
from etl_resources.files.known import HashingReader, KnownFiles, content_hash
from etl_resources.files.listing import Round, known_files
from etl_resources.files.storage import FileInfo, Storage, storage_errors
from etl_resources.source import Batch, Position, Stream

if TYPE_CHECKING:
    from etl_resources.files.json_format import JsonReader
    from etl_resources.sources.file import FileOptions

_SAMPLE_BYTES = 8 << 20
_PROVENANCE = frozenset({"_batch", "_row", "_read_at", "_op", "_seq", "_origin"})


class Reading:
    """One read of a stream."""

    def __init__(self, stream: Stream, storage: Storage, since: Position | None, batch_rows: int) -> None:
        self.stream, self.storage, self._since, self._batch_rows = stream, storage, since, batch_rows
        self._options = cast("FileOptions", stream.options)
        self.known: KnownFiles = known_files(stream, self._options, since)
        self._assembler = Assembler(batch_rows)

    def batches(self, rounds: Iterable[Round]) -> Iterator[Batch]:
        """Yield the records of the files; a batch carries a position where a file ends."""
        assembler, landed = self._assembler, self._since
        for found in rounds:
            reader = json_reader(found.files, self._options, self.storage, landed)
            landed = _schema(reader)
            yield from self._files(found, reader)
            yield from assembler.add(Chunk(None, len(found.unreadable), [*found.unreadable]), found.origin)
            assembler.file_ends(partial(self._position, reader, found.end))
            for batch in assembler.flush():
                yield replace(batch, commit=found.commit)

    def _files(self, found: Round, reader: JsonReader) -> Iterator[Batch]:
        unmarked = 0
        for n, info in enumerate(found.files, 1):
            for origin, chunk in _read_file(info, self.stream, self.storage, reader, self._batch_rows, self.known):
                yield from self._assembler.add(chunk, origin)
            unmarked += 1
            # A position names every file: to write one after each would cost the square of their number.
            if unmarked * 100 >= len(self.known.files) or n == len(found.files):
                unmarked = 0
                self._assembler.file_ends(partial(self._position, reader, found.before))

    def _position(self, reader: JsonReader, more: Mapping[str, Any]) -> Position | None:
        if self.stream.window is not None:
            return self._since
        return {**self.known.dump(), **_schema(reader), **more}


def _schema(reader: JsonReader) -> dict[str, Any]:
    schema: dict[str, Any] = json_types.dump_schema(reader.schema)
    return {"schema": schema} if schema else {}


def _read_file(
    info: FileInfo, stream: Stream, storage: Storage, reader: JsonReader, batch_rows: int, known: KnownFiles
) -> Iterator[tuple[str, Chunk]]:
    """Yield the chunks of a file with their origin; at its end it is known."""
    from etl_resources.files.window import restrict

    options = cast("FileOptions", stream.options)
    try:
        before = storage.stat(info.path)
    except NotFoundError:
        if options.notifications is None:
            raise
        return  # deleted after S3 had told of it
    with storage_errors(info.path), storage.open(info.path) as raw:
        hashing = (
            HashingReader(raw) if reads_in_order(info.path) and options.format not in {"parquet", "excel"} else None
        )
        source = cast("IO[bytes]", hashing or raw)
        for content in contents(source, info.path, before.size, members=options.members, limits=_limits(options)):
            # Closed before the file is: a thread reads ahead in it.
            with closing(chunks_of(content, options, reader, batch_rows)) as chunks:
                for chunk in chunks:
                    _refuse_provenance(chunk, content.origin)
                    part = chunk if stream.window is None else restrict(chunk, stream.window, content.origin)
                    yield content.origin, part
        digest = hashing.finish() if hashing else "" if before.etag else content_hash(info.path, storage)
    _refuse_growing(before, storage, hashing.size if hashing else before.size)
    known.add(before, digest)


def contents_of(files: Sequence[FileInfo], options: FileOptions, storage: Storage) -> Iterator[Content]:
    """Yield the files and the members of archives, opened."""
    for info in files:
        with storage_errors(info.path), storage.open(info.path) as raw:
            yield from contents(raw, info.path, info.size, members=options.members, limits=_limits(options))


def json_reader(
    files: Sequence[FileInfo], options: FileOptions, storage: Storage, since: Position | None
) -> JsonReader:
    """Return a reader for the types that were declared, landed before, and are found by a first look."""
    import pyarrow as pa

    from etl_resources.files.json_format import JsonReader, initial_schema
    from etl_resources.files.json_sample import sample_schema

    declared = pa.schema([(n, json_types.parse_type(kind, n)) for n, kind in options.columns.items()])
    landed = json_types.load_schema((since or {}).get("schema", {}))
    known = pa.schema(list({f.name: f for f in chain(landed, declared)}.values()))
    budget, found = _SAMPLE_BYTES, pa.schema([])
    for content in contents_of(files, options, storage):
        kind = format_of(content.name, options, content.origin)
        if kind not in {"json", "ndjson"} or budget <= 0:
            break
        sampled, used = sample_schema(content.stream, content.origin, json_settings(kind, options), budget)
        budget, found = budget - used, json_types.union_schema(found, sampled)
    return JsonReader(initial_schema(known, found))


def _limits(options: FileOptions) -> Limits:
    return Limits(options.max_expanded_bytes, options.max_expansion)


def _refuse_provenance(chunk: Chunk, origin: str) -> None:
    if chunk.data is not None and (taken := _PROVENANCE.intersection(chunk.data.column_names)):
        raise ConfigurationError(
            f"{origin} has a column {', '.join(sorted(taken))}, a name that is kept for provenance", where=origin,
            fix="have it renamed, for CSV with `names: [...]`",
        )  # fmt: skip


def _refuse_growing(before: FileInfo, storage: Storage, size: int) -> None:
    try:
        after = storage.stat(before.path)
    except NotFoundError:
        after = None
    if after is None or not after.same_state(before) or size != before.size:
        raise UnavailableError(
            f"{before.path} was written to, moved or removed while it was read", where=before.path,
            fix="nothing of it was kept; have it written under another name and renamed, or set `settle_seconds`",
        )  # fmt: skip
