"""Trying again: the one policy that every client of an outside system shares."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import dagster as dg
from pydantic import Field

P = ParamSpec("P")
T = TypeVar("T")


class Policy(dg.Config):
    """How long to wait for an answer, and how often to ask again.

    Only errors that say so themselves are tried again: those with `transient = True` (`UnavailableError`, and whatever
    a client maps into it). Between attempts it waits a random time between zero and a ceiling that doubles with every
    attempt (exponential back-off with full jitter), so that clients that failed together do not come back together.
    """

    attempts: int = Field(default=5, ge=1, description="How often to try in all; 1: never again.")
    timeout: float = Field(default=30.0, gt=0, description="Seconds that one attempt may take to connect.")
    silence: float = Field(
        default=120.0, gt=0, description="Seconds without a byte from the far end after which it counts as gone."
    )
    deadline: float = Field(default=120.0, gt=0, description="Seconds after which no further attempt starts.")
    first_wait: float = Field(default=0.5, ge=0, description="Ceiling in seconds of the first wait.")
    longest_wait: float = Field(default=30.0, ge=0, description="Ceiling in seconds of any wait.")

    def ceiling(self, failures: int) -> float:
        """Return the longest wait in seconds after so many failures (1, 2 …) in a row."""
        return min(self.longest_wait, self.first_wait * 2.0 ** min(failures - 1, 60))

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return `function(*args, **kwargs)`, tried again while it fails for a moment only.

        `function` must be safe to repeat: opening a connection, or a read whose rows nobody has seen yet.

        Raises:
            whatever `function` raised last.
        """
        import stamina

        failures = 0

        def wait_or_give_up(error: Exception) -> bool | float:
            nonlocal failures
            if not getattr(error, "transient", False):
                return False
            failures += 1
            return random.uniform(0, self.ceiling(failures))  # noqa: S311 - spreads load, guards nothing

        # A context and not `stamina.retry`: the hooks of the latter log the arguments of the call, which may be secret.
        for attempt in stamina.retry_context(on=wait_or_give_up, attempts=self.attempts, timeout=self.deadline):
            with attempt:
                return function(*args, **kwargs)
        raise AssertionError("unreachable: the last attempt returns or raises")
