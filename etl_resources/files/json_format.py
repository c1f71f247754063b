"""JSON: records as Arrow structs and lists. Strict: what does not fit its column is widened or set aside, never nulled.

Blocks are parsed by Arrow against the schema, which fails at the first surprise (a new key, another type, broken text).
A block with a surprise is cut into small parts, and those that still fail are read record by record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from etl_resources.files import json_types
from etl_resources.files.align import align
from etl_resources.files.chunks import Chunk, Unreadable, map_in_order, raw_bytes
from etl_resources.files.csv_records import Block, Piece
from etl_resources.files.json_parse import JsonSettings, Numbered, loads_object, parse_block, parts_of, pieces

if TYPE_CHECKING:
    import pyarrow as pa


class JsonReader:
    """Reads JSON streams against one schema, which grows by the keys that turn up; types that are set stay."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema

    def read(self, stream: IO[bytes], origin: str, settings: JsonSettings) -> Iterator[Chunk]:
        """Yield the records of a stream, each chunk in the schema as it was known by then.

        Raises:
            NotFoundError, ConfigurationError: `records` leads nowhere, or to something that is no array.
        """
        return self.parse(pieces(stream, origin, settings), settings)

    def parse(self, found: Iterable[Piece], settings: JsonSettings) -> Iterator[Chunk]:
        """Yield the records of pieces of UTF-8, a chunk for each piece."""
        for piece, chunk in map_in_order(partial(self._parse, settings), found):
            if chunk.data is not None and not self._adopt(chunk.data.schema):
                # A new key got another type in a block that was parsed at the same time.
                yield self._parse_again(settings, piece)
            else:
                yield chunk

    def _adopt(self, found: pa.Schema) -> bool:
        """Take new keys into the schema; false: one of them has got another type meanwhile."""
        try:
            merged = keep_known(self.schema, json_types.union_schema(self.schema, found))
        except ValueError:
            return False
        if not _conforms(found, merged):
            return False
        self.schema = merged
        return True

    def _parse_again(self, settings: JsonSettings, piece: Piece) -> Chunk:
        chunk = self._parse(settings, piece)[1]
        if chunk.data is not None:
            self._adopt(chunk.data.schema)
        return chunk

    def _parse(self, settings: JsonSettings, piece: Piece) -> tuple[Piece, Chunk]:
        schema = self.schema
        if isinstance(piece, Unreadable):
            raw = raw_bytes(piece.raw, settings.encoding)
            return piece, Chunk(None, 1, [Unreadable(piece.reason, raw, piece.line)])
        table = parse_block(piece.data, piece.records, schema, lines=settings.lines)
        if table is not None:
            return piece, Chunk(table, piece.records)
        return piece, self._parse_in_parts(settings, piece, schema)

    def _parse_in_parts(self, settings: JsonSettings, block: Block, schema: pa.Schema) -> Chunk:
        import pyarrow as pa

        tables: list[pa.Table] = []
        chunk = Chunk(None, 0)
        for part in parts_of(block, lines=settings.lines):
            data = b",".join(record for _, record in part)
            table = parse_block(data, len(part), schema, lines=False)
            chunk.records += len(part)
            if table is None:
                table, unreadable = parse_one_by_one(settings, part, schema)
                chunk.unreadable += unreadable
                schema = table.schema
            tables.append(table)
        chunk.data = pa.concat_tables([align(t, schema) for t in tables]) if tables else schema.empty_table()
        return chunk


def parse_one_by_one(
    settings: JsonSettings, part: list[Numbered], schema: pa.Schema
) -> tuple[pa.Table, list[Unreadable]]:
    """Return the records as a table in the schema, grown by their new keys, and those that do not fit."""
    import pyarrow as pa

    values: list[dict[str, Any]] = []
    unreadable: list[Unreadable] = []
    for line, record in part:
        try:
            value = loads_object(record)
            schema = grown(schema, value)
            values.append({f.name: json_types.fit(value.get(f.name), f.type, f.name) for f in schema})
        except ValueError as error:
            hint = "; declare its type in `columns`" if isinstance(error, json_types.MisfitError) else ""
            unreadable.append(Unreadable(f"{error}{hint}", raw_bytes(record, settings.encoding), line))
    return pa.Table.from_pylist(values, schema=schema), unreadable


def grown(schema: pa.Schema, value: dict[str, Any]) -> pa.Schema:
    """Return the schema with the keys of a record that it does not know yet, at any depth; known types stay.

    Raises:
        ValueError: a new key differs from a known one in case only, and no table can hold both.
    """
    import pyarrow as pa

    found = json_types.settle_schema(pa.schema(list(json_types.type_of(value))))
    return keep_known(schema, json_types.union_schema(schema, found))


def keep_known(known: pa.Schema, merged: pa.Schema) -> pa.Schema:
    """Return `known` and the fields of `merged` that are new, at any depth; where a type differs, the known one.

    Raises:
        ValueError: as `grown`.
    """
    import pyarrow as pa

    old = {f.name: f.type for f in known}
    folded = {name.casefold(): name for name in old}
    fields = []
    for field in merged:
        if field.name not in old and (twin := folded.get(field.name.casefold())) is not None:
            raise ValueError(f"key {field.name!r} differs from {twin!r} in case only")
        fields.append((field.name, _keep_type(old[field.name], field.type) if field.name in old else field.type))
    return pa.schema(fields)


def _keep_type(known: pa.DataType, merged: pa.DataType) -> pa.DataType:
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(known) and types.is_struct(merged):
        return pa.struct(list(keep_known(pa.schema(list(known)), pa.schema(list(merged)))))
    if types.is_list(known) and types.is_list(merged):
        return pa.list_(_keep_type(known.value_type, merged.value_type))
    return known


def _conforms(found: pa.Schema, schema: pa.Schema) -> bool:
    """Tell whether every column of `found` is one of `schema`, with the same type but for keys that it has more."""
    return all(_type_conforms(f.type, schema.field(f.name).type) for f in found)


def _type_conforms(found: pa.DataType, kind: pa.DataType) -> bool:
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(found) and types.is_struct(kind):
        return _conforms(pa.schema(list(found)), pa.schema(list(kind)))
    if types.is_list(found) and types.is_list(kind):
        return _type_conforms(found.value_type, kind.value_type)
    return bool(found == kind)


def initial_schema(known: pa.Schema, found: pa.Schema) -> pa.Schema:
    """Return the schema to read with: what was landed or declared stays, what a first look has found is added."""
    return keep_known(known, json_types.settle_schema(json_types.union_schema(known, found)))
