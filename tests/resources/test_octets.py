"""Where a byte stands, and pieces of bytes as Arrow arrays."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl_resources import octets
from etl_resources.octets import pieces, positions
from tests.soaking import examples

DATA = "aé-,bc;d".encode()
PLACES = {
    "end to end": [(0, 1), (1, 3), (3, 4)],
    "gaps": [(0, 3), (5, 6), (8, 9)],
    "the first is not at the beginning": [(3, 4), (5, 7)],
    "all of it": [(0, 9)],
    "some of no bytes": [(0, 0), (1, 3), (3, 3), (9, 9)],
    "none": [],
}


def at(places: list[tuple[int, int]]) -> tuple[Any, Any]:
    starts, ends = np.array(places, np.int64).reshape(-1, 2).T
    return starts, ends


@settings(max_examples=examples(100), deadline=None)
@given(st.binary(max_size=100), st.sampled_from([8, 16, 24]))
def test_where_a_byte_stands(data: bytes, strip: int) -> None:
    before, octets._STRIP = octets._STRIP, strip
    try:
        for octet in set(data[:3]):
            assert positions(data, octet).tolist() == [n for n, o in enumerate(data) if o == octet]
            for then in set(data[-3:]):
                pairs = [n for n in range(len(data) - 1) if data[n] == octet and data[n + 1] == then]
                assert positions(data, octet, then).tolist() == pairs
    finally:
        octets._STRIP = before


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("kind", [None, pa.string()])
@pytest.mark.parametrize("nulls", ["not asked", "none", "every second", "all"])
def test_pieces_are_what_is_there(name: str, kind: pa.DataType | None, nulls: str) -> None:
    places = PLACES[name]
    null = [nulls == "all" or (nulls == "every second" and n % 2 == 1) for n in range(len(places))]
    found = pieces(DATA, *at(places), None if nulls == "not asked" else np.array(null, bool), kind)
    found.validate(full=True)
    wanted = [None if gone else DATA[start:end] for (start, end), gone in zip(places, null, strict=True)]
    assert found.equals(pa.array(wanted, pa.binary()).cast(kind or pa.binary()))


@pytest.mark.parametrize("data", [DATA, bytearray(DATA), pa.py_buffer(DATA)], ids=lambda data: type(data).__name__)
def test_pieces_of_what_holds_bytes(data: Any) -> None:
    assert pieces(data, *at([(0, 1), (5, 7)])).to_pylist() == [b"a", b"bc"]


def test_pieces_of_more_than_two_gibibytes() -> None:
    data = mmap.mmap(-1, octets._WIDE + mmap.PAGESIZE)  # only the pages that are touched take memory
    data[-2:] = b"yz"
    places = [(0, 1), (octets._WIDE, octets._WIDE + 1), (len(data) - 2, len(data))]
    found = pieces(pa.py_buffer(data), *at(places), np.array([False, True, False]), pa.string())
    assert found.equals(pa.array(["\0", None, "yz"]))
