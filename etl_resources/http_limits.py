"""How often an HTTP API may be asked: as configured, and as the server says in its answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from etl_resources.exceptions import UnavailableError
from etl_resources.http_settings import RateLimit

_EPOCH = 1_000_000_000
"""A reset as large as this is a moment, and not a number of seconds."""


class Gate:
    """Lets requests of all threads through: at the configured rate, and not while the server wants to be left alone."""

    def __init__(
        self, rate: RateLimit | None, longest_pause: float, *, clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._longest, self._clock, self._sleep = longest_pause, clock, sleep
        self._until, self._lock = 0.0, threading.Lock()
        self._limiter = None
        if rate is not None:
            from pyrate_limiter import Limiter, Rate

            self._limiter = Limiter(Rate(rate.requests, round(rate.seconds * 1000)))

    def pass_through(self, where: str) -> None:
        """Return when a request may be sent.

        Raises:
            UnavailableError: the server wants to be left alone for longer than `longest_pause`.
        """
        while (wait := self._until - self._clock()) > 0:
            if wait > self._longest:
                raise UnavailableError(
                    f"the server wants to be left alone for {wait:.0f} seconds", where=where,
                    fix=f"run again then, or raise `longest_pause` ({self._longest:.0f} seconds)",
                )  # fmt: skip
            self._sleep(wait)
        if self._limiter is not None:
            self._limiter.try_acquire("request")

    def pause(self, seconds: float) -> None:
        """Let nothing through for so many seconds from now."""
        with self._lock:
            self._until = max(self._until, self._clock() + seconds)


def pause_of(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """Return for how many seconds an answer asks to be left alone; None: it does not. `now` is seconds since 1970."""
    if status in {403, 413, 429, 503} and (asked := _retry_after(headers.get("retry-after"), now)) is not None:
        return asked
    for prefix in ("x-ratelimit", "x-rate-limit", "ratelimit"):
        if _number(headers.get(f"{prefix}-remaining")) == 0:
            reset = _number(headers.get(f"{prefix}-reset"))
            return None if reset is None else max(0.0, reset - now if reset >= _EPOCH else reset)
    return None


def _retry_after(text: str | None, now: float) -> float | None:
    seconds = _number(text)
    if text is None or seconds is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except ValueError:
        return None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
