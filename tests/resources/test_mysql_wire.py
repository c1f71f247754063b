"""Rows of the text protocol, however the network cuts them up: all of them, exactly, or an error."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from etl_resources.exceptions import UnavailableError
from etl_resources.mysql_wire import Block, blocks
from etl_resources.sources.mysql_columns import Column
from etl_resources.sources.mysql_values import finish

Cell = bytes | None
EOF = b"\x05\x00\x00\x07\xfe\x00\x00\x02\x00"
ROWS: list[list[Cell]] = [
    [b"", None, b"a"], [None, None, None], [b"x" * 250, b"y" * 251, b"z" * 252],
    [b"\xfb\xfc\xfd\xfe\xff", b"0", b"\x00"],
    [b"q" * 65_535, b"", b"end"], [b"", b"r" * 65_536, None], [b"1", b"2", b"3"],
]  # fmt: skip


def cell(value: Cell) -> bytes:
    if value is None:
        return b"\xfb"
    for mark, limit, size in ((b"", 251, 1), (b"\xfc", 1 << 16, 2), (b"\xfd", 1 << 24, 3)):
        if len(value) < limit:
            return mark + len(value).to_bytes(size, "little") + value
    raise AssertionError("no test needs longer ones")


def packet(body: bytes, number: int = 0) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number % 256]) + body


WIRE = b"".join(packet(b"".join(map(cell, row)), n) for n, row in enumerate(ROWS))


def read(wire: bytes, sizes: random.Random, rows: int = 3) -> list[Block]:
    left = bytearray(wire)

    def receive(most: int) -> bytes:
        size = min(most, sizes.choice([1, 2, 3, 7, 100, 5000, 1 << 18]))
        taken = bytes(left[:size])
        del left[:size]
        return taken

    def fail(body: bytes) -> None:
        raise RuntimeError(body)

    return list(blocks(receive, fail, rows=rows, where="here"))


@pytest.mark.parametrize("seed", range(20))
def test_rows_arrive_whole_however_they_are_cut(seed: int) -> None:
    found = read(WIRE + EOF, random.Random(seed))
    assert [len(block) for block in found] == [3, 3, 1]
    columns = [pa.concat_arrays(parts) for parts in zip(*(b.columns(3, "here") for b in found), strict=True)]
    assert [list(row) for row in zip(*(c.to_pylist() for c in columns), strict=True)] == ROWS
    raw = [row for block in found for row in block.rows().to_pylist()]
    assert raw == [b"".join(map(cell, row)) for row in ROWS]


def test_an_end_that_the_server_did_not_announce_is_none() -> None:
    for end in (0, 3, 4, 5, len(WIRE) - 1, len(WIRE), len(WIRE) + 3):
        with pytest.raises(UnavailableError, match="before the result was complete"):
            read((WIRE + EOF)[:end], random.Random(end))


def test_an_error_among_the_rows_is_raised() -> None:
    with pytest.raises(RuntimeError, match="gone"):
        read(WIRE + packet(b"\xff\x01\x02gone") + EOF, random.Random(1))


@pytest.mark.parametrize("body", [b"\x01a", b"\x01a\x01b\x01c\x01d", b"\xfc\xff", b"\x09a\x01b\x01c", b"\xfe"])
def test_a_row_that_is_not_what_was_announced_is_an_error(body: bytes) -> None:
    (block,) = read(packet(b"\x01a\x01b\x01c") + packet(body + b"\x00" * 8 * (body == b"\xfe")) + EOF, random.Random(1))
    with pytest.raises(UnavailableError, match="not of the form"):
        block.columns(3, "here")


def test_bytes_that_are_no_text_are_set_apart() -> None:
    column = Column("v", "t.`v`", pa.string())
    records, unreadable = finish([pa.array([b"good", b"\xff\xfe", None], pa.binary())], [column], "here")
    assert records.column("v").to_pylist() == ["good", None]
    assert unreadable is not None
    assert unreadable.column("reason").to_pylist() == [r"v: '\\xff\\xfe' does not fit string"]
