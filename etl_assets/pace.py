"""When to merge pending changes into a silver table while a run follows a log.

A merge rewrites every file that it touches, so a hundred random changes of a large table cost as much as a hundred
thousand. As long as merging takes a moment it is done after every tick; the longer it takes beyond that, the longer it
waits, unless enough is pending: so that at a large table most of the time remains for reading, and none that is a
little slower falls behind by much.
"""

from __future__ import annotations

from dataclasses import dataclass

MOMENT = 1.5
"""Seconds that a merge may take to be done after every tick."""
REST = 4.0
"""How many times as long as the last merge took beyond a moment the next one waits."""


@dataclass
class Pace:
    """Of one table; times are seconds of a clock that only goes forward."""

    share: float
    """Of the table that has to be pending to merge ahead of time."""
    age: float
    """Seconds after which what is pending is merged in any case."""
    took: float = 0.0
    """Seconds of the last merge."""
    ended: float = float("-inf")
    pending: int = 0
    """Changes that wait."""
    since: float | None = None
    """When the oldest of them came."""

    def add(self, changes: int, now: float) -> None:
        """Take note of changes in bronze."""
        if changes:
            self.pending += changes
            self.since = now if self.since is None else self.since

    def due(self, rows: int, now: float) -> bool:
        """Tell whether to merge now; `rows` are those of the table."""
        if self.since is None:
            return False
        if now - self.since >= self.age or self.pending >= self.share * rows:
            return True
        return now - self.ended >= REST * max(0.0, self.took - MOMENT)

    def merged(self, began: float, now: float) -> None:
        """Take note of a merge."""
        self.took, self.ended, self.pending, self.since = now - began, now, 0, None
