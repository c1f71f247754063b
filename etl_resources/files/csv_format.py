"""CSV: every column a string exactly as it came; a line that does not fit is set aside and the rest is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError
from etl_resources.files.chunks import Chunk, Unreadable, blocks_of, map_in_order, raw_bytes
from etl_resources.files.csv_records import Block, Dialect, Piece, cut, record_pieces

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class CsvSettings:
    """How CSV is written. `names` None: they are in the first record, unless `header` is false."""

    dialect: Dialect = field(default_factory=Dialect)
    header: bool = True
    names: tuple[str, ...] | None = None
    null_values: tuple[str, ...] = ("",)
    encoding: str = "utf-8"
    skip_rows: int = 0
    max_record_bytes: int = 8 << 20


def read_names(stream: IO[bytes], origin: str, settings: CsvSettings) -> list[str]:
    """Return the names of the columns; an empty file without declared names has none."""
    return _start(stream, origin, settings)[0]


def read_csv(stream: IO[bytes], origin: str, settings: CsvSettings) -> Iterator[Chunk]:
    """Yield the records of a CSV stream, all columns strings; an unquoted empty field (or a null value) is null.

    Raises:
        ConfigurationError: a column name comes twice, or the header cannot be read.
    """
    names, blocks, line = _start(stream, origin, settings)
    if not names:
        return
    dialect = replace(settings.dialect, blank_lines_count=len(names) == 1)
    pieces = record_pieces(blocks, dialect, first_line=line, max_record_bytes=settings.max_record_bytes)
    parse = partial(_parse_piece, names=names, settings=replace(settings, dialect=dialect))
    yield Chunk(_empty(names), 0)
    yield from map_in_order(parse, pieces)


def _start(stream: IO[bytes], origin: str, settings: CsvSettings) -> tuple[list[str], Iterator[bytes], int]:
    """Return the names, the bytes behind the header, and the number of the line that they start with."""
    blocks = blocks_of(stream, settings.encoding, origin)
    head, line = b"", 1
    for _ in range(settings.skip_rows):
        while b"\n" not in head and (block := next(blocks, None)) is not None:
            head += block
        _, newline, head = head.partition(b"\n")
        line += len(newline)
    first, rest, blank_lines = _first_record(head, blocks, origin, settings)
    values = _fields(first, origin, settings) if first else []
    if settings.header:
        names = list(settings.names or [value or f"column_{n}" for n, value in enumerate(values, 1)])
        line += blank_lines + first.count(b"\n")
    else:
        names = list(settings.names or [f"column_{n}" for n in range(1, len(values) + 1)])
        line, rest = line + blank_lines, first + rest
    _refuse_duplicates(names, origin)
    return names, chain((rest,), blocks), line


def _first_record(head: bytes, blocks: Iterator[bytes], origin: str, settings: CsvSettings) -> tuple[bytes, bytes, int]:
    """Return the first record that is not blank, what was read behind it, and the number of blank lines before it."""
    while True:
        text = head.lstrip(b"\r\n")
        blank_lines = head.count(b"\n", 0, len(head) - len(text))
        found = settings.dialect.record.match(text) if text else None
        if found and found.group().endswith(b"\n"):
            return found.group(), text[found.end() :], blank_lines
        block = next(blocks, None) if len(head) <= settings.max_record_bytes else None
        if block is None:
            break
        head += block
    if text and not (found and found.end() == len(text)):
        raise ConfigurationError(
            f"the first record of {origin} cannot be read: a quote is not closed, or it is too long", where=origin,
            fix="check `delimiter`, `quote`, `escape` and `skip_rows`",
        )  # fmt: skip
    return text, b"", blank_lines


def _fields(record: bytes, origin: str, settings: CsvSettings) -> list[str]:
    import csv

    try:
        text = record.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"the first record of {origin} is not {settings.encoding}: {error.reason}", where=origin,
            fix="say which encoding the file has, e.g. `encoding: latin-1`",
        ) from None  # fmt: skip
    dialect = settings.dialect
    quoting: Any = csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE
    rows = csv.reader(
        text.splitlines(keepends=True), delimiter=dialect.delimiter, quotechar=dialect.quote, escapechar=dialect.escape,
        doublequote=dialect.escape is None, quoting=quoting,
    )  # fmt: skip
    return next(rows, [])


def _refuse_duplicates(names: list[str], origin: str) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigurationError(
            f"the header of {origin} names a column twice: {', '.join(twice)}", where=origin,
            fix="give the columns names of your own with `names: [...]`",
        )  # fmt: skip


def _parse_options(settings: CsvSettings, data: bytes, **more: Any) -> Any:
    import pyarrow.csv as pc

    dialect = settings.dialect
    # The parser is a tenth faster where it has to look out for less.
    quote = dialect.quote if dialect.quote and dialect.quote.encode() in data else False
    return pc.ParseOptions(
        delimiter=dialect.delimiter, quote_char=quote, escape_char=dialect.escape or False,
        double_quote=dialect.escape is None, newlines_in_values=bool(quote or dialect.escape),
        ignore_empty_lines=not dialect.blank_lines_count, **more,
    )  # fmt: skip


def _empty(names: list[str]) -> pa.Table:
    import pyarrow as pa

    return pa.schema([(n, pa.string()) for n in names]).empty_table()


def _parse_piece(piece: Piece, *, names: list[str], settings: CsvSettings) -> Chunk:
    if isinstance(piece, Unreadable):
        return Chunk(None, 1, [replace(piece, raw=raw_bytes(piece.raw, settings.encoding))])
    table, misfits = _parse(piece.data, names, settings)
    if table is not None and not misfits and table.num_rows == piece.records:
        return Chunk(table, piece.records)
    return _isolate(piece, names, settings)


def _parse(data: bytes, names: list[str], settings: CsvSettings) -> tuple[pa.Table | None, dict[int, str]]:
    """Parse whole records: the table (None: it cannot be done at once), and by number why rows were left out."""
    import pyarrow as pa
    import pyarrow.csv as pc

    if not data or not (settings.dialect.blank_lines_count or data[:1].strip(b"\r\n") or data.strip(b"\r\n")):
        return _empty(names), {}
    misfits: dict[int, str] = {}

    def left_out(row: Any) -> str:
        misfits[row.number - 1] = f"{row.actual_columns} fields instead of {row.expected_columns}"
        return "skip"

    convert = pc.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=list(settings.null_values),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False, check_utf8=not data.isascii(),
    )  # fmt: skip
    read = pc.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1)
    try:
        options = _parse_options(settings, data, invalid_row_handler=left_out)
        return pc.read_csv(pa.BufferReader(data), read, options, convert), misfits
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None, misfits


Line = tuple[int, bytes]


def _isolate(block: Block, names: list[str], settings: CsvSettings) -> Chunk:
    """Set aside the records of a block that cannot be read, and read the others."""
    lines = list(_numbered(block.data, block.line, settings.dialect))
    bad: list[Unreadable] = []
    while True:
        table, misfits = _parse_lines(lines, names, settings)
        if not misfits:
            return Chunk(table, len(lines) + len(bad), sorted(bad, key=lambda u: u.line))
        remaining: list[Line] = []
        for n, line in enumerate(lines):
            if n in misfits:
                recovered, aside = _set_aside(line, misfits[n], settings)
                remaining.extend(recovered)
                bad.extend(aside)
            else:
                remaining.append(line)
        lines = remaining


def _numbered(data: bytes, line: int, dialect: Dialect) -> Iterator[Line]:
    at = 0
    while at < len(data) and (found := dialect.record.match(data, at)):
        record, at = found.group(), found.end()
        if dialect.blank_lines_count or record.strip(b"\r\n"):
            yield line, record
        line += record.count(b"\n")


def _set_aside(line: Line, reason: str, settings: CsvSettings) -> tuple[list[Line], list[Unreadable]]:
    """Return what can still be read, and what cannot.

    A quote that was opened by mistake swallows the lines behind it, so of a record over several lines only the first
    is known to be bad; the rest is looked at again.
    """
    number, record = line
    first, _, rest = record.partition(b"\n")
    bad = [Unreadable(reason, raw_bytes(first.rstrip(b"\r"), settings.encoding), number)]
    recovered: list[Line] = []
    if not rest:
        return recovered, bad
    number += 1
    most = settings.max_record_bytes
    for piece, _, _ in cut(rest, settings.dialect, line=number, final=True, max_record_bytes=most):
        if isinstance(piece, Unreadable):
            bad.append(replace(piece, raw=raw_bytes(piece.raw, settings.encoding)))
        else:
            recovered += _numbered(piece.data, piece.line, settings.dialect)
    return recovered, bad


def _parse_lines(lines: list[Line], names: list[str], settings: CsvSettings) -> tuple[pa.Table, dict[int, str]]:
    """Parse records; those that cannot be are named by their index."""
    undecodable = {n: why for n, (_, record) in enumerate(lines) if (why := _not_text(record, settings.encoding))}
    if undecodable:
        return _empty(names), undecodable
    table, misfits = _parse(b"".join(record for _, record in lines), names, settings)
    if table is not None and table.num_rows + len(misfits) == len(lines):
        return table, misfits
    if len(lines) == 1:
        return _empty(names), {0: "not one record: a bare carriage return, or text that the parser does not take"}
    half = len(lines) // 2
    left, right = _parse_lines(lines[:half], names, settings), _parse_lines(lines[half:], names, settings)
    return _joined(left[0], right[0]), left[1] | {n + half: why for n, why in right[1].items()}


def _joined(left: pa.Table, right: pa.Table) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([left, right])


def _not_text(record: bytes, encoding: str) -> str | None:
    try:
        record.decode()
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding.lower().replace("-", "") == "utf8" else encoding
        return f"not valid {name}: byte {error.start + 1} of the record"
    return None
