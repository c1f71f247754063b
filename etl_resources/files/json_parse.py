"""JSON text to Arrow: whole blocks at once, or a single record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from etl_resources.files import json_types
from etl_resources.files.chunks import blocks_of
from etl_resources.files.csv_records import Block, Dialect, Piece, record_pieces
from etl_resources.files.json_alike import parse_alike
from etl_resources.files.json_digits import digits_lost
from etl_resources.files.json_records import Document, parse_path, scan

if TYPE_CHECKING:
    import pyarrow as pa

_LINES = Dialect(quote=None)
_SPACE = b" \t\r\n"
_PARTS = 16
_UNITS = 2
"""With less NumPy gives up and takes back the interpreter so often that two threads are no faster than one."""
_MAX_DEPTH = 100
_STEP = 64


@dataclass(frozen=True)
class JsonSettings:
    """How JSON is written: `lines` is one record per line, else `records` is the path of keys to the array."""

    lines: bool = False
    records: str | None = None
    encoding: str = "utf-8"
    max_record_bytes: int = 8 << 20


Numbered = tuple[int, bytes]


def pieces(stream: IO[bytes], origin: str, settings: JsonSettings) -> Iterator[Piece]:
    """Yield the stream as blocks of whole records, and what cannot be one."""
    blocks = blocks_of(stream, settings.encoding, origin, units=_UNITS if settings.lines else 1)
    if settings.lines:
        return record_pieces(blocks, _LINES, first_line=1, max_record_bytes=settings.max_record_bytes)
    return Document(blocks, origin, settings.max_record_bytes).records(parse_path(settings.records))


def parse_block(data: bytes, records: int, schema: pa.Schema | None, *, lines: bool) -> pa.Table | None:
    """Parse whole records at once; None: something in them is a surprise. Without a schema the types are guessed."""
    if not _is_utf8(data):
        return None
    if lines and schema is not None and (table := parse_alike(data, records, schema)) is not None:
        return table
    plain = lines and _is_object_per_line(data, records)
    if _may_be_deep(data, records if plain else 0):
        return None
    if plain and schema is not None and len(schema):
        table = _read_json(data, schema)
    else:
        # As elements of one array: Arrow crashes on a line of null, and takes two objects on a line for two rows.
        data = data.strip(_SPACE).replace(b"\n", b",\n") if lines else data.strip(_SPACE + b",")
        table = _parse_array(data, schema)
    if table is None or table.num_rows != records or digits_lost(data, table):
        return None
    return table


def _parse_array(elements: bytes, schema: pa.Schema | None) -> pa.Table | None:
    import pyarrow as pa

    known = pa.schema([("r", pa.list_(pa.struct(list(schema))))]) if schema is not None else None
    found = _read_json(b'{"r":[' + elements + b"]}", known)
    if found is None:
        return None
    column = found.column(0)
    try:
        # Where Arrow guesses types, it counts wrong behind a list that begins with nulls.
        column.validate(full=known is None)
        column = column.combine_chunks()
    except (pa.ArrowInvalid, UnicodeDecodeError, pa.ArrowNotImplementedError):
        return None
    if len(column) != 1 or not pa.types.is_list(column.type) or not pa.types.is_struct(column.type.value_type):
        return None
    rows = column.values
    return None if rows.null_count else pa.Table.from_arrays(rows.flatten(), schema=pa.schema(list(rows.type)))


def _is_object_per_line(data: bytes, records: int) -> bool:
    """Tell whether every line begins and ends as an object does, so that none goes on in the next line or is a scalar.

    As many rows as lines are then one row per line. Only what is written most plainly is seen; false may be wrong.
    """
    import numpy as np

    if not (data.startswith(b"{") and data.endswith((b"}", b"}\n"))):
        return False
    octets = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets[:-1] == ord("\n"))
    between = (octets[ends - 1] == ord("}")) & (octets[ends + 1] == ord("{"))
    return int(np.count_nonzero(between)) == records - 1


def _read_json(data: bytes, schema: pa.Schema | None) -> pa.Table | None:
    import pyarrow as pa
    import pyarrow.json as pj

    try:
        options = pj.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "error"
        )
        read = pj.ReadOptions(use_threads=False, block_size=len(data) + 1)
        return pj.read_json(pa.BufferReader(data), read, options)
    except (pa.ArrowInvalid, UnicodeDecodeError, pa.ArrowNotImplementedError):
        return None


def parts_of(block: Block, *, lines: bool) -> Iterator[list[Numbered]]:
    """Yield the records of a block in small lists, each record with its line."""
    records = list(_lines(block) if lines else _elements(block))
    size = max(1, -(-len(records) // _PARTS))
    for n in range(0, len(records), size):
        yield records[n : n + size]


def _lines(block: Block) -> Iterator[Numbered]:
    for n, line in enumerate(block.data.split(b"\n"), block.line):
        if line.strip(_SPACE):
            yield n, line.strip(_SPACE)


def _elements(block: Block) -> Iterator[Numbered]:
    """Yield objects and arrays one by one, and what stands between them, which cannot be a record, apart."""
    import numpy as np

    found = scan(block.data, 0)
    opens = found.at[(found.depth == 1) & (np.diff(found.depth, prepend=0) > 0)]
    at, line = 0, block.line
    for start, end in zip(opens.tolist(), found.at[found.depth == 0].tolist(), strict=True):
        between = block.data[at:start]
        if scalars := between.strip(_SPACE + b","):
            yield line + between[: between.index(scalars)].count(b"\n"), scalars
        line += between.count(b"\n")
        yield line, block.data[start : end + 1]
        at, line = end + 1, line + block.data.count(b"\n", start, end + 1)


def loads_object(record: bytes) -> dict[str, Any]:
    """Parse one record.

    Raises:
        ValueError: it is no JSON object, or an ambiguous one.
    """
    try:
        value = json_types.loads(record)
    except RecursionError:
        value = None
    if value is None or _depth(value) > _MAX_DEPTH:
        raise ValueError(f"null, or nested more than {_MAX_DEPTH} deep")
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - a bad record, as others are
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= _MAX_DEPTH:
        level = [v for x in level for v in (x.values() if isinstance(x, dict) else x if isinstance(x, list) else ())]
        depth += 1
    return depth


def _is_utf8(data: bytes) -> bool:
    """Tell whether text is valid; Arrow's JSON parser does not look."""
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


def _may_be_deep(text: bytes, objects: int) -> bool:
    """Tell whether brackets may be nested so deep that Arrow's recursive parser would crash for want of stack.

    So many `objects` are known to stand side by side. Counts brackets in strings, too, so it may be wrong to the safe
    side.
    """
    import numpy as np

    octets = np.frombuffer(text, np.uint8)
    if b"[" not in text and np.count_nonzero(octets == ord("{")) - objects < _STEP:
        return False
    octets = octets[: len(octets) // _STEP * _STEP].reshape(-1, _STEP) | np.uint8(32)  # takes [ for {, and ] for }
    opened = np.count_nonzero(octets == ord("{"), axis=1) - np.count_nonzero(octets == ord("}"), axis=1)
    return bool(len(opened)) and int(np.cumsum(opened).max()) > _STEP
