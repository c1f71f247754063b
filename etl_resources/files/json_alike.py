"""Lines that all have the keys of the first, in its order: found by their keys, and parsed by columns.

What is written by machines looks like that nearly always, and takes half the time of a parser that expects anything at
any place. Every byte is accounted for: what is no token of the first line's keys has to be the text between them,
letter by letter. Where a single line is otherwise, the whole block is left to the other parsers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from etl_resources.files.json_tokens import Tokens, is_written_as_text
from etl_resources.octets import positions, windows

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.octets import Positions

_QUOTE, _COLON, _SPACE = b'": '
_WORD = 8


def parse_alike(data: bytes, records: int, schema: pa.Schema) -> pa.Table | None:
    """Parse `records` lines of UTF-8 in the schema; None: they are not all alike, or not seen to be right."""
    import numpy as np
    import pyarrow as pa

    between = _between(data, schema)
    if between is None:
        return None
    octets = np.frombuffer(data, np.uint8)
    # Whatever is below a space must be escaped in a text, and so is a quote: there is no backslash.
    if np.count_nonzero(octets < _SPACE) != records - 1 + data.endswith(b"\n"):
        return None
    found = _tokens(data, [*between.values()], records)
    if found is None:
        return None
    place = {key: n for n, key in enumerate(between)}
    columns: list[pa.Array] = []
    # There must be just the quotes of the keys, and those of the values that are no NULL in columns of texts.
    strings = records * len(between)
    for field in schema:
        at = place.get(field.name)
        column = pa.nulls(records, field.type) if at is None else found.column(at, field.type)
        if column is None:
            return None
        columns.append(column)
        if at is not None and is_written_as_text(field.type):
            strings += records - column.null_count
    return pa.table(columns, schema=schema) if np.count_nonzero(octets == _QUOTE) == 2 * strings else None


def _between(data: bytes, schema: pa.Schema) -> dict[str, bytes] | None:
    """Return the text before the token of each key of the first line; None: it is no plain object of known keys."""
    if b"\\" in data or len(data) < _WORD:
        return None
    try:
        pairs = json.loads(data[: data.find(b"\n") if b"\n" in data else None], object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, list) or not pairs or not all(isinstance(p, tuple) for p in pairs):
        return None
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys) or not set(keys).issubset(schema.names):
        return None
    space = " " if data.startswith(f'{{"{keys[0]}": '.encode()) else ""
    return {k: f'{"," + space if n else "{"}"{k}":{space}'.encode() for n, k in enumerate(keys)}


def _tokens(data: bytes, between: list[bytes], records: int) -> Tokens | None:
    """Return the tokens of all lines, if the lines are `between` and these."""
    import numpy as np

    starts = positions(data, _QUOTE, _COLON)
    if len(starts) != records * len(between):
        return None
    starts = starts.reshape(records, -1)
    starts += len(b'":') + between[0].endswith(b" ")
    if not _precede(data, between, starts):
        return None
    ends = np.empty_like(starts)
    ends.ravel()[:-1] = (starts - [len(text) for text in between]).ravel()[1:]
    ends[:-1, -1] -= len(b"}\n")
    ends[-1, -1] = last = len(data) - data.endswith(b"\n") - len(b"}")
    if not data[last:].startswith(b"}") or not (ends > starts).all():
        return None
    return Tokens(data, starts, ends)


def _precede(data: bytes, between: list[bytes], starts: Positions) -> bool:
    """Tell whether the text of its column stands before each of the positions, and before a line the end of another."""
    import numpy as np

    texts = [b"}\n" + between[0], *between[1:]]
    words = -(-max(map(len, texts)) // _WORD)
    size = words * _WORD
    # Before the first ones there are fewer bytes than are compared.
    near = int(np.searchsorted(starts[:, 0], size))
    first, *others = starts[:near].ravel().tolist()
    if data[:first] != between[0]:
        return False
    if not all(data.endswith(text, 0, at) for at, text in zip(others, (texts * near)[1:], strict=True)):
        return False
    found = windows(data, f"V{size}")[starts[near:] - size].view("<u8").reshape(-1, len(texts), words)
    wanted = np.frombuffer(b"".join(text.rjust(size, b"\0") for text in texts), "<u8").reshape(-1, words)
    found &= np.frombuffer(b"".join((b"\xff" * len(t)).rjust(size, b"\0") for t in texts), "<u8").reshape(-1, words)
    return bool((found == wanted).all())
