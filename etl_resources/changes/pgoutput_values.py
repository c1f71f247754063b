"""From PostgreSQL's text of values to their Arrow types, whole columns at a time.

The text is what the settings of `postgres_columns.UNAMBIGUOUS` make of a value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from etl_resources.sources.postgres_types import Type, scalar

if TYPE_CHECKING:
    import pyarrow as pa

    Converted = tuple[pa.Array, pa.Array | None]
    """Values, and the texts of those that their type cannot hold, else null (None: it holds all of them)."""

    Converter = Callable[[pa.Array], Converted]

_DATE = r"^\d{4}-\d\d-\d\d$"
_TIMESTAMP = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?(\+00)?$"
_NUMBER = r"^-?[0-9]+(\.[0-9]+)?$"


def converter(type_: Type) -> Converter:
    """Return the function that turns texts of a type (strings) into what `postgres_columns` declares for it."""
    if type_.element is not None:
        from etl_resources.changes.pgoutput_arrays import arrays

        return arrays(type_.element, type_.delimiter)
    if type_.fields:
        from etl_resources.changes.pgoutput_records import records

        return records(type_)
    return _scalars(type_)


def _scalars(type_: Type) -> Converter:
    import pyarrow as pa
    import pyarrow.compute as pc

    arrow = scalar(type_)
    if type_.kind == "b" and type_.name == "money":
        return _fitting(lambda texts: plain_money(texts, type_.scale))
    if type_.kind == "b" and type_.name == "inet":
        return _fitting(with_mask)
    if pa.types.is_string(arrow):
        return _fitting(lambda texts: texts)
    if pa.types.is_binary(arrow):
        return _fitting(unhex)
    if pa.types.is_boolean(arrow):
        return _fitting(lambda texts: pc.equal(texts, "t"))
    pattern = _DATE if pa.types.is_date(arrow) else _TIMESTAMP if pa.types.is_timestamp(arrow) else _NUMBER
    return lambda texts: _cast(texts, arrow, pattern)


def _fitting(convert: Callable[[pa.Array], pa.Array]) -> Converter:
    return lambda texts: (convert(texts), None)


def _cast(texts: pa.Array, arrow: pa.DataType, pattern: str) -> Converted:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return pc.cast(texts, arrow), None
    except pa.ArrowInvalid:
        fits = pc.match_substring_regex(texts, pattern)
        if not pa.types.is_decimal(arrow):
            fits = pc.and_(fits, pc.invert(pc.starts_with(texts, "0000-")))
        return pc.cast(pc.if_else(fits, texts, None), arrow), pc.if_else(fits, None, texts)


def plain_money(texts: pa.Array, scale: int) -> pa.Array:
    """Return amounts of money, as any locale writes them, as plain numbers: digits behind the point are `scale`."""
    import pyarrow.compute as pc

    digits = pc.replace_substring_regex(texts, "[^0-9]", "")
    if scale:
        digits = pc.replace_substring_regex(digits, rf"^([0-9]+)([0-9]{{{scale}}})$", r"\1.\2")
    negative = pc.match_substring_regex(texts, r"[-(\x{2212}]")
    return pc.if_else(negative, pc.binary_join_element_wise("-", digits, ""), digits)


def with_mask(texts: pa.Array) -> pa.Array:
    """Return addresses with the mask that a cast to text gives to those of hosts."""
    import pyarrow.compute as pc

    mask = pc.if_else(pc.match_substring(texts, ":"), "/128", "/32")
    bare = pc.invert(pc.match_substring(texts, "/"))
    return pc.if_else(bare, pc.binary_join_element_wise(texts, mask, ""), texts)


def unhex(texts: pa.Array) -> pa.Array:
    """Return the bytes of texts such as `\\x00ff`."""
    import numpy as np
    import pyarrow as pa

    offsets, octets, given = pieces(texts)
    keep = np.ones(len(octets), np.bool_)
    marks = offsets[:-1][given]
    keep[marks] = keep[marks + 1] = False
    digits = _hex_values()[octets[keep]]
    lengths = np.where(given, np.diff(offsets) // 2 - 1, 0)
    return from_pieces(np.concatenate(([0], np.cumsum(lengths))), digits[0::2] << 4 | digits[1::2], given, pa.binary())


def _hex_values() -> Any:
    import numpy as np

    values = np.zeros(256, np.uint8)
    values[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
    return values


def pieces(texts: pa.Array) -> tuple[Any, Any, Any]:
    """Return offsets (n + 1, from 0), the bytes they are about, and which are given, of strings."""
    import numpy as np
    import pyarrow.compute as pc

    given = texts.is_valid().to_numpy(zero_copy_only=False)
    # There may be bytes behind what is null; filled with nothing, there are none.
    filled = pc.fill_null(texts, "") if texts.null_count else texts
    _, offsets, data = filled.buffers()
    bounds = np.frombuffer(offsets, np.int32)[filled.offset : filled.offset + len(filled) + 1].astype(np.int64)
    octets = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]] if data is not None else np.empty(0, np.uint8)
    return bounds - bounds[0], octets, given


def from_pieces(offsets: Any, octets: Any, given: Any, type_: pa.DataType) -> pa.Array:
    """Return strings or binaries; the reverse of `pieces`."""
    import numpy as np
    import pyarrow as pa

    missing = None if given.all() else pa.py_buffer(np.packbits(given, bitorder="little"))
    bounds = pa.py_buffer(offsets.astype(np.int32))
    return pa.Array.from_buffers(type_, len(given), [missing, bounds, pa.py_buffer(np.ascontiguousarray(octets))])
