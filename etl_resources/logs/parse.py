"""Blocks of text logs to Arrow, column by column; an entry that does not fit is set aside with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from etl_resources.files.chunks import Chunk, Unreadable, raw_bytes
from etl_resources.files.csv_records import Block
from etl_resources.logs.entries import Entries, behind_fields, entries_of
from etl_resources.logs.formats import REST, LogFormat
from etl_resources.logs.values import Values

if TYPE_CHECKING:
    import pyarrow as pa

_NOT_TEXT = "holds bytes that are no text in this encoding, or NUL bytes"


@dataclass
class TextParser:
    """Parses entries of one format. `line_column` gets the number of the line, where it is named."""

    format: LogFormat
    values: Values
    multiline: bool
    encoding: str = "utf-8"
    line_column: str | None = None
    start: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.start = self.format.start if self.multiline else None

    def schema(self) -> pa.Schema:
        """Return the columns of the data."""
        return with_lines_field(self.values.schema(), self.line_column)

    def parse(self, block: Block, at: datetime) -> Chunk:
        """Parse whole lines, of which the newest was written at `at`."""
        entries = entries_of(utf8(block.data, self.encoding), block.line, self.start)
        texts, reasons = self._matched(entries)
        table, misfits = self.values.typed(texts, at)
        # What joins lines knows how many entries there are; a line is counted apart from what parses it.
        records = len(entries.raw) if self.multiline else block.records
        found = Found(table, entries, [*reasons, *misfits], records)
        return found.chunk(self.encoding, self.line_column)

    def _matched(self, entries: Entries) -> tuple[dict[str, Any], list[Any]]:
        """Return the texts of every field, and for each stage the reasons why an entry did not get behind it."""
        import pyarrow.compute as pc

        columns: dict[str, Any] = {}
        rest, reasons, reached = entries.text, [why(pc.is_null(entries.text), _NOT_TEXT)], ""
        for stage, literal in zip_longest(self.format.stages, self.format.literals):
            found = pc.extract_regex(rest, stage)
            names = [f.name for f in found.type if f.name != REST]
            behind = f" behind {reached}" if reached else ""
            reasons.append(why(pc.is_null(found), f"no {self.format.name}: {', '.join(names)} expected{behind}"))
            columns |= {name: pc.struct_field(found, name) for name in names}
            reached = names[-1]
            if found.type.get_field_index(REST) >= 0:
                rest = pc.struct_field(found, REST)
            elif literal is not None:
                rest = behind_fields(rest, [columns[name] for name in names], literal)
        return columns, reasons


def why(mask: Any, reason: str) -> Any:
    """Return the reason where the mask holds, else null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(mask, pa.scalar(reason), pa.scalar(None, pa.string()))


def with_lines_field(schema: pa.Schema, line_column: str | None) -> pa.Schema:
    """Return the schema with the column of line numbers, if there is one."""
    import pyarrow as pa

    return schema.append(pa.field(line_column, pa.int64())) if line_column else schema


@dataclass(slots=True)
class Found:
    """What a block holds: a row for every entry, with the reasons that speak against it, and how many are expected."""

    table: pa.Table
    entries: Entries
    reasons: list[Any]
    records: int

    def chunk(self, encoding: str, line_column: str | None) -> Chunk:
        """Return the rows that nothing speaks against, and the other entries as unreadable, with their first reason."""
        import pyarrow as pa
        import pyarrow.compute as pc

        reason, lines, table = pc.coalesce(*self.reasons), pa.array(self.entries.lines), self.table
        if line_column:
            table = table.append_column(line_column, lines)
        if reason.null_count == len(reason):
            return Chunk(table, self.records)
        bad = pc.is_valid(reason)
        told = zip(*(a.filter(bad).to_pylist() for a in (reason, self.entries.raw, lines)), strict=True)
        unreadable = [Unreadable(why, raw_bytes(raw.rstrip(b"\n"), encoding), line) for why, raw, line in told]
        return Chunk(table.filter(pc.invert(bad)), self.records, unreadable)


def utf8(data: bytes, encoding: str) -> bytes:
    """Return text in an encoding as UTF-8; what cannot be decoded becomes bytes that are none."""
    import codecs

    if codecs.lookup(encoding).name in {"utf-8", "ascii"}:
        return data
    return data.decode(encoding, "surrogateescape").encode("utf-8", "surrogatepass")
