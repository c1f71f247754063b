"""Dates and times of the row binlog as Arrow arrays; those that no calendar has come out as text beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl_resources.changes import mysql_types as kinds
from etl_resources.changes.mysql_row_numbers import big_endian, gather

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.changes.mysql_types import Physical

Found = tuple["pa.Array", "pa.Array | None"]


def moments(data: NDArray[np.uint8], column: Physical, at: NDArray[np.int64], nulls: NDArray[np.bool_]) -> Found:
    """Return the values of any column of dates or times, and the text of those that Arrow has no value for."""
    if column.kind == kinds.DATE:
        return dates(data, at, nulls)
    if column.kind in {kinds.TIME, kinds.TIME2}:
        return times(data, column, at, nulls), None
    is_moment = column.kind in {kinds.TIMESTAMP, kinds.TIMESTAMP2}
    return (timestamps if is_moment else datetimes)(data, column, at, nulls)


def dates(data: NDArray[np.uint8], at: NDArray[np.int64], nulls: NDArray[np.bool_]) -> Found:
    """Return DATE: day, month and year in three bytes."""
    import pyarrow as pa

    value = gather(data, at, "<u4").astype("i8") & 0xFFFFFF
    days, odd = _days(value >> 9, value >> 5 & 15, value & 31)
    misfits = None
    if (odd := odd & ~nulls).any():
        misfits = _texts(odd, [(value >> 9, 4, ""), (value >> 5 & 15, 2, "-"), (value & 31, 2, "-")])
    return pa.array(days.astype("i4"), pa.int32(), mask=nulls | odd).cast(pa.date32()), misfits


def datetimes(data: NDArray[np.uint8], column: Physical, at: NDArray[np.int64], nulls: NDArray[np.bool_]) -> Found:
    """Return DATETIME, of either format, as what a clock shows."""
    import pyarrow as pa

    if column.kind == kinds.DATETIME:
        year, month, day, hour, minute, second = _decimal_clock(gather(data, at, "<i8"))
    else:
        value = big_endian(data, at, 5).astype("i8") - 0x8000000000
        year, month, day = (value >> 22) // 13, (value >> 22) % 13, value >> 17 & 31
        hour, minute, second = value >> 12 & 31, value >> 6 & 63, value & 63
    micros = _fraction(data, at + 5, column.scale)
    days, odd = _days(year, month, day)
    misfits = None
    if (odd := odd & ~nulls).any():
        parts = [(year, 4, ""), (month, 2, "-"), (day, 2, "-"), (hour, 2, " "), (minute, 2, ":"), (second, 2, ":")]
        misfits = _texts(odd, [*parts, *_shown(micros, column.scale)])
    total = ((days * 24 + hour) * 60 + minute) * 60 + second
    return pa.array(total * 1_000_000 + micros, pa.timestamp("us"), mask=nulls | odd), misfits


def timestamps(data: NDArray[np.uint8], column: Physical, at: NDArray[np.int64], nulls: NDArray[np.bool_]) -> Found:
    """Return TIMESTAMP, of either format, as moments; second 0 is MySQL's `0000-00-00`."""
    import numpy as np
    import pyarrow as pa

    old = column.kind == kinds.TIMESTAMP
    seconds = gather(data, at, "<u4").astype("i8") if old else big_endian(data, at, 4).astype("i8")
    micros = _fraction(data, at + 4, column.scale)
    odd = (seconds == 0) & (micros == 0) & ~nulls
    misfits = None
    if odd.any():
        zero = np.zeros(len(at), "i8")
        date = [(zero, 4, ""), (zero, 2, "-"), (zero, 2, "-"), (zero, 2, " "), (zero, 2, ":"), (zero, 2, ":")]
        misfits = _texts(odd, [*date, *_shown(micros, column.scale)])
    return pa.array(seconds * 1_000_000 + micros, pa.timestamp("us", "UTC"), mask=nulls | odd), misfits


def times(data: NDArray[np.uint8], column: Physical, at: NDArray[np.int64], nulls: NDArray[np.bool_]) -> pa.Array:
    """Return TIME as text, as the server writes it: it goes from -838:59:59 to 838:59:59."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.kind == kinds.TIME:
        low = gather(data, at, "<u4").astype("i8") & 0xFFFFFF
        value = (low ^ 0x800000) - 0x800000
        size, negative, shown = 0, value < 0, np.abs(value)
        hour, minute, second = shown // 10000, shown // 100 % 100, shown % 100
    else:
        size = (column.scale + 1) // 2
        value = big_endian(data, at, 3 + size).astype("i8") - (0x800000 << 8 * size)
        negative, shown = value < 0, np.abs(value)
        whole = shown >> 8 * size
        hour, minute, second = whole >> 12 & 0x3FF, whole >> 6 & 63, whole & 63
    parts = [_padded(hour, 2), _padded(minute, 2), _padded(second, 2)]
    text = pc.binary_join_element_wise(*parts, ":")
    if column.scale:
        fraction = (shown & (1 << 8 * size) - 1) // 10 ** (2 * size - column.scale)
        text = pc.binary_join_element_wise(text, _padded(fraction, column.scale), ".")
    signed = pc.binary_join_element_wise(pc.if_else(pa.array(negative), "-", ""), text, "")
    return pc.if_else(pa.array(nulls), pa.scalar(None, pa.string()), signed)


def _fraction(data: NDArray[np.uint8], at: NDArray[np.int64], scale: int) -> Any:
    """Return the microseconds that follow a value: two digits in a byte."""
    size = (scale + 1) // 2
    return big_endian(data, at, size).astype("i8") * 10 ** (6 - 2 * size) if size else at * 0


def _decimal_clock(value: Any) -> tuple[Any, ...]:
    """Return the parts of 20240229123059."""
    day, clock = value // 1_000_000, value % 1_000_000
    return day // 10000, day // 100 % 100, day % 100, clock // 10000, clock // 100 % 100, clock % 100


def _days(year: Any, month: Any, day: Any) -> tuple[Any, NDArray[np.bool_]]:
    """Return days since 1970, and which dates are in no calendar."""
    import numpy as np

    months = ((year - 1970) * 12 + month - 1).astype("M8[M]")
    first = months.astype("M8[D]")
    beyond = (months + 1).astype("M8[D]")
    days = first + (day - 1)
    return days.astype("i8"), np.asarray((month == 0) | (month > 12) | (day == 0) | (year == 0) | (days >= beyond))


def _shown(micros: Any, scale: int) -> list[tuple[Any, int, str]]:
    return [(micros // 10 ** (6 - scale), scale, ".")] if scale else []


def _texts(odd: NDArray[np.bool_], parts: list[tuple[Any, int, str]]) -> pa.Array:
    """Return what the server shows for the odd ones, null for the others; they are few."""
    import pyarrow as pa

    texts: list[str | None] = [None] * len(odd)
    for row in odd.nonzero()[0].tolist():
        texts[row] = "".join(f"{before}{int(values[row]):0{size}d}" for values, size, before in parts)
    return pa.array(texts, pa.string())


def _padded(values: Any, size: int) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.utf8_lpad(pc.cast(pa.array(values), pa.string()), size, "0")
