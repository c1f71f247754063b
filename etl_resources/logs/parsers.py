"""The parser for the format that a user names."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from etl_resources.exceptions import ConfigurationError
from etl_resources.files import json_types
from etl_resources.files.chunks import Chunk, Unreadable, map_in_order
from etl_resources.files.csv_records import Block, Piece
from etl_resources.logs.database import Database
from etl_resources.logs.declared import nginx_format, pattern_format, python_format
from etl_resources.logs.formats import FORMATS, LogFormat
from etl_resources.logs.logfmt import LogfmtParser
from etl_resources.logs.parse import TextParser, utf8
from etl_resources.logs.tail import Part
from etl_resources.logs.values import Values

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.files.json_format import JsonReader
    from etl_resources.sources.log import LogOptions

Parsed = Generator[tuple[Part, Chunk]]


class Parser(Protocol):
    """Makes chunks of the parts of a file, in order."""

    @property
    def start(self) -> str | None:
        """What tells a line that begins an entry; None: every line does."""

    def schema(self) -> pa.Schema:
        """Return the columns that are known before a line is parsed."""

    def chunks(self, parts: Iterator[Part], at: datetime) -> Parsed:
        """Yield every part with its records; the newest were written at `at`."""

    def position(self) -> dict[str, Any]:
        """Return what the next run has to know."""

    def close(self) -> None:
        """Let go of what parsing needed."""


@dataclass
class BlockParser:
    """Parses blocks side by side, each apart from the others."""

    parser: TextParser | LogfmtParser
    database: Database

    @property
    def start(self) -> str | None:
        """As in `Parser`."""
        return self.parser.start

    def schema(self) -> pa.Schema:
        """As in `Parser`."""
        return self.parser.schema()

    def chunks(self, parts: Iterator[Part], at: datetime) -> Parsed:
        """As in `Parser`."""

        def parsed(part: Part) -> tuple[Part, Chunk]:
            if isinstance(part.piece, Unreadable):
                return part, Chunk(None, 1, [part.piece])
            return part, self.parser.parse(part.piece, at)

        return map_in_order(parsed, parts)

    def position(self) -> dict[str, Any]:
        """As in `Parser`."""
        return {}

    def close(self) -> None:
        """As in `Parser`."""
        self.database.close()


@dataclass
class JsonParser:
    """Parses JSON lines by the reader of the file source, whose schema grows by the keys that turn up."""

    reader: JsonReader
    encoding: str
    max_record_bytes: int
    start: str | None = None

    def schema(self) -> pa.Schema:
        """As in `Parser`."""
        return self.reader.schema

    def chunks(self, parts: Iterator[Part], at: datetime) -> Parsed:  # noqa: ARG002 - JSON has whole times
        """As in `Parser`."""
        from etl_resources.files.json_parse import JsonSettings

        ahead: deque[Part] = deque()

        def pieces() -> Iterator[Piece]:
            for part in parts:
                ahead.append(part)
                yield _in_utf8(part.piece, self.encoding)

        settings = JsonSettings(lines=True, encoding=self.encoding, max_record_bytes=self.max_record_bytes)
        for chunk in self.reader.parse(pieces(), settings):
            yield ahead.popleft(), chunk

    def position(self) -> dict[str, Any]:
        """As in `Parser`."""
        schema = json_types.dump_schema(self.reader.schema)
        return {"schema": schema} if schema else {}

    def close(self) -> None:
        """As in `Parser`."""


def _in_utf8(piece: Piece, encoding: str) -> Piece:
    if isinstance(piece, Unreadable):
        return Unreadable(piece.reason, utf8(piece.raw, encoding), piece.line)
    return Block(utf8(piece.data, encoding), piece.line, piece.records)


def text_parser(options: LogOptions) -> BlockParser:
    """Return the parser of every format but JSON.

    Raises:
        ConfigurationError: an option does not suit the format, or names a column that it does not have.
    """
    database = Database()
    declared = {name: json_types.parse_type(kind, name) for name, kind in options.columns.items()}
    if options.format == "logfmt":
        logfmt = LogfmtParser(
            declared, options.time_formats, options.timezone, options.encoding, options.line_column, database=database
        )
        return BlockParser(logfmt, database)
    found = _format(options)
    values = Values(found.columns, declared, options.time_formats, options.timezone, database)
    names = values.schema().names
    _check_names(names, found, options)
    multiline = found.multiline if options.multiline is None else options.multiline
    return BlockParser(TextParser(found, values, multiline, options.encoding, options.line_column), database)


def _format(options: LogOptions) -> LogFormat:
    if options.format == "nginx":
        return nginx_format(options.log_format)
    if options.format == "python":
        return python_format(options.log_format, options.time_formats)
    if options.format == "pattern":
        return pattern_format(options.pattern or "")
    return FORMATS[options.format]


def _check_names(names: list[str], found: LogFormat, options: LogOptions) -> None:
    fields = {column.name for column in found.columns}
    unknown = sorted({*options.columns, *options.time_formats} - fields)
    if unknown:
        raise ConfigurationError(
            f"{found.name} has no field {unknown[0]}", where="columns", fix=f"it has {', '.join(sorted(fields))}"
        )
    folded = [name.casefold() for name in [*names, *([options.line_column] if options.line_column else [])]]
    if twice := sorted({name for name in folded if folded.count(name) > 1}):
        raise ConfigurationError(
            f"two columns would be called {twice[0]}", where=f"format {found.name}", fix="give one of them another name"
        )
