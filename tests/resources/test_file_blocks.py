"""Blocks that are parsed side by side: in order, ahead of the consumer but not far; nothing goes on behind the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from etl_resources.files import chunks
from etl_resources.files.chunks import map_in_order
from etl_resources.files.csv_records import count_lines
from etl_resources.files.json_parse import parse_block


class _Blocks:
    """A hundred numbers; how many were taken, and whether they were given up."""

    def __init__(self, breaks_at: int = 100) -> None:
        self.taken, self.closed, self._breaks_at = 0, False, breaks_at

    def __iter__(self) -> Iterator[int]:
        try:
            for n in range(100):
                if n == self._breaks_at:
                    raise OSError("the disk is gone")
                self.taken += 1
                yield n
        finally:
            self.closed = True


def _eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + 10
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()


def _threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith(("parse", "etl-read-ahead"))}


def test_the_results_come_in_order_though_later_ones_are_ready_first() -> None:
    def slow_when_even(n: int) -> int:
        time.sleep(0.002 * (n % 2 == 0))
        return n

    assert list(map_in_order(slow_when_even, _Blocks())) == list(range(100))


def test_blocks_are_parsed_while_the_consumer_is_busy_but_not_all_of_them() -> None:
    blocks, parsed = _Blocks(), list[int]()
    found = map_in_order(parsed.append, blocks)
    next(found)
    assert _eventually(lambda: len(parsed) > chunks._AHEAD)
    time.sleep(0.1)
    assert len(parsed) == blocks.taken == chunks._AHEAD + 2


def test_a_consumer_that_stops_early_leaves_no_thread_and_no_open_file() -> None:
    blocks = _Blocks()
    found = map_in_order(lambda n: n, blocks)
    next(found)
    found.close()
    assert blocks.closed
    assert not _threads()


def test_what_breaks_is_raised_behind_the_blocks_before_it() -> None:
    seen: list[int] = []
    with pytest.raises(OSError, match="the disk is gone"):
        seen.extend(map_in_order(lambda n: n, _Blocks(breaks_at=20)))
    assert seen == list(range(20))
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(lambda n: 1 // (n - 5), _Blocks()))
    assert not _threads()


def test_one_block_needs_no_thread() -> None:
    assert list(map_in_order(lambda _: threading.current_thread(), [1])) == [threading.main_thread()]
    assert list(map_in_order(lambda n: n, list[int]())) == []


def test_lines_are_counted_between_two_places() -> None:
    assert [count_lines(b"\na\n\nb", start, stop) for start, stop in ((0, 5), (1, 3), (3, 5), (5, 5))] == [3, 1, 1, 0]


@pytest.mark.parametrize(
    "text", [b'{"a":1}\n\n{"a":2}\n', b'{"a":1}\n{"a":\n2}\n', b'{"a":1}{"a":2}\n{"a":3}\n', b"{\n"]
)
def test_lines_that_are_not_an_object_each_are_not_taken_for_records(text: bytes) -> None:
    import pyarrow as pa

    assert parse_block(text, text.count(b"\n"), pa.schema([("a", pa.int64())]), lines=True) is None
