"""Source `file`: CSV, JSON, NDJSON, Parquet and Excel files, plain or compressed, on a disk or in an object store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import AwareDatetime, Field, field_validator

from etl_resources.exceptions import ConfigurationError, NotFoundError, UnavailableError
from etl_resources.files import json_types
from etl_resources.files.align import common_schema
from etl_resources.files.assemble import Assembler
from etl_resources.files.chunks import Chunk
from etl_resources.files.compression import Content, Limits, contents
from etl_resources.files.formats import chunks_of, format_of, json_settings, reads_in_order, schema_of
from etl_resources.files.known import HashingReader, KnownFiles, content_hash
from etl_resources.files.listing import find, new_files
from etl_resources.files.storage import FileInfo, Storage, storage_errors
from etl_resources.secret import Secret
from etl_resources.source import (
    Batch,
    Capabilities,
    Estimate,
    Incremental,
    Position,
    Source,
    Stream,
    StreamOptions,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.files.json_format import JsonReader

_SAMPLE_BYTES = 8 << 20
_SAMPLE_FILES = 100
_PROVENANCE = frozenset({"_batch", "_row", "_read_at", "_op", "_seq", "_origin"})


class FileOptions(StreamOptions):
    """What is written under `source: {type: file, ...}`."""

    type: Literal["file"] = "file"
    path: str = Field(description="File or glob (`**` spans folders), local or the URI of an object store.")
    format: Literal["csv", "json", "ndjson", "parquet", "excel"] | None = Field(
        default=None, description="Format of the files; left out, their suffix tells it."
    )
    missing: Literal["error", "ok"] = Field(
        default="error", description="Whether it is an error that no file is there."
    )
    settle_seconds: int = Field(
        default=0, ge=0, description="Leave files that were written to less than so many seconds ago for the next run."
    )
    modified_since: AwareDatetime | None = Field(
        default=None, description="Leave out files that were last written to before this time."
    )
    ordered_names: bool = Field(
        default=False,
        description="For places with a great many files: list only from the last name loaded on. It is a promise: a"
        " file that comes later sorts behind all that are there; one that does not is never read.",
    )
    members: str | None = Field(default=None, description="Glob of the members of a zip archive; left out, all.")
    max_expanded_bytes: int = Field(default=1 << 40, gt=0, description="Refuse a file that expands to more than this.")
    max_expansion: int = Field(
        default=250, gt=0, description="Refuse a file that expands to more than so many times its size."
    )
    max_record_bytes: int = Field(default=8 << 20, gt=0, description="A longer record is unreadable.")
    encoding: str = Field(default="utf-8", description="Encoding of CSV and JSON, e.g. latin-1 or utf-16.")
    delimiter: str | None = Field(default=None, description="CSV: between fields; left out, a comma, in .tsv a tab.")
    quote: str | None = Field(default='"', description="CSV: around fields; null: there are no quotes.")
    escape: str | None = Field(default=None, description="CSV: before a quote within quotes; left out, it is doubled.")
    header: bool = Field(default=True, description="CSV: whether the first record names the columns.")
    names: tuple[str, ...] | None = Field(
        default=None, description="CSV: names of the columns, instead of the header's."
    )
    null_values: tuple[str, ...] = Field(default=("",), description="CSV: unquoted fields that mean null.")
    skip_rows: int = Field(
        default=0, ge=0, description="CSV, Excel: lines or rows before the header that are not data."
    )
    records: str | None = Field(
        default=None, description="JSON: path of the array of records, e.g. `$.data.products[*]`."
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="JSON: types of columns, where those found in the records will not do."
    )
    sheet: str | None = Field(default=None, description="Excel: name of the sheet; left out, the first.")

    @field_validator("delimiter", "quote", "escape")
    @classmethod
    def _one_ascii_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or not value.isascii() or value in "\r\n"):
            raise ValueError("has to be one ASCII character")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        import codecs

        try:
            codecs.lookup(value)
        except LookupError:
            raise ValueError(f"no encoding {value!r}") from None
        return value


class FileSource(Source):
    """Reads each file once: again only when its content has changed.

    `options`, `secrets` and `client_options` are those of the object store, as obstore names them.
    """

    options: dict[str, str] = Field(
        default_factory=dict, description="Settings of the object store: endpoint, region …"
    )
    secrets: dict[str, Secret] = Field(default_factory=dict, description="Secret settings, e.g. secret_access_key.")
    client_options: dict[str, str] = Field(default_factory=dict, description="HTTP settings: allow_http, timeout …")

    options_type: ClassVar[type[StreamOptions]] = FileOptions
    capabilities: ClassVar[Capabilities] = Capabilities(captures=frozenset({"snapshot"}), resumes=True, windows=True)

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the columns of the files there are (of the first hundred; of JSON, those that 8 MB of records show).

        Raises:
            NotFoundError, ConfigurationError, SchemaConflictError: as `read`.
        """
        import pyarrow as pa

        options, storage = _options(stream), self._storage()
        files = find(stream, options, storage)[:_SAMPLE_FILES]
        schema = pa.schema([])
        for content in _contents(files, options, storage):
            found = schema_of(content, options)
            if found is None:
                return _json_reader(files, options, storage, None).schema
            schema = common_schema(schema, found, content.origin)
        return schema

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield the records of the files that have not been loaded; a batch carries a position where a file ends.

        Raises:
            NotFoundError: no such file, archive member, sheet, or path of JSON keys.
            ConfigurationError: the options do not suit the files.
            SchemaConflictError: two Parquet files give a column types without a common one.
            UnavailableError: a file is damaged, or was written to while it was read.
            CredentialsRejectedError: the store or the operating system refused access.
        """
        options, storage = _options(stream), self._storage()
        files, known = new_files(stream, options, storage, since)
        if not files:
            return
        reader = _json_reader(files, options, storage, since)
        assembler, unmarked = Assembler(batch_rows), 0
        for n, info in enumerate(files, 1):
            for origin, chunk in _read_file(info, stream, storage, reader, batch_rows, known):
                yield from assembler.add(chunk, origin)
            unmarked += 1
            # A position names every file: to write one after each would cost the square of their number.
            if unmarked * 100 >= len(known.files) or n == len(files):
                unmarked = 0
                assembler.file_ends(partial(_position, known, reader) if stream.window is None else lambda: since)
        yield from assembler.flush()

    def latest(self, stream: Stream) -> Position | None:
        """Return a digest of the names, sizes and times of all files; it changes when one of them does."""
        listing = [(f.path, f.size, f.modified_ns, f.etag) for f in find(stream, _options(stream), self._storage())]
        return {"files": len(listing), "listing": hashlib.sha256(repr(listing).encode()).hexdigest()[:16]}

    def estimate(self, stream: Stream, since: Position | None) -> Estimate:
        """Return names and size of the files that would be read; rows from the lines at the start of a text file."""
        from etl_resources.files.estimate import rows_of

        options, storage = _options(stream), self._storage()
        files, _ = new_files(stream, options, storage, since)
        rows = rows_of(files, options, storage)
        return Estimate(rows, sum(f.size for f in files), tuple(f.path for f in files))

    def _storage(self) -> Storage:
        return Storage(self.options, self.secrets, self.client_options)


def _read_file(
    info: FileInfo, stream: Stream, storage: Storage, reader: JsonReader, batch_rows: int, known: KnownFiles
) -> Iterator[tuple[str, Chunk]]:
    """Yield the chunks of a file with their origin; at its end it is known."""
    from etl_resources.files.window import restrict

    options = _options(stream)
    before = storage.stat(info.path)
    with storage_errors(info.path), storage.open(info.path) as raw:
        hashing = (
            HashingReader(raw) if reads_in_order(info.path) and options.format not in {"parquet", "excel"} else None
        )
        source = cast("IO[bytes]", hashing or raw)
        for content in contents(source, info.path, before.size, members=options.members, limits=_limits(options)):
            for chunk in chunks_of(content, options, reader, batch_rows):
                _refuse_provenance(chunk, content.origin)
                part = chunk if stream.window is None else restrict(chunk, stream.window, content.origin)
                yield content.origin, part
        digest = hashing.finish() if hashing else "" if before.etag else content_hash(info.path, storage)
    _refuse_growing(before, storage, hashing.size if hashing else before.size)
    known.add(before, digest)


def _contents(files: list[FileInfo], options: FileOptions, storage: Storage) -> Iterator[Content]:
    for info in files:
        with storage_errors(info.path), storage.open(info.path) as raw:
            yield from contents(raw, info.path, info.size, members=options.members, limits=_limits(options))


def _json_reader(files: list[FileInfo], options: FileOptions, storage: Storage, since: Position | None) -> JsonReader:
    """Return a reader for the types that were declared, landed before, and are found by a first look."""
    import pyarrow as pa

    from etl_resources.files.json_format import JsonReader, initial_schema
    from etl_resources.files.json_sample import sample_schema

    declared = pa.schema([(n, json_types.parse_type(kind, n)) for n, kind in options.columns.items()])
    landed = json_types.load_schema((since or {}).get("schema", {}))
    known = pa.schema(list({f.name: f for f in chain(landed, declared)}.values()))
    budget, found = _SAMPLE_BYTES, pa.schema([])
    for content in _contents(files, options, storage):
        kind = format_of(content.name, options, content.origin)
        if kind not in {"json", "ndjson"} or budget <= 0:
            break
        sampled, used = sample_schema(content.stream, content.origin, json_settings(kind, options), budget)
        budget, found = budget - used, json_types.union_schema(found, sampled)
    return JsonReader(initial_schema(known, found))


def _options(stream: Stream) -> FileOptions:
    if isinstance(stream.capture, Incremental):
        raise ConfigurationError(
            "files have no cursor: a file source reads the files that it has not read", where=f"stream {stream.name}",
            fix="leave `capture` out",
        )  # fmt: skip
    return cast("FileOptions", stream.options)


def _limits(options: FileOptions) -> Limits:
    return Limits(options.max_expanded_bytes, options.max_expansion)


def _position(known: KnownFiles, reader: JsonReader) -> Position:
    schema: dict[str, Any] = json_types.dump_schema(reader.schema)
    return known.dump() | ({"schema": schema} if schema else {})


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


SOURCE = FileSource
