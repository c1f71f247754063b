"""The tokens of one JSON key in many lines, as bytes from here to there, become one column; strict, or not at all.

A token that is no JSON, or that its column cannot hold as it is written, is refused with the whole column: the parser
that sees one record at a time says what is wrong with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl_resources.files.json_types import exact_as_float
from etl_resources.octets import pieces, windows

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.octets import Positions

_QUOTE, _MINUS, _DOT, _ZERO, _NULL = b'"-.0n'
_WORD = 8
_EXACT_DIGITS = 15
"""So many digits always survive in a float64."""


class Tokens:
    """Tokens of lines: bytes `starts` to before `ends` of `data`, a row for each line, a column for each key.

    None of them is empty, and each begins behind the one before it.
    """

    def __init__(self, data: bytes, starts: Positions, ends: Positions) -> None:
        import numpy as np

        self._data, self._starts, self._ends = data, starts, ends
        self._octets = np.frombuffer(data, np.uint8)
        self._first, self._last = self._octets[starts], self._octets[ends - 1]
        self._sizes = ends - starts
        self._some_null = (self._first == _NULL).any(axis=0).tolist()

    def column(self, at: int, kind: pa.DataType) -> pa.Array | None:
        """Return the tokens of a key as a column; None: one of them is something else, or is not seen to be right."""
        from pyarrow import types

        null = self._first[:, at] == _NULL if self._some_null[at] else None
        if null is not None and not self._are(b"null", at, null):
            return None
        if is_written_as_text(kind):
            return converted(self._texts(at, null), kind)
        if types.is_int64(kind) and null is None and (found := self._integers(at)) is not None:
            return found
        if types.is_int64(kind) or types.is_float64(kind):
            return numbers(self._data, self._starts[:, at], self._ends[:, at], kind, null)
        return self._booleans(at, null) if types.is_boolean(kind) else None

    def _are(self, text: bytes, at: int, where: NDArray[np.bool_]) -> bool:
        """Tell whether those of a column that are asked for are just this text."""
        starts = self._starts[where, at]
        return bool((self._sizes[where, at] == len(text)).all()) and all(
            (self._octets[starts + n] == octet).all() for n, octet in enumerate(text)
        )

    def _texts(self, at: int, null: NDArray[np.bool_] | None) -> pa.Array | None:
        import pyarrow as pa

        quoted = (self._first[:, at] == _QUOTE) & (self._last[:, at] == _QUOTE) & (self._sizes[:, at] > 1)
        if not (quoted if null is None else quoted | null).all():
            return None
        return pieces(self._data, self._starts[:, at] + 1, self._ends[:, at] - 1, null, pa.string())

    def _integers(self, at: int) -> pa.Array | None:
        """Whole numbers of up to sixteen digits without a sign, eight digits at a time."""
        import numpy as np
        import pyarrow as pa

        size, end = self._sizes[:, at], self._ends[:, at]
        longest = int(size.max())
        if longest > 2 * _WORD or ((self._first[:, at] == _ZERO) & (size > 1)).any():
            return None
        found = _eight_digits(self._word(end), np.minimum(size, _WORD))
        if found is not None and longest > _WORD:
            high = _eight_digits(self._word(end - _WORD), np.maximum(size - _WORD, 0))
            found = None if high is None else found + high * np.uint64(10**_WORD)
        return None if found is None else pa.array(found.view(np.int64))

    def _word(self, end: Positions) -> NDArray[np.uint64]:
        """Return the eight bytes before each position, the first the lowest; only those of the token mean anything."""
        import numpy as np

        words: NDArray[np.uint64] = windows(self._data, f"V{_WORD}")[np.maximum(end - _WORD, 0)].view("<u8")
        for n in range(min(3, len(end))):  # lines are longer than four bytes
            if (stop := int(end[n])) < _WORD:
                words[n] = int.from_bytes(self._data[: max(stop, 0)].rjust(_WORD, b"0"), "little")
        return words

    def _booleans(self, at: int, null: NDArray[np.bool_] | None) -> pa.Array | None:
        import pyarrow as pa

        true = self._first[:, at] == ord("t")
        false = ~true if null is None else ~(true | null)
        if not (self._are(b"true", at, true) and self._are(b"false", at, false)):
            return None
        return pa.array(true, mask=null)


def is_written_as_text(kind: pa.DataType) -> bool:
    """Tell whether a token of this type is a string of JSON, unless it is null."""
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_temporal(kind))


def numbers(
    data: bytes, start: Positions, end: Positions, kind: pa.DataType, null: NDArray[np.bool_] | None
) -> pa.Array | None:
    """Return pieces of `data` as int64 or float64; None: one is no number as JSON writes it, or does not fit."""
    import pyarrow as pa

    texts = pieces(data, start, end, null, pa.string())
    shown = texts if null is None else texts.drop_null()
    found = converted(texts, kind) if _are_numbers(shown) else None
    if found is None or (pa.types.is_float64(kind) and not all(exact_as_float(t) for t in _long(shown))):
        return None
    return found


def converted(texts: pa.Array | None, kind: pa.DataType) -> pa.Array | None:
    """Return texts as another type; None: there are none, or one of them does not fit."""
    import pyarrow as pa

    if texts is None:
        return None
    try:
        return texts.cast(kind)
    except pa.ArrowInvalid:
        return None


def _eight_digits(words: NDArray[np.uint64], digits: Positions) -> NDArray[np.uint64] | None:
    """Return the numbers that the last `digits` bytes of each word write; None: one byte is no digit."""
    import numpy as np

    u = np.uint64
    kept = np.array([(2**64 - 1) << 8 * (_WORD - n) & (2**64 - 1) for n in range(_WORD + 1)], u)[digits]
    words = (words & kept) | (~kept & u(0x3030303030303030))
    high = u(0xF0F0F0F0F0F0F0F0)
    if (((words & high) | (((words + u(0x0606060606060606)) & high) >> u(4))) != u(0x3333333333333333)).any():
        return None
    # Neighbours are added up: pairs of digits, pairs of pairs, and those.
    words &= u(0x0F0F0F0F0F0F0F0F)
    words = words * u(10) + (words >> u(8))
    pairs = u(0x000000FF000000FF)
    found: NDArray[np.uint64] = (
        (words & pairs) * u(100 + (1000000 << 32)) + ((words >> u(16)) & pairs) * u(1 + (10000 << 32))
    ) >> u(32)
    return found


def _are_numbers(texts: pa.Array) -> bool:
    """Tell whether texts, none of them null or empty, are numbers as JSON writes them, without an exponent.

    What has two dots is left to who converts them.
    """
    import numpy as np

    if not len(texts):
        return True
    bounds = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    octets = np.frombuffer(texts.buffers()[2], np.uint8)[bounds[0] : bounds[-1]]
    start, end = bounds[:-1] - bounds[0], bounds[1:] - bounds[0]
    is_digit = (octets - np.uint8(_ZERO)) < 10
    minus = octets[start] == _MINUS
    first = start + minus
    others = octets[~is_digit]
    if not is_digit[end - 1].all() or not is_digit[first].all():
        return False
    if np.count_nonzero(others == _DOT) + np.count_nonzero(minus) != len(others):
        return False
    zero = first[(octets[first] == _ZERO) & (end - first > 1)]
    return not is_digit[zero + 1].any()


def _long(texts: pa.Array) -> list[str]:
    import pyarrow.compute as pc

    found: list[str] = texts.filter(pc.greater(pc.binary_length(texts), _EXACT_DIGITS)).to_pylist()
    return found
