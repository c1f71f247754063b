"""Source `log`: files that are written line by line while they are read, rotated, truncated and compressed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field, field_validator, model_validator

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.files.storage import FileInfo, Storage
from etl_resources.secret import Secret
from etl_resources.source import Batch, Capabilities, Estimate, Incremental, Position, Source, Stream, StreamOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.logs.looking import Seen

_LISTINGS = 5
_DECLARED = {"nginx": "log_format", "python": "log_format", "pattern": "pattern"}


class LogOptions(StreamOptions):
    """What is written under `source: {type: log, ...}`."""

    type: Literal["log"] = "log"
    path: str = Field(
        description="File or glob (`**` spans folders); it has to cover what the file is called when it was rotated."
    )
    format: Literal[
        "apache_common", "apache_combined", "apache_error", "nginx", "nginx_error", "json", "syslog_rfc3164",
        "syslog_rfc5424", "logfmt", "python", "pattern",
    ] = Field(description="How entries are written.")  # fmt: skip
    log_format: str | None = Field(
        default=None, description="nginx: the string of its `log_format`; python: that of its `format`, in `%` style."
    )
    pattern: str | None = Field(
        default=None, description="pattern: a regular expression (RE2) of whole entries, with named groups."
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Types of fields that would be text, or that JSON does not tell."
    )
    time_formats: dict[str, str] = Field(
        default_factory=dict, description="`strptime` formats of fields that are times."
    )
    timezone: str = Field(default="UTC", description="Zone of times that do not name theirs, e.g. Europe/Berlin.")
    multiline: bool | None = Field(
        default=None, description="Whether a line that begins no entry continues the one before it, as in stack traces."
    )
    line_column: str | None = Field(
        default=None, description="Name of a column that gets the number of the line in its file; not for json."
    )
    final_after: int = Field(
        default=60, ge=0, description="Seconds without a write after which the end of a file is taken as it is."
    )
    missing: Literal["error", "ok"] = Field(
        default="error", description="Whether it is an error that no file is there."
    )
    encoding: str = Field(default="utf-8", description="Encoding, e.g. latin-1.")
    max_record_bytes: int = Field(default=1 << 20, gt=0, description="A longer entry is unreadable.")
    max_expanded_bytes: int = Field(default=1 << 40, gt=0, description="Refuse a file that expands to more than this.")
    max_expansion: int = Field(
        default=250, gt=0, description="Refuse a file that expands to more than so many times its size."
    )

    @field_validator("encoding")
    @classmethod
    def _ends_lines_as_ascii(cls, value: str) -> str:
        try:
            fine = "\r\n".encode(value) == b"\r\n"
        except LookupError:
            raise ValueError(f"no encoding {value!r}") from None
        if not fine:
            raise ValueError("a log has to be in an encoding that writes the end of a line as ASCII does")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        import zoneinfo

        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"no time zone {value!r}") from None
        return value

    @model_validator(mode="after")
    def _options_suit_the_format(self) -> LogOptions:
        given = {n for n in ("log_format", "pattern") if getattr(self, n) is not None}
        if foreign := sorted(given - {_DECLARED.get(self.format)}):
            raise ValueError(f"`{foreign[0]}` is not an option of format {self.format}")
        if self.format == "pattern" and self.pattern is None:
            raise ValueError("format pattern needs `pattern`")
        if self.format == "json" and (self.line_column or self.time_formats):
            raise ValueError("format json takes neither `line_column` nor `time_formats`")
        if self.format in {"json", "logfmt"} and self.multiline:
            raise ValueError(f"an entry of format {self.format} is one line")
        return self


class LogSource(Source):
    """Reads what was written to log files since the last run, whatever has become of the files meanwhile.

    `options`, `secrets` and `client_options` are those of an object store, as obstore names them.
    """

    options: dict[str, str] = Field(
        default_factory=dict, description="Settings of the object store: endpoint, region …"
    )
    secrets: dict[str, Secret] = Field(default_factory=dict, description="Secret settings, e.g. secret_access_key.")
    client_options: dict[str, str] = Field(default_factory=dict, description="HTTP settings: allow_http, timeout …")

    options_type: ClassVar[type[StreamOptions]] = LogOptions
    capabilities: ClassVar[Capabilities] = Capabilities(captures=frozenset({"snapshot"}), resumes=True, windows=True)

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the columns of the format; of JSON and logfmt those that the first 8 MB show.

        Raises:
            NotFoundError, ConfigurationError: as `read`.
        """
        from etl_resources.logs.reading import schema_of

        return schema_of(_options(stream), self._seen(stream), self._storage())

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield the entries that were written since `since`; every batch that ends with a block carries a position.

        Raises:
            NotFoundError: no such file, or no such column to partition by.
            ConfigurationError: the options do not suit the format, or a file is compressed in another way.
            UnavailableError: a compressed file is damaged.
            CredentialsRejectedError: the store or the operating system refused access.
        """
        from etl_resources.logs.reading import Reading

        yield from Reading(stream, _options(stream), self._storage()).batches(self._seen(stream), since, batch_rows)

    def latest(self, stream: Stream) -> Position | None:
        """Return a digest of the names, sizes and times of all files; it changes when one of them does."""
        listing = sorted((f.path, f.id, f.size, f.modified_ns) for f in self._seen(stream))
        return {"files": len(listing), "listing": hashlib.sha256(repr(listing).encode()).hexdigest()[:16]}

    def estimate(self, stream: Stream, since: Position | None) -> Estimate:
        """Return names and size of what would be read, compressed files as they are stored."""
        from etl_resources.logs.reading import unread

        return unread(_options(stream), self._seen(stream), self._storage(), since)

    def _storage(self) -> Storage:
        return Storage(self.options, self.secrets, self.client_options)

    def _seen(self, stream: Stream) -> list[Seen]:
        from etl_resources.logs.looking import look

        options, storage = _options(stream), self._storage()
        found = _listed(options.path, storage)
        if not found and options.missing == "error":
            near = storage.nearest(options.path)
            raise NotFoundError(
                f"no file {options.path}", where=f"stream {stream.name}",
                fix=(f"near it there are {', '.join(near)}" if near else "check the path") + "; or say `missing: ok`",
            )  # fmt: skip
        return look(found)


def _options(stream: Stream) -> LogOptions:
    if isinstance(stream.capture, Incremental):
        raise ConfigurationError(
            "logs have no cursor: a log source reads what was written since it last read",
            where=f"stream {stream.name}", fix="leave `capture` out",
        )  # fmt: skip
    return cast("LogOptions", stream.options)


def _listed(path: str, storage: Storage) -> list[FileInfo]:
    """Return the files, listed again when one of them is renamed in the middle of it."""
    for _ in range(_LISTINGS):
        try:
            return storage.find(path)
        except NotFoundError:
            continue
    return storage.find(path)


SOURCE = LogSource
