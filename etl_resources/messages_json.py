"""Bodies that are JSON objects, parsed by Arrow many at a time; what surprises it is looked at one by one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from etl_resources.files import json_types
from etl_resources.files.align import align
from etl_resources.files.json_format import initial_schema, keep_known, parse_one_by_one
from etl_resources.files.json_parse import JsonSettings, parse_block
from etl_resources.files.json_records import scan
from etl_resources.files.json_sample import sample_schema
from etl_resources.messages import Decoded, Decoder

if TYPE_CHECKING:
    import pyarrow as pa

_SPACE = b" \t\r\n"
_BLOCK_BYTES = 2 << 20
_SAMPLE_BYTES = 8 << 20
_FEW = 32
_PARTS = 16


class JsonDecoder(Decoder):
    """A column for each key. Types that are set stay; a value that does not fit makes its message unreadable."""

    def __init__(self, columns: Mapping[str, str], landed: Mapping[str, Any], reserved: frozenset[str]) -> None:
        import pyarrow as pa

        declared = pa.schema([(n, json_types.parse_type(kind, n)) for n, kind in columns.items()])
        before = json_types.load_schema(landed.get("schema", {}))
        self._schema = pa.schema(list({f.name: f for f in [*before, *declared]}.values()))
        self._reserved = reserved
        self._sampled = False

    @property
    def schema(self) -> pa.Schema:
        """Return the columns that are known by now."""
        return self._schema

    def dump(self) -> dict[str, Any]:
        """Return what a position keeps."""
        return {"schema": json_types.dump_schema(self._schema)}

    def decode(self, bodies: Sequence[bytes | None]) -> Decoded:
        """Return the columns of the bodies."""
        import pyarrow as pa

        present = [(n, body.strip(_SPACE)) for n, body in enumerate(bodies) if body is not None]
        stripped = [body for _, body in present]
        self._sample(stripped)
        tables, bad = [], []
        for start, block in _blocks(stripped):
            for table, wrong in self._parse(block, start):
                tables.append(table)
                bad += wrong
        table = pa.concat_tables([align(t, self._schema) for t in tables]) if tables else self._schema.empty_table()
        wrong_at = {present[n][0]: reason for n, reason in bad}
        if len(present) < len(bodies):
            table = self._with_null_rows(table, bodies, wrong_at)
        return Decoded(table, len(bodies) - len(bad), sorted(wrong_at.items()))

    def _sample(self, bodies: list[bytes]) -> None:
        """Set the types of keys that are not known yet by a look at the first messages of a run, as wide as needed."""
        if self._sampled or not bodies:
            return
        self._sampled = True
        lines = io.BytesIO(b"\n".join(body.replace(b"\n", b" ") for body in bodies))
        found, _ = sample_schema(lines, "messages", JsonSettings(lines=True), _SAMPLE_BYTES)
        # A key that differs from a known one in case only is told of its message, when that is parsed.
        with suppress(ValueError):
            self._schema = self._allowed(initial_schema(self._schema, found))

    def _parse(self, bodies: list[bytes], start: int) -> Iterator[tuple[pa.Table, list[tuple[int, str]]]]:
        """Yield the rows of the bodies, and those that are none, by their index."""
        if self._schema.names and (table := _parse_aligned(bodies, self._schema)) is not None:
            yield table, []
        elif len(bodies) > _FEW:
            size = max(_FEW, -(-len(bodies) // _PARTS))
            for n in range(0, len(bodies), size):
                yield from self._parse(bodies[n : n + size], start + n)
        else:
            yield self._one_by_one(bodies, start)

    def _one_by_one(self, bodies: list[bytes], start: int) -> tuple[pa.Table, list[tuple[int, str]]]:
        numbered, bad = [], []
        for n, body in enumerate(bodies, start):
            if taken := self._reserved_keys(body):
                bad.append((n, f"key {', '.join(taken)}: a name that is kept for columns of the platform"))
            else:
                numbered.append((n, body))
        table, unreadable = parse_one_by_one(JsonSettings(), numbered, self._schema)
        self._schema = keep_known(self._schema, table.schema)
        return table, sorted(bad + [(u.line, u.reason) for u in unreadable])

    def _reserved_keys(self, body: bytes) -> list[str]:
        try:
            value = json_types.loads(body)
        except (ValueError, RecursionError):
            return []  # what is wrong with it is said when it is parsed
        return [key for key in value if key.casefold() in self._reserved] if isinstance(value, dict) else []

    def _allowed(self, schema: pa.Schema) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([f for f in schema if f.name.casefold() not in self._reserved])

    def _with_null_rows(self, table: pa.Table, bodies: Sequence[bytes | None], wrong: Mapping[int, str]) -> pa.Table:
        import pyarrow as pa

        if not table.num_columns:
            return table
        at = iter(range(len(bodies)))
        rows = [None if body is None else next(at) for n, body in enumerate(bodies) if n not in wrong]
        return table.take(pa.array(rows, pa.int64()))


def _blocks(bodies: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the bodies in blocks of about 2 MB, each with the index of its first."""
    start = size = 0
    for n, body in enumerate(bodies):
        size += len(body)
        if size >= _BLOCK_BYTES:
            yield start, bodies[start : n + 1]
            start, size = n + 1, 0
    if start < len(bodies):
        yield start, bodies[start:]


def _parse_aligned(bodies: list[bytes], schema: pa.Schema) -> pa.Table | None:
    """Parse the bodies at once; None: something in them is a surprise.

    That there are as many objects as bodies is not enough: two broken bodies may make two objects when joined. So
    every object has to end where a body ends.
    """
    import numpy as np

    data = b",".join(bodies)
    ends = np.cumsum(np.fromiter(map(len, bodies), np.int64, len(bodies)) + 1) - 2
    found = scan(data, 0)
    if not np.array_equal(found.at[found.depth == 0], ends):
        return None
    return parse_block(data, len(bodies), schema, lines=False)
