"""What a sensor decides: which sources have something new, and which of the runs it asked for came to nothing.

A sensor only looks. It remembers what it saw when it asked for a run, not what was read: where a run has read to stands
with the data. So the memory may be lost, or ahead of a run that crashed; the price is one run too many, never a row.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import EtlError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from etl_resources.source import Position

LOOKERS = 16
"""Sources that are asked at the same time."""
BUDGET = 1.5
"""Seconds that one tick may spend on looking; who was not asked in it comes first in the next."""
LONGEST_WAIT = 3600.0


@dataclass
class Asked:
    """A run that was asked for because of a stream; `at` is seconds since 1970."""

    at: float
    tries: int = 1


@dataclass
class Memory:
    """What the sensor keeps between two ticks."""

    seen: dict[str, str] = field(default_factory=dict)
    """Stream -> digest of its source's newest position when a run was last asked for."""
    asked: dict[str, Asked] = field(default_factory=dict)
    """Streams whose run has not been seen to succeed."""
    begin: str | None = None
    """Stream that the next tick asks first."""

    @classmethod
    def load(cls, cursor: str | None) -> Memory:
        """Read what `dump` wrote; None: nothing is remembered."""
        if not cursor:
            return cls()
        data = json.loads(cursor)
        return cls(data["seen"], {name: Asked(**asked) for name, asked in data["asked"].items()}, data["begin"])

    def dump(self) -> str:
        """Return the cursor."""
        return json.dumps(asdict(self))

    def forget_done(self, loaded: Mapping[str, float]) -> None:
        """Take note of streams that were loaded, at a time in seconds since 1970, after their run was asked for."""
        for name, at in loaded.items():
            if name in self.asked and at >= self.asked[name].at:
                del self.asked[name]

    def due(self, found: Mapping[str, str], interval: float, now: float) -> list[str]:
        """Return the streams that a run is wanted for: something is new, or the last run for it came to nothing.

        The latter waits twice as long after every attempt.
        """
        new = [name for name, digest in found.items() if self.seen.get(name) != digest]
        again = [
            name
            for name, asked in self.asked.items()
            if name not in new and now >= asked.at + min(LONGEST_WAIT, interval * 2.0 ** min(asked.tries, 30))
        ]
        return [*new, *again]

    def remember(self, names: Iterable[str], found: Mapping[str, str], now: float) -> None:
        """Keep that a run was asked for."""
        for name in names:
            is_new = name in found and self.seen.get(name) != found[name]
            before = self.asked.get(name)
            self.asked[name] = Asked(now, 1 if is_new or before is None else before.tries + 1)
            if name in found:
                self.seen[name] = found[name]


@dataclass(frozen=True)
class Looked:
    """What a tick found out."""

    found: dict[str, str]
    """Stream -> digest of its source's newest position."""
    failed: dict[str, str]
    """Stream -> what its source said instead."""
    left: list[str]
    """Streams that were not asked, or have not answered in time."""


def look(streams: Mapping[str, Callable[[], Position | None]], begin: str | None, budget: float = BUDGET) -> Looked:
    """Ask every source for its newest position, from `begin` on, until the budget of seconds is used up."""
    names = _from(list(streams), begin)
    until = time.monotonic() + budget
    pool = ThreadPoolExecutor(LOOKERS, thread_name_prefix="etl-watch")
    try:
        asked = {name: pool.submit(streams[name]) for name in names}
        wait(asked.values(), timeout=max(0.0, until - time.monotonic()))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    found: dict[str, str] = {}
    failed: dict[str, str] = {}
    left: list[str] = []
    for name, future in asked.items():
        _sort(name, future, found, failed, left)
    return Looked(found, failed, left)


def _sort(
    name: str, future: Future[Position | None], found: dict[str, str], failed: dict[str, str], left: list[str]
) -> None:
    if not future.done() or future.cancelled():
        left.append(name)
        return
    error = future.exception()
    if error is None:
        position = future.result()
        if position is not None:  # else the source cannot tell, today
            found[name] = digest(position)
    elif isinstance(error, EtlError):
        failed[name] = error.what.partition("\n")[0]
    else:
        raise error


def digest(position: Any) -> str:
    """Return a short text that differs where the position does."""
    return hashlib.blake2b(json.dumps(position, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def _from(names: Sequence[str], begin: str | None) -> list[str]:
    start = names.index(begin) if begin in names else 0
    return [*names[start:], *names[:start]]
