"""Source `file`: CSV, JSON, NDJSON, Parquet and Excel files, plain or compressed, on a disk or in an object store."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar, Literal, Self, cast

from pydantic import AwareDatetime, Field, PrivateAttr, field_validator, model_validator

from etl_resources.exceptions import ConfigurationError
from etl_resources.files.align import common_schema
from etl_resources.files.formats import schema_of
from etl_resources.files.known import KnownFiles
from etl_resources.files.listing import Round, find, known_files, new_files
from etl_resources.files.notifications import NotificationOptions, Notifications, listing_is_due, news
from etl_resources.files.reading import Reading, contents_of, json_reader
from etl_resources.files.storage import Storage
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

_SAMPLE_FILES = 100


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
    notifications: NotificationOptions | None = Field(
        default=None, description="Find new objects by what S3 tells a queue, and not by a listing of all every time."
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

    @model_validator(mode="after")
    def _notified_of_objects(self) -> Self:
        if self.notifications is not None:
            if not self.path.startswith("s3://"):
                raise ValueError("`notifications` are those of S3: `path` has to begin with s3://")
            if self.ordered_names or self.settle_seconds:
                raise ValueError("with `notifications` leave `ordered_names` and `settle_seconds` out")
        return self

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

    _notifications: dict[str, Notifications] = PrivateAttr(default_factory=dict)
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
        for content in contents_of(files, options, storage):
            found = schema_of(content, options)
            if found is None:
                return json_reader(files, options, storage, None).schema
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
        _options(stream)
        reading = Reading(stream, self._storage(), since, batch_rows)
        with closing(self._rounds(stream, reading.storage, reading.known, since)) as rounds:
            yield from reading.batches(rounds)

    def acknowledge(self, stream: Stream, position: Position) -> None:
        """Delete the notifications of what was committed."""
        if notifications := self._notifications.get(stream.name):
            notifications.acknowledge(position)

    def latest(self, stream: Stream) -> Position | None:
        """Return a digest of the names, sizes and times of all files; it changes when one of them does.

        With `notifications`, how many of them wait, about.
        """
        if (settings := _options(stream).notifications) is not None:
            return news(stream, settings, self._storage())
        listing = [(f.path, f.size, f.modified_ns, f.etag) for f in find(stream, _options(stream), self._storage())]
        return {"files": len(listing), "listing": hashlib.sha256(repr(listing).encode()).hexdigest()[:16]}

    def estimate(self, stream: Stream, since: Position | None) -> Estimate | None:
        """Return names and size of the files that would be read; rows from the lines at the start of a text file.

        None between two listings: to look at notifications is to take them.
        """
        from etl_resources.files.estimate import rows_of

        options, storage = _options(stream), self._storage()
        if options.notifications is not None and not listing_is_due(since, options.notifications):
            return None
        files = new_files(stream, options, storage, known_files(stream, options, since))
        rows = rows_of(files, options, storage)
        return Estimate(rows, sum(f.size for f in files), tuple(f.path for f in files))

    def _rounds(
        self, stream: Stream, storage: Storage, known: KnownFiles, since: Position | None
    ) -> Generator[Round, None, None]:
        options = _options(stream)
        if options.notifications is None:
            if files := new_files(stream, options, storage, known):
                yield Round(files)
            return
        notifications = self._notifications[stream.name] = Notifications(stream, storage, known)
        try:
            yield from notifications.rounds(since)
        finally:
            del self._notifications[stream.name]

    def _storage(self) -> Storage:
        return Storage(self.options, self.secrets, self.client_options)


def _options(stream: Stream) -> FileOptions:
    if isinstance(stream.capture, Incremental):
        raise ConfigurationError(
            "files have no cursor: a file source reads the files that it has not read", where=f"stream {stream.name}",
            fix="leave `capture` out",
        )  # fmt: skip
    options = cast("FileOptions", stream.options)
    if options.notifications is not None and (stream.capture is not None or stream.window is not None):
        raise ConfigurationError(
            "what is notified is read once, as it comes", where=f"stream {stream.name}",
            fix="leave `capture` and `partitions` out, or `notifications`",
        )  # fmt: skip
    return options


SOURCE = FileSource
