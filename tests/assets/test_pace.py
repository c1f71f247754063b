"""Silver follows a log at once while merging is cheap, and pays for a large table seldom."""

from __future__ import annotations

from etl_assets.pace import Pace

ROWS = 1_000_000


def pace(took: float = 0.0) -> Pace:
    made = Pace(share=0.02, age=300)
    made.merged(0.0, took)
    return made


def test_without_changes_there_is_nothing_to_merge() -> None:
    assert not pace().due(ROWS, 1000.0)


def test_while_a_merge_takes_a_moment_every_tick_is_merged() -> None:
    made = pace(took=1.4)
    made.add(1, 1.5)
    assert made.due(ROWS, 1.5)


def test_a_merge_that_takes_a_little_longer_waits_a_little() -> None:
    made = pace(took=1.75)
    made.add(1, 1.8)
    assert not made.due(ROWS, 2.7)
    assert made.due(ROWS, 2.8)


def test_a_merge_that_takes_long_waits_for_the_share_the_age_or_four_times_as_long() -> None:
    made = pace(took=6.0)
    made.add(100, 7.0)
    assert not made.due(ROWS, 7.0)
    assert not made.due(ROWS, 23.9)
    assert made.due(ROWS, 24.1)
    made.add(19_900, 8.0)
    assert made.due(ROWS, 8.0)


def test_nothing_waits_longer_than_the_age() -> None:
    made = Pace(share=0.5, age=60)
    made.merged(0.0, 100.0)
    made.add(1, 100.0)
    made.add(1, 150.0)
    assert not made.due(ROWS, 159.0)
    assert made.due(ROWS, 160.0)


def test_a_merge_starts_the_count_anew() -> None:
    made = pace(took=6.0)
    made.add(50_000, 7.0)
    made.merged(7.0, 13.0)
    assert not made.due(ROWS, 13.0)
    made.add(1, 14.0)
    assert not made.due(ROWS, 14.0)
