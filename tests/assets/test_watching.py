"""A sensor looks, remembers and asks; a run that comes to nothing is asked for again."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from etl_assets.watching import Asked, Memory, digest, look
from etl_resources.exceptions import UnavailableError


def test_what_is_new_is_asked_for_once() -> None:
    memory = Memory()
    assert memory.due({"a": "1", "b": "1"}, 30, now=0) == ["a", "b"]
    memory.remember(["a", "b"], {"a": "1", "b": "1"}, now=0)
    memory = Memory.load(memory.dump())
    memory.forget_done({"a": 5.0, "b": 5.0})
    assert memory.due({"a": "1", "b": "1"}, 30, now=1000) == []
    assert memory.due({"a": "2", "b": "1"}, 30, now=1000) == ["a"]


def test_a_run_that_loaded_nothing_is_asked_for_again_ever_more_slowly() -> None:
    """The mutant that takes `seen` for loaded stalls for ever after one crash."""
    memory = Memory()
    memory.remember(["a"], {"a": "1"}, now=0)
    waits, asked_at = [], 0.0
    for now in range(0, 20_000, 10):
        memory.forget_done({"a": -1.0})  # loaded before it was asked for
        if memory.due({"a": "1"}, 30, now=now):
            waits.append(now - asked_at)
            asked_at = now
            memory.remember(["a"], {"a": "1"}, now=now)
    assert waits[:5] == [60, 120, 240, 480, 960]
    assert max(waits) <= 3600
    memory.forget_done({"a": asked_at + 1})
    assert memory.due({"a": "1"}, 30, now=1e9) == []


def test_something_new_does_not_wait_for_the_back_off() -> None:
    memory = Memory(seen={"a": "1"}, asked={"a": Asked(at=0, tries=9)})
    assert memory.due({"a": "1"}, 30, now=10) == []
    assert memory.due({"a": "2"}, 30, now=10) == ["a"]


def test_a_thousand_sources_are_looked_at_in_one_tick() -> None:
    """Side by side: each takes 5 ms here, so one after the other would take five seconds, and a tick has 1.5."""

    def latest() -> dict[str, int]:
        time.sleep(0.005)
        return {"rows": 1}

    looked = look({str(n): latest for n in range(1000)}, None)
    assert (len(looked.found), looked.failed, looked.left) == (1000, {}, [])


def test_who_is_too_slow_is_left_for_the_next_tick_which_begins_there() -> None:
    release = threading.Event()

    def slow() -> None:
        release.wait(20)

    streams: dict[str, Any] = {f"quick{n}": lambda: {"n": 1} for n in range(20)}
    streams |= {f"slow{n}": slow for n in range(40)}
    began = time.monotonic()
    looked = look(streams, None, budget=0.3)
    took = time.monotonic() - began
    again = look(streams, "slow39", budget=0.3)
    release.set()
    assert took < 1
    assert set(looked.found) == {f"quick{n}" for n in range(20)}
    assert looked.left[0] == "slow0"
    assert len(looked.left) == 40
    assert set(again.found) == {f"quick{n}" for n in range(20)}, "slow39 alone stands in the way"


def test_a_source_that_fails_is_told_and_hides_no_other() -> None:
    def gone() -> None:
        raise UnavailableError("connection refused", where="shop")

    looked = look({"a": gone, "b": lambda: {"n": 1}, "c": lambda: None}, None)
    assert looked.failed == {"a": "connection refused"}
    assert set(looked.found) == {"b"}


def test_a_defect_of_a_source_is_not_taken_for_a_far_end_that_is_away() -> None:
    with pytest.raises(ZeroDivisionError):
        look({"a": lambda: {"n": 1 // 0}}, None)


def test_a_digest_differs_where_the_position_does() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
