"""Numbers of the row binlog as Arrow arrays: gathered from all rows at once."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from etl_resources.changes import mysql_types as kinds

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.changes.mysql_types import Physical

_DIGITS = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
_INTEGERS = {
    kinds.TINY: ("i1", "u1"), kinds.SHORT: ("<i2", "<u2"), kinds.LONG: ("<i4", "<u4"), kinds.LONGLONG: ("<i8", "<u8"),
    kinds.YEAR: ("u1", "u1"), kinds.FLOAT: ("<f4", "<f4"), kinds.DOUBLE: ("<f8", "<f8"),
}  # fmt: skip


def gather(data: NDArray[np.uint8], at: NDArray[np.int64], form: str) -> NDArray[Any]:
    """Return the numbers of the form (a dtype of numpy) that begin at `at`, wherever that is."""
    import numpy as np

    kind = np.dtype(form)
    return np.ndarray(len(data) - kind.itemsize + 1, kind, data.data, 0, (1,))[at]


def big_endian(data: NDArray[np.uint8], at: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
    """Return the unsigned numbers of `size` (1 to 8) bytes, highest first, that begin at `at`."""
    import numpy as np

    return gather(data, at, ">u8").astype(np.uint64) >> np.uint64(64 - 8 * size)


def integers(data: NDArray[np.uint8], column: Physical, at: NDArray[np.int64]) -> NDArray[Any]:
    """Return the values of any column of whole or binary floating numbers, as numpy has them."""
    import numpy as np

    if column.kind == kinds.BIT:
        return big_endian(data, at, column.width)
    if column.kind == kinds.INT24:
        low = (gather(data, at, "<u4") & np.uint32(0xFFFFFF)).astype(np.int32)
        return low if column.unsigned else (low ^ 0x800000) - 0x800000
    values = gather(data, at, _INTEGERS[column.kind][column.unsigned])
    if column.kind == kinds.YEAR:
        return np.where(values == 0, 0, values.astype(np.int16) + 1900).astype(np.int16)
    return values


def wide(low: NDArray[np.uint64], high: NDArray[np.uint64], nulls: NDArray[np.bool_], type_: pa.DataType) -> pa.Array:
    """Return numbers of 128 bits as decimals."""
    import numpy as np
    import pyarrow as pa

    both = np.empty((len(low), 2), np.uint64)
    both[:, 0], both[:, 1] = low, high
    valid = pa.py_buffer(np.packbits(~nulls, bitorder="little").tobytes()) if nulls.any() else None
    return pa.Array.from_buffers(type_, len(low), [valid, pa.py_buffer(both)])


def decimals(
    data: NDArray[np.uint8], column: Physical, at: NDArray[np.int64], nulls: NDArray[np.bool_], type_: pa.DataType
) -> pa.Array:
    """Return the values of a DECIMAL: groups of nine digits in four bytes, all inverted where it is negative."""
    import numpy as np

    negative = data[at] & 0x80 == 0
    groups = _groups(data, column, at, negative)
    if column.precision > 38:
        return _long_decimals(groups, negative, nulls, column.scale)
    if column.precision <= 18:
        total = np.zeros(len(at), np.int64)
        for group, digits in groups:
            total = total * 10**digits + group.astype(np.int64)
        total = np.where(negative, -total, total)
        return wide(total.view(np.uint64), (total >> 63).view(np.uint64), nulls, type_)
    limbs = [np.zeros(len(at), np.uint64) for _ in range(4)]
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for group, digits in groups:
        carry = group
        for n, limb in enumerate(limbs):
            product = limb * np.uint64(10**digits) + carry
            limbs[n], carry = product & mask, product >> half
    low, high = limbs[0] | limbs[1] << half, limbs[2] | limbs[3] << half
    minus = ~low + np.uint64(1)
    high = np.where(negative, ~high + (minus == 0).astype(np.uint64), high)
    return wide(np.where(negative, minus, low), high, nulls, type_)


def _groups(
    data: NDArray[np.uint8], column: Physical, at: NDArray[np.int64], negative: NDArray[np.bool_]
) -> list[tuple[NDArray[np.uint64], int]]:
    """Return the groups of digits, highest first, and how many digits each has."""
    import numpy as np

    whole, scale = column.precision - column.scale, column.scale
    digits = [n for n in (whole % 9, *[9] * (whole // 9), *[9] * (scale // 9), scale % 9) if n]
    found, begin = [], at
    for n, count in enumerate(digits):
        size = _DIGITS[count]
        group = big_endian(data, begin, size)
        if n == 0:
            group = group ^ np.uint64(1 << (8 * size - 1))
        found.append((np.where(negative, group ^ np.uint64(2 ** (8 * size) - 1), group), count))
        begin = begin + size
    return found


def _long_decimals(
    groups: list[tuple[NDArray[np.uint64], int]], negative: NDArray[Any], nulls: NDArray[Any], scale: int
) -> pa.Array:
    """Return decimals of more than 38 digits as text: rare, so each may be turned into an object."""
    import pyarrow as pa

    texts = []
    for row, is_null in enumerate(nulls.tolist()):
        total = 0
        for group, digits in groups:
            total = total * 10**digits + int(group[row])
        sign = int(bool(negative[row]))
        texts.append(None if is_null else format(Decimal((sign, tuple(map(int, str(total))), -scale)), "f"))
    return pa.array(texts, pa.string())
