"""The types of JSON records, from a first look at them."""

from __future__ import annotations

from functools import reduce
from typing import IO, TYPE_CHECKING

from etl_resources.files import json_types
from etl_resources.files.chunks import map_in_order
from etl_resources.files.csv_records import Block
from etl_resources.files.json_parse import JsonSettings, loads_object, parse_block, parts_of, pieces

if TYPE_CHECKING:
    import pyarrow as pa

_LEAST = 32 << 10
"""What a file costs of the budget at least, so that a look at many small files comes to an end."""


def sample_schema(stream: IO[bytes], origin: str, settings: JsonSettings, budget: int) -> tuple[pa.Schema, int]:
    """Return the schema, not settled, of about the first `budget` bytes, and how many bytes were looked at."""
    import pyarrow as pa

    blocks, used = [], 0
    for piece in pieces(stream, origin, settings):
        if isinstance(piece, Block):
            blocks.append(piece)
            used += len(piece.data)
        if used >= budget:
            break
    schemas = map_in_order(lambda block: _schema_of(block, settings), blocks)
    return reduce(json_types.union_schema, schemas, pa.schema([])), max(used, _LEAST)


def _schema_of(block: Block, settings: JsonSettings) -> pa.Schema:
    import pyarrow as pa

    table = parse_block(block.data, block.records, None, lines=settings.lines)
    if table is not None:
        return _without_guessed_dates(table.schema)
    schema = pa.schema([])
    for part in parts_of(block, lines=settings.lines):
        table = parse_block(b",".join(record for _, record in part), len(part), None, lines=False)
        if table is not None:
            schema = json_types.union_schema(schema, _without_guessed_dates(table.schema))
            continue
        for _, record in part:
            try:
                found = pa.schema(list(json_types.type_of(loads_object(record))))
            except ValueError:
                continue  # set aside, with its reason, when it is read
            schema = json_types.union_schema(schema, found)
    return schema


def _without_guessed_dates(schema: pa.Schema) -> pa.Schema:
    """Arrow takes strings that look like a timestamp for one; a string is left a string."""
    import pyarrow as pa
    from pyarrow import types

    def plain(kind: pa.DataType) -> pa.DataType:
        if types.is_struct(kind):
            return pa.struct([(f.name, plain(f.type)) for f in kind])
        if types.is_list(kind):
            return pa.list_(plain(kind.value_type))
        return pa.string() if types.is_temporal(kind) else kind

    return pa.schema([(f.name, plain(f.type)) for f in schema])
