"""Redshift's messages cut into columns: wherever the bytes come apart, and whatever is wrong with them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from etl_resources.exceptions import UnavailableError
from etl_resources.redshift_wire import Block, Field, ServerError, results


def answers(*messages: tuple[bytes, bytes], split: int = 3) -> Iterator[bytes]:
    whole = b"".join(kind + struct.pack(">I", len(body) + 4) + body for kind, body in messages)
    yield from (whole[at : at + split] for at in range(0, len(whole), split))
    yield b""


def row(*values: bytes | None) -> tuple[bytes, bytes]:
    parts = [struct.pack(">i", -1) if v is None else struct.pack(">i", len(v)) + v for v in values]
    return b"D", struct.pack(">H", len(values)) + b"".join(parts)


FIELDS = b"T", struct.pack(">H", 1) + b"a\0" + struct.pack(">IhIhih", 0, 0, 23, 4, -1, 0)
READY = b"Z", b"I"


def test_the_wire_is_cut_into_rows_wherever_its_bytes_come_apart() -> None:
    given = [FIELDS, row(b"1"), (b"N", b"note\0"), row(None), row(b""), row(b"x" * 300), (b"C", b"SELECT\0"), READY]
    for split in (1, 2, 5, 7, 64, 5000):
        for rows in (1, 2, 100):
            chunks = answers(*given, split=split)
            first, *blocks = results(lambda *_, c=chunks: next(c), rows=rows, where="t")
            assert first == (Field("a", 23, -1),)
            found = [v for b in blocks if isinstance(b, Block) for v in b.columns(1, "t")[0].to_pylist()]
            assert found == [b"1", None, b"", b"x" * 300]


def test_a_silence_counts_from_the_first_row_on() -> None:
    """A server may tell the columns at once, and find the first row after an hour."""
    told: list[bool] = []
    chunks = iter([b"".join(answers(part)) for part in (FIELDS, row(b"1"), row(b"2"), READY)])

    def receive(_: int, begun: bool) -> bytes:
        told.append(begun)
        return next(chunks)

    assert len(list(results(receive, rows=1, where="t"))) == 3
    assert told == [False, False, True, True]


@pytest.mark.parametrize("end", [1, 20, 40, -1])
def test_a_wire_that_ends_is_no_end_of_a_result(end: int) -> None:
    whole = b"".join(answers(FIELDS, row(b"1"), row(b"2"), (b"C", b"SELECT\0"), READY))
    chunks = iter([whole[:end], b""])
    with pytest.raises(UnavailableError, match="too early"):
        list(results(lambda *_: next(chunks), rows=10, where="t"))


def test_rows_of_another_form_are_an_error_and_not_other_values() -> None:
    for body in (row(b"1", b"2"), row(), (b"D", struct.pack(">Hi", 1, 99) + b"short")):
        chunks = answers(FIELDS, body, READY)
        _, block = results(lambda *_, c=chunks: next(c), rows=10, where="t")
        assert isinstance(block, Block)
        with pytest.raises(UnavailableError, match="not of the form"):
            block.columns(1, "t")


def test_an_error_in_the_middle_of_rows_is_raised() -> None:
    report = b"SERROR\0C57014\0Mquery cancelled\0\0"
    for tail in ((READY,), ()):
        chunks = answers(FIELDS, row(b"1"), (b"E", report), *tail)
        with pytest.raises(ServerError) as caught:
            list(results(lambda *_, c=chunks: next(c), rows=10, where="t"))
        assert caught.value.fields["C"] == "57014"
