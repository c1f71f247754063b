"""The format of Server-Sent Events, cut at every place, and beyond its limits."""

from __future__ import annotations

import tracemalloc

import pytest

from etl_resources.sources.sse_events import Event, EventParser

CASES = [
    (b"data: a\n\n", [Event(b"a", None, None)]),
    (b"\xef\xbb\xbfdata:a\r\rdata:b\r\n\r\ndata:  c\n\n", [Event(b"a", None, None), Event(b"b", None, None),
                                                        Event(b" c", None, None)]),
    (b"data: one\ndata\ndata: three\n\n", [Event(b"one\n\nthree", None, None)]),
    (b"event: tick\nid: 7\ndata: x\n\ndata: y\n\n", [Event(b"x", "7", "tick"), Event(b"y", None, None)]),
    (b": comment\n\nid: 3\n\ndata: z\n\n", [Event(b"z", "3", None)]),
    (b"id: a\0b\nother: 1\ndata: q\n\n", [Event(b"q", None, None)]),
    (b"data:\n\n", [Event(b"", None, None)]),
    (b"data: never ended\nid: 9\n", []),
    ("data: Łódź 👩\n\n".encode(), [Event("Łódź 👩".encode(), None, None)]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "events"), CASES)
def test_events_are_the_same_wherever_the_bytes_are_cut(text: bytes, events: list[Event]) -> None:
    for size in (1, 2, 3, 5, len(text)):
        parser = EventParser(1000)
        found = [e for n in range(0, len(text), size) for e in parser.feed(text[n : n + size])]
        assert found == events


def test_the_reconnection_time_is_taken_if_it_is_a_number() -> None:
    parser = EventParser(100)
    parser.feed(b"retry: 1500\n\n")
    assert parser.retry == 1.5
    parser.feed(b"retry: soon\nretry: -1\nretry: 99999999999999999999\n")
    assert parser.retry == 1.5


@pytest.mark.parametrize("size", [7, 64, 4096])
def test_an_event_that_is_too_long_is_told_and_not_kept(size: int) -> None:
    """In one line, in many, and with what follows it intact."""
    for text in (b"data: " + b"x" * 50_000, b"\n".join([b"data: 0123456789"] * 5_000)):
        whole = b"id: 1\n" + text + b"\n\nid: 2\ndata: good\n\n"
        parser = EventParser(1000)
        long, good = [e for n in range(0, len(whole), size) for e in parser.feed(whole[n : n + size])]
        assert (long.id, good) == ("1", Event(b"good", "2", None))
        assert long.problem is not None
        assert "max_message_bytes" in long.problem
        assert len(long.data) <= 1000


def test_a_line_without_end_takes_no_memory() -> None:
    parser, piece = EventParser(10_000), b"x" * 65_536
    tracemalloc.start()
    for _ in range(300):
        assert parser.feed(piece) == []
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
