"""Which transactions a PostgreSQL snapshot sees.

The order of commit records in the log is not the order in which transactions become visible: a commit is in the log,
and decoded from there, before its transaction leaves the list of those that run (and long before, where it waits for a
synchronous standby). So what a snapshot of a table contains is asked of the snapshot, never of positions in the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_XIDS = 2**32


@dataclass(frozen=True, slots=True)
class View:
    """The text of `pg_current_snapshot()`, taken apart; numbers of transactions have 64 bits here."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> View:
        """Return the view of `xmin:xmax:running,running`."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(x) for x in running.split(",") if x))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.running)))}"

    def sees(self, xid: int) -> bool:
        """Whether the effects of a transaction that has committed are in the view."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)

    def unseen(self, xids: Iterable[int]) -> list[int]:
        """Return those of the log's numbers (32 bits) that the view does not see, in 64 bits."""
        return sorted(xid for xid in map(self.widened, xids) if not self.sees(xid))

    def widened(self, xid: int) -> int:
        """Return the number in 64 bits: the log gives the lower 32, of a transaction less than 2^31 away."""
        return self.xmax + (xid - self.xmax + _XIDS // 2) % _XIDS - _XIDS // 2

    def ended_since(self, earlier: View, own: int | None) -> bool:
        """Whether any transaction that writes has ended since `earlier`, apart from one of our own."""
        if self.xmax < earlier.xmax or self.xmax - earlier.xmax > 1000:
            return True
        ended = {*range(earlier.xmax, self.xmax), *earlier.running} - self.running
        return bool(ended - {own})
