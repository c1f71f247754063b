"""Numbers with more digits than float64 keeps, found without looking at every byte."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etl_resources.files.json_types import exact_as_float

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.octets import Positions

_RUN = 16
_STRIDE = _RUN // 2
_NUMBER = re.compile(rb"\d[\d.]*(?:[eE][+-]?\d+)?")
_BEFORE_NUMBER = b" \t\r\n:,[-"


def digits_lost(text: bytes, table: pa.Table) -> bool:
    """Tell whether a float64 of the table may have fewer digits than the JSON that it was parsed from.

    Fifteen digits always survive, so only longer numbers are looked at; and those only if the table has floats.
    """
    import pyarrow.compute as pc

    floats = [f for c in table.itercolumns() for f in _float_leaves(c.combine_chunks())]
    if not floats or not len(starts := _long_runs(text)):
        return False
    large = any((pc.max(pc.abs(f)).as_py() or 0) >= 2**53 for f in floats)
    return any(_is_lost(number, large=large) for number in _numbers_at(text, starts.tolist()))


def _is_lost(number: bytes, *, large: bool) -> bool:
    fraction = b"." in number or b"e" in number.lower()
    # A whole number is most likely an int64; it can be a float only where there are floats as large.
    return (fraction or large) and not exact_as_float(number.decode())


def _numbers_at(text: bytes, starts: list[int]) -> Iterator[bytes]:
    for start in starts:
        found = _NUMBER.match(text, start)
        if found and text[start - 1] in _BEFORE_NUMBER:
            yield found.group()


def _long_runs(text: bytes) -> Positions:
    """Return where runs of at least 16 digits and dots begin. Such a run covers two neighbours of every eighth byte."""
    import numpy as np

    octets = np.frombuffer(text, np.uint8)

    def digit(at: Any) -> NDArray[np.bool_]:
        # 46 to 57: dot, slash (which no number has) and digits.
        found: NDArray[np.bool_] = (octets[np.clip(at, 0, len(octets) - 1)] - np.uint8(46)) < 12
        return found

    every = (octets[::_STRIDE] - np.uint8(46)) < 12
    inner = np.flatnonzero(every[:-1] & every[1:]) * _STRIDE
    for offset in range(1, _STRIDE):
        inner = inner[digit(inner + offset)]
    first = inner[np.diff(inner, prepend=-_RUN) != _STRIDE]
    last = inner[np.diff(inner, append=len(text) + _RUN) != _STRIDE] + _STRIDE
    start, end = first.copy(), last.copy()
    for offset in range(1, _STRIDE):
        start -= (start == first - offset + 1) & (first >= offset) & digit(first - offset)
        end += (end == last + offset - 1) & (last + offset < len(octets)) & digit(last + offset)
    runs: Positions = start[end - start + 1 >= _RUN]
    return runs


def _float_leaves(column: Any) -> Iterator[Any]:
    from pyarrow import types

    if types.is_floating(column.type):
        yield column
    elif types.is_list(column.type):
        yield from _float_leaves(column.flatten())
    elif types.is_struct(column.type):
        for child in column.flatten():
            yield from _float_leaves(child)
