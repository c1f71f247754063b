"""BSON values as Arrow arrays of a given type; a value that does not fit exactly marks its document as unreadable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etl_resources.files import json_types
from etl_resources.sources import mongodb_bson as b
from etl_resources.sources.mongodb_bson import CorruptError, Field, Values
from etl_resources.sources.mongodb_types import OLD_BINARY, UUID, decimals, subtypes
from etl_resources.sources.mongodb_values import fitted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.sources.mongodb_bson import Index

_YEAR_1, _YEAR_10000 = -62_135_596_800_000, 253_402_300_800_000
_DAY = 86_400_000
_EXACT = 1 << 53


class Converter:
    """Turns fields into arrays. `misfits`: number of the document -> why it does not fit."""

    def __init__(self) -> None:
        self.misfits: dict[int, str] = {}

    def struct(
        self, fields: Mapping[str, Field], kinds: list[pa.Field], owner: Index, path: str = ""
    ) -> list[pa.Array]:
        """Return one array per field of a type; `owner` says to which document of the batch each row belongs."""
        names = {kind.name for kind in kinds}
        for name in [name for name in fields if name not in names]:
            for values in fields[name].values():
                self._refuse(owner[values.rows], f"key {path + name!r} differs from another in case only")
        return [self._column(fields.get(f.name, {}), f.type, owner, path + f.name) for f in kinds]

    def _refuse(self, documents: Index, reason: str) -> None:
        for document in documents.tolist():
            self.misfits.setdefault(document, reason)

    def _column(self, found: Field, kind: pa.DataType, owner: Index, path: str) -> pa.Array:
        """Return the values of one key; null where there is none, or one that does not fit."""
        import numpy as np
        import pyarrow as pa

        pieces = [
            (values.rows, self._values(code, values, kind, owner, path))
            for code, values in found.items()
            if code not in {b.NULL, b.UNDEFINED}
        ]
        if not pieces:
            return pa.nulls(len(owner), kind)
        array = pieces[0][1] if len(pieces) == 1 else pa.concat_arrays([piece for _, piece in pieces])
        if len(pieces) == 1 and len(array) == len(owner):
            return array
        place = np.full(len(owner), -1, np.int64)
        place[np.concatenate([rows for rows, _ in pieces])] = np.arange(len(array))
        return array.take(pa.array(place, mask=place < 0))

    def _values(self, code: int, values: Values, kind: pa.DataType, owner: Index, path: str) -> pa.Array:
        import pyarrow as pa
        from pyarrow import types

        if code == b.DOCUMENT and types.is_struct(kind):
            arrays = self.struct(values.fields(), list(kind), owner[values.rows], f"{path}.")
            return pa.StructArray.from_arrays(arrays, fields=list(kind))
        if code == b.ARRAY and types.is_list(kind):
            return self._lists(values, kind, owner, path)
        array, good = _fast(code, values, kind)
        if array is None:
            return self._slow(code, values, kind, owner, path)
        if good is None or good.all():
            return array
        bad = (~good).nonzero()[0]
        some = Values(values.buffer, values.rows[bad], values.at[bad], values.size[bad])
        fixed = self._slow(code, some, kind, owner, path)
        return pa.compute.replace_with_mask(array, pa.array(~good), fixed)

    def _lists(self, values: Values, kind: pa.DataType, owner: Index, path: str) -> pa.Array:
        import numpy as np
        import pyarrow as pa

        counts, elements = values.elements()
        inner = self._column(elements, kind.value_type, np.repeat(owner[values.rows], counts), f"{path}[]")
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), inner, type=kind)

    def _slow(self, code: int, values: Values, kind: pa.DataType, owner: Index, path: str) -> pa.Array:
        """One value at a time: for what is rare, or has to be judged digit by digit."""
        import pyarrow as pa

        arrays: list[Any] = []
        for row, at, size in zip(values.rows.tolist(), values.at.tolist(), values.size.tolist(), strict=True):
            fit = None
            try:
                fit = fitted(code, values.buffer.data[at : at + size], kind, path)
            except json_types.MisfitError as error:
                self.misfits.setdefault(int(owner[row]), f"{error}; declare its type in `columns`")
            arrays.append(fit)
        return pa.array(arrays, kind)


Fast = tuple["pa.Array | None", "NDArray[np.bool_] | None"]
"""Values in the wanted type, and which of them are right (None: all); no array: there is no quick way."""


def _fast(code: int, values: Values, kind: pa.DataType) -> Fast:
    import pyarrow as pa
    from pyarrow import types

    found: Fast = (None, None)
    if code in {b.INT32, b.INT64}:
        found = _from_integers(values.buffer.numbers(values.at, "<i4" if code == b.INT32 else "<i8"), kind)
    elif code == b.DOUBLE:
        found = _from_doubles(values.buffer.numbers(values.at, "<f8"), kind)
    elif code == b.DATE and types.is_temporal(kind):
        found = _from_dates(values.buffer.numbers(values.at, "<i8"), kind)
    elif code == b.BOOL and types.is_boolean(kind):
        found = (pa.array(values.buffer.take(values.at, 1)[:, 0] != 0), None)
    elif code == b.DECIMAL and types.is_decimal(kind):
        found = _from_decimals(values, kind)
    elif code == b.BINARY and types.is_binary(kind):
        found = _from_binary(values)
    elif types.is_string(kind):
        found = _texts(code, values)
    return found


def _from_integers(numbers: NDArray[Any], kind: pa.DataType) -> Fast:
    import numpy as np
    import pyarrow as pa
    from pyarrow import types

    wide = numbers.astype(np.int64)
    if types.is_int64(kind):
        return pa.array(wide), None
    if types.is_floating(kind):
        return pa.array(wide.astype(np.float64)), (wide >= -_EXACT) & (wide <= _EXACT)
    if types.is_string(kind):
        return pa.array(wide).cast(kind), None
    if types.is_decimal(kind):
        try:
            return pa.array(wide).cast(pa.decimal128(38, 0)).cast(kind), None
        except pa.ArrowInvalid:
            return None, None
    return None, None


def _from_doubles(numbers: NDArray[Any], kind: pa.DataType) -> Fast:
    import numpy as np
    import pyarrow as pa
    from pyarrow import types

    if types.is_floating(kind):
        return pa.array(numbers), None
    if types.is_int64(kind):
        whole = (np.abs(numbers) < 2.0**63) & (np.floor(numbers) == numbers)
        return pa.array(np.where(whole, numbers, 0).astype(np.int64)), whole
    return None, None


def _from_dates(numbers: NDArray[Any], kind: pa.DataType) -> Fast:
    import numpy as np
    import pyarrow as pa
    from pyarrow import types

    good = (numbers >= _YEAR_1) & (numbers < _YEAR_10000)
    if types.is_date(kind):
        good &= numbers % _DAY == 0
        return pa.array((np.where(good, numbers, 0) // _DAY).astype(np.int32)).cast(kind), good
    return pa.array(np.where(good, numbers, 0) * 1000).cast(kind), good


def _from_decimals(values: Values, kind: pa.DataType) -> Fast:
    import numpy as np
    import pyarrow as pa

    low, high, negative, scale, special = decimals(values)
    places = int(scale[0])
    if special.any() or (scale != places).any() or not 0 <= places <= 38:
        return (None, None) if len(scale) == 1 else _by_scale(values, kind, scale)
    low, high = low.copy(), high.copy()
    low[negative] = ~low[negative] + np.uint64(1)
    high[negative] = ~high[negative] + (low[negative] == 0)
    words = np.stack([low, high], axis=1)
    array = pa.Array.from_buffers(pa.decimal128(38, places), len(low), [None, pa.py_buffer(words.tobytes())])
    try:
        return array.cast(kind), None
    except pa.ArrowInvalid:
        return None, None


def _by_scale(values: Values, kind: pa.DataType, scale: NDArray[Any]) -> Fast:
    """Decimals of several scales: each scale by itself; those without a quick way are left to be judged one by one."""
    import numpy as np
    import pyarrow as pa

    good = np.zeros(len(scale), np.bool_)
    place = np.full(len(scale), -1, np.int64)
    arrays, done = [], 0
    special = decimals(values)[4]
    for places in np.unique(scale[~special]).tolist():
        chosen = ((scale == places) & ~special).nonzero()[0]
        some = Values(values.buffer, values.rows[chosen], values.at[chosen], values.size[chosen])
        array, _ = _from_decimals(some, kind) if 0 <= places <= 38 else (None, None)
        if array is not None:
            good[chosen], place[chosen] = True, np.arange(done, done + len(chosen))
            arrays.append(array)
            done += len(chosen)
    if not arrays:
        return None, None
    return pa.concat_arrays(arrays).take(pa.array(place, mask=place < 0)), good


def _from_binary(values: Values) -> Fast:
    import numpy as np
    import pyarrow as pa

    old = np.where(subtypes(values) == OLD_BINARY, 4, 0)  # repeats the length inside
    offsets, octets = values.buffer.text(values.at + 5 + old, values.size - 5 - old)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(octets)]
    return pa.Array.from_buffers(pa.binary(), len(values.at), buffers), None


def _texts(code: int, values: Values) -> Fast:
    import numpy as np
    import pyarrow as pa

    if code in {b.TEXT, b.SYMBOL}:
        offsets, octets = values.buffer.text(values.at + 4, values.size - 5)
        array = pa.StringArray.from_buffers(len(values.at), pa.py_buffer(offsets), pa.py_buffer(octets))
        try:
            array.validate(full=True)
        except pa.ArrowInvalid as error:
            raise CorruptError("a string that is not UTF-8") from error
        return array, None
    if code == b.OBJECT_ID:
        return _hexadecimal(values.buffer.take(values.at, 12), ()), None
    if code == b.BINARY and (subtypes(values) == UUID).all() and (values.size == 21).all():
        return _hexadecimal(values.buffer.take(values.at + 5, 16), (4, 6, 8, 10)), None
    if code == b.DATE:
        moments = values.buffer.numbers(values.at, "<i8")
        good = (moments >= _YEAR_1) & (moments < _YEAR_10000)
        stamps = pa.array(np.where(good, moments, 0)).cast(pa.timestamp("ms"))
        return pa.compute.strftime(stamps, format="%Y-%m-%dT%H:%M:%SZ"), good
    return None, None


def _hexadecimal(octets: NDArray[np.uint8], dashes: tuple[int, ...]) -> pa.Array:
    """Return rows of bytes as text, with a dash before each of the bytes of these numbers."""
    import numpy as np
    import pyarrow as pa

    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    pairs = np.stack([digits[octets >> 4], digits[octets & 15]], axis=2).reshape(len(octets), -1)
    if dashes:
        pairs = np.insert(pairs, [2 * n for n in dashes], ord("-"), axis=1)
    offsets = np.arange(len(pairs) + 1, dtype=np.int32) * pairs.shape[1]
    return pa.StringArray.from_buffers(len(pairs), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(pairs)))
