"""Lets somebody in the same process, such as the command line, watch how far the tables have come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_watchers: list[Callable[[str, int], None]] = []


def notify(table: str, rows: int) -> None:
    """Tell everybody who watches that `table` has come to `rows` rows."""
    for watcher in _watchers:
        watcher(table, rows)


@contextmanager
def watching(watcher: Callable[[str, int], None]) -> Iterator[None]:
    """Call `watcher(table, rows)` whenever a table has got further, while the block runs."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)
