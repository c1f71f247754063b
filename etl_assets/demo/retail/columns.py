"""Columns of text and money, made without a loop over rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Text: TypeAlias = pa.StringArray

_TWO_DIGITS = pa.array([f"{number:02d}" for number in range(100)])


def deal(rng: np.random.Generator, rows: int, shares: Mapping[str, float], rest: str) -> npt.NDArray[np.str_]:
    """Deal `rows` labels at random: each of `shares` its share and at least one, `rest` what is left over.

    Raises:
        ValueError: there are fewer rows than labels.
    """
    counts = {label: max(1, round(share * rows)) for label, share in shares.items()}
    left = rows - sum(counts.values())
    if left < 0:
        raise ValueError(f"{rows} rows are too few for {len(shares)} kinds")
    labels = np.repeat([*counts, rest], [*counts.values(), left])
    return rng.permutation(labels)


def pick(choices: Sequence[str | None], index: npt.NDArray[Any]) -> Text:
    """`choices[index]` as an Arrow column; None becomes null."""
    return pa.array(choices, pa.string()).take(pa.array(index, pa.int64()))


def choose(labels: npt.NDArray[np.str_], variants: Mapping[str, Text], otherwise: Text) -> Text:
    """Take each row from the variant that its label names."""
    result = otherwise
    for label, variant in variants.items():
        result = pc.if_else(pa.array(labels == label), variant, result)
    return result


def joined(*parts: Text | str) -> Text:
    """Concatenate columns and constants row by row; null where any part is null."""
    return pc.binary_join_element_wise(*parts, "")


def padded(numbers: Ints, width: int) -> Text:
    """Numbers as text with leading zeros."""
    return pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width, "0")


def money_text(cents: Ints) -> Text:
    """Amounts as plain decimal text: -123.45."""
    whole, fraction = np.divmod(np.abs(cents), 100)
    sign = pc.if_else(pa.array(cents < 0), "-", "")
    return joined(sign, pc.cast(pa.array(whole), pa.string()), ".", _TWO_DIGITS.take(pa.array(fraction)))


def money_with_signs(cents: Ints) -> Text:
    """Amounts as a spreadsheet writes them: $1,234.50 or -$1,234.50; below a million in size."""
    whole, fraction = np.divmod(np.abs(cents), 100)
    thousands, ones = np.divmod(whole, 1000)
    sign = pc.if_else(pa.array(cents < 0), "-$", "$")
    small = pc.cast(pa.array(ones), pa.string())
    large = joined(pc.cast(pa.array(thousands), pa.string()), ",", padded(ones, 3))
    return joined(sign, pc.if_else(pa.array(thousands > 0), large, small), ".", _TWO_DIGITS.take(pa.array(fraction)))


def money(cents: Ints, *, known: Flags | None = None, digits: int = 12) -> pa.Array:
    """Amounts as exact decimals with two places; null where not `known`."""
    words = np.empty((len(cents), 2), dtype=np.int64)
    words[:, 0], words[:, 1] = cents, cents >> 63
    mask = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(pa.decimal128(digits, 2), len(cents), [mask, pa.py_buffer(words)])


def moments(seconds: Ints) -> pa.Array:
    """Seconds since 1970 as timestamps in microseconds, without a zone."""
    return pa.array(seconds * 1_000_000).cast(pa.timestamp("us"))


def days(numbers: Ints, *, known: Flags | None = None) -> pa.Array:
    """Days since 1970 as dates; null where not `known`."""
    mask = None if known is None else ~known
    return pa.array(numbers.astype(np.int32), mask=mask).cast(pa.date32())


def clock(seconds: Ints) -> Text:
    """Seconds since 1970 as text: 2025-01-31 12:00:00."""
    return pa.array(seconds).cast(pa.timestamp("s")).cast(pa.string())


def quoted(column: Text) -> Text:
    """A CSV field in quotes, for text that may hold commas, quotes or line ends."""
    return joined('"', pc.replace_substring(column, '"', '""'), '"')


def csv_lines(fields: Sequence[Text], *, too_long: Flags, too_short: Flags) -> Text:
    """One CSV record per row, line end included; null becomes an empty field.

    Records that are `too_long` get two fields more than the header has, those that are `too_short` lack the last two.
    """
    filled = [pc.fill_null(field, "") for field in fields]
    ends = pick(["\n", ",,\n"], too_long.astype(np.int64))
    lines = joined(pc.binary_join_element_wise(*filled, ","), ends)
    short = [field.filter(pa.array(too_short)) for field in filled[:-2]]
    return pc.replace_with_mask(lines, pa.array(too_short), joined(pc.binary_join_element_wise(*short, ","), "\n"))


def text_bytes(lines: Text) -> bytes:
    """All rows, one after the other, as UTF-8."""
    whole = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines), "")
    return bytes(whole[0].as_buffer())
