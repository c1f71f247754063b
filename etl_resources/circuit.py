"""Leaving a far end alone that keeps failing: a circuit breaker per connection, seen by all processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, Protocol

from etl_resources.exceptions import EtlError, UnavailableError

FAILURES = 5
"""Pieces of work that fail one after the other before the circuit opens; each has been retried on its own."""
PAUSE = 60.0
"""Seconds an open circuit stays open before one piece of work may try."""


class Store(Protocol):
    """Where the states of all circuits are kept: what processes share."""

    def load(self, connection: str) -> Mapping[str, Any] | None:
        """Return what was last saved for a connection."""

    def save(self, connection: str, state: Mapping[str, Any]) -> None:
        """Keep the state of a connection."""


@dataclass(frozen=True)
class State:
    """What is known of a connection; times are seconds since 1970."""

    failures: int = 0
    opened_at: float | None = None
    reason: str = ""

    def word(self, now: float) -> Literal["closed", "open", "half-open"]:
        """Return closed (work goes on), open (work is refused), or half-open (the next piece of work tries)."""
        if self.opened_at is None:
            return "closed"
        return "open" if now < self.opened_at + PAUSE else "half-open"


class Circuit:
    """The breaker of one connection.

    Only errors that may pass by themselves count (`transient`): a wrong password says nothing about the far end. Two
    processes that fail at the same instant may be counted as one; the circuit then opens one failure later.
    """

    def __init__(self, connection: str, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.connection, self._store, self._clock = connection, store, clock

    def state(self) -> State:
        """Return what is known now."""
        saved = self._store.load(self.connection)
        return State(**saved) if saved else State()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Do a piece of work over the connection, unless its circuit is open; what comes of it is remembered.

        Raises:
            UnavailableError: the circuit is open; the far end was not asked.
        """
        state, now = self.state(), self._clock()
        word = state.word(now)
        if word == "open":
            assert state.opened_at is not None  # noqa: S101 - else it would not be open
            until = datetime.fromtimestamp(state.opened_at + PAUSE).astimezone()
            raise UnavailableError(
                f"the circuit of connection {self.connection} is open: it failed {state.failures} times in a row,"
                f" at last with: {state.reason}",
                where=f"connection {self.connection}",
                fix=f"look at the far end; it is asked again after {until:%H:%M:%S}",
            )
        if word == "half-open":
            self._save(replace(state, opened_at=now))  # for all others it stays open until this one is back
        try:
            yield
        except EtlError as error:
            if error.transient:
                self._failed(error)
            raise
        if state != State():
            self._save(State())

    def _failed(self, error: EtlError) -> None:
        state = self.state()
        failures = state.failures + 1
        opened_at = self._clock() if failures >= FAILURES else None
        self._save(State(failures, opened_at, error.what.partition("\n")[0][:300]))

    def _save(self, state: State) -> None:
        saved = {"failures": state.failures, "opened_at": state.opened_at, "reason": state.reason}
        self._store.save(self.connection, saved)
