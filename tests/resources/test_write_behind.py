"""Calls that run in a thread: in order, bounded, and their errors are not lost."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from etl_resources.write_behind import WriteBehind


def test_calls_run_in_order_in_a_thread_of_their_own() -> None:
    done: list[tuple[int, str]] = []
    behind = WriteBehind(3)
    for number in range(20):
        behind.do(lambda number=number: done.append((number, threading.current_thread().name)))
    behind.wait()
    behind.close()
    assert [number for number, _ in done] == list(range(20))
    assert {name for _, name in done}.isdisjoint({threading.current_thread().name})


def given_while_the_first_hangs(most: int, sizes: list[int]) -> tuple[list[int], list[int]]:
    """Give calls of these sizes; returns the places of those that were taken while the first hung, and afterwards."""
    go, given = threading.Event(), []
    behind = WriteBehind(most)

    def give() -> None:
        for place, size in enumerate(sizes):
            behind.do(partial(go.wait, 10), size)  # type: ignore[arg-type]
            given.append(place)

    giver = threading.Thread(target=give)
    giver.start()
    giver.join(0.3)
    meanwhile = given.copy()
    go.set()
    giver.join(5)
    behind.close()
    return meanwhile, given


@pytest.mark.parametrize(
    ("most", "sizes"),
    [pytest.param(2, [1] * 5, id="by number"), pytest.param(10, [4, 4, 30, 1], id="larger than all that may wait")],
)
def test_no_more_waits_than_may(most: int, sizes: list[int]) -> None:
    """The third call may only return when those before it have ended; one that is too large for all goes alone."""
    meanwhile, given = given_while_the_first_hangs(most, sizes)
    assert meanwhile == [0, 1]
    assert given == list(range(len(sizes)))


def test_an_error_is_raised_later_and_what_is_behind_it_does_not_run() -> None:
    done: list[str] = []
    behind = WriteBehind(5)

    def fail() -> None:
        raise OSError("disk full")

    behind.do(lambda: done.append("before"))
    behind.do(fail)
    behind.do(lambda: done.append("after"))
    with pytest.raises(OSError, match="disk full"):
        behind.wait()
    behind.close()
    assert done == ["before"]


def test_close_ends_the_thread_and_drops_what_has_not_begun() -> None:
    done: list[int] = []
    begun, go = threading.Event(), threading.Event()
    behind = WriteBehind(5)

    def first() -> None:
        begun.set()
        go.wait(10)
        done.append(0)

    behind.do(first)
    behind.do(lambda: done.append(1))
    begun.wait(10)
    closing = threading.Thread(target=behind.close)
    closing.start()
    go.set()
    closing.join(5)
    assert done == [0]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("etl-write-behind")]
