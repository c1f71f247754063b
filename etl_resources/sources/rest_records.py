"""The records of pages as columns: several pages are parsed together, by the reader of JSON files."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.files import json_types
from etl_resources.files.align import align
from etl_resources.files.chunks import Chunk, Unreadable
from etl_resources.files.json_format import JsonReader, initial_schema
from etl_resources.files.json_parse import JsonSettings
from etl_resources.files.json_sample import sample_schema
from etl_resources.sources.rest_page import Page

if TYPE_CHECKING:
    import pyarrow as pa

_SAMPLE_BYTES = 8 << 20


@dataclass
class Parsed:
    """Records of some pages: `count` tells them apart from the parser, unreadable ones included."""

    table: pa.Table
    count: int
    unreadable: list[tuple[str, Unreadable]]


class Records:
    """Parses groups of pages against one schema, which is found in the first group and grows by new keys.

    `node`: each record is an object whose field of this name is the record meant (the edges of GraphQL).
    """

    def __init__(
        self,
        columns: Mapping[str, str],
        landed: Mapping[str, Any] | None,
        max_record_bytes: int,
        node: str | None = None,
    ) -> None:
        import pyarrow as pa

        declared = {name: json_types.parse_type(kind, name) for name, kind in columns.items()}
        known = {f.name: f.type for f in json_types.load_schema(landed or {})} | declared
        self._known = pa.schema(list(known.items()))
        self._node, self._settings = node, JsonSettings(max_record_bytes=max_record_bytes)
        self._reader: JsonReader | None = None

    @property
    def schema(self) -> pa.Schema:
        """The schema as it is known by now."""
        import pyarrow as pa

        if self._reader is None:
            return self._known
        schema = self._reader.schema
        if self._node is None:
            return schema
        return pa.schema(list(schema.field(self._node).type)) if self._node in schema.names else self._known

    def dump(self) -> dict[str, Any]:
        """Return the schema for a position."""
        dumped: dict[str, Any] = json_types.dump_schema(self.schema)
        return dumped

    def sample(self, pages: Sequence[Page]) -> pa.Schema:
        """Return the schema that a first look at some pages shows."""
        if self._reader is None:
            self._reader = self._reader_for(_joined(pages)[0])
        return self.schema

    def parse(self, pages: Sequence[Page]) -> Parsed:
        """Return the records of the pages in their order."""
        import pyarrow as pa

        text, starts = _joined(pages)
        if self._reader is None:
            self._reader = self._reader_for(text)
        reader, tables, count, unreadable = self._reader, [], 0, []
        for chunk in reader.read(io.BytesIO(text), "the answer", self._settings):
            part = self._unwrapped(chunk)
            count += part.records
            unreadable += [_placed(u, pages, starts) for u in part.unreadable]
            if part.data is not None:
                tables.append(part.data)
        schema = self.schema
        whole = pa.concat_tables([align(t, schema) for t in tables]) if tables else schema.empty_table()
        return Parsed(whole.combine_chunks(), count, unreadable)

    def _reader_for(self, text: bytes) -> JsonReader:
        import pyarrow as pa

        found, _ = sample_schema(io.BytesIO(text), "the answer", self._settings, _SAMPLE_BYTES)
        known = self._known
        if self._node is not None:
            known = pa.schema([(self._node, pa.struct(list(known)))] if len(known) else [])
            found = pa.schema([f for f in found if f.name == self._node])
        return JsonReader(initial_schema(known, found))

    def _unwrapped(self, chunk: Chunk) -> Chunk:
        """Return what the records hold as their node; one without is unreadable."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._node is None or chunk.data is None:
            return chunk
        if self._node not in chunk.data.column_names or not pa.types.is_struct(
            chunk.data.schema.field(self._node).type
        ):
            missing, table = chunk.data.num_rows, chunk.data.select([]).slice(0, 0)
        else:
            nodes = chunk.data.column(self._node).combine_chunks()
            missing, present = nodes.null_count, nodes.filter(pc.is_valid(nodes))
            table = pa.Table.from_arrays(present.flatten(), schema=pa.schema(list(present.type)))
        lost = [Unreadable(f"a record whose {self._node} is null", b"null", 0)] * missing
        return Chunk(table, chunk.records, chunk.unreadable + lost)


def _joined(pages: Sequence[Page]) -> tuple[bytes, list[int]]:
    """Return the records of all pages as one array, and the line in it on which each page begins."""
    filled = [page.records.strip(b" \t\r") or b"" for page in pages]
    text, starts, line = [], [], 1
    some = False
    for records in filled:
        text.append(b"\n," if records.strip() and some else b"\n")
        line += 1
        starts.append(line)
        text.append(records)
        line += records.count(b"\n")
        some = some or bool(records.strip())
    return b"[" + b"".join(text) + b"]", starts


def _placed(record: Unreadable, pages: Sequence[Page], starts: Sequence[int]) -> tuple[str, Unreadable]:
    """Return a record with the page that it came in, and its line there."""
    n = max(0, bisect_right(starts, record.line) - 1)
    line = pages[n].line + record.line - starts[n] if record.line else 0
    return pages[n].url.partition("?")[0], Unreadable(record.reason, record.raw, line)
