"""What a server pushes, received in a thread of its own into a bounded buffer; connections that are lost are made anew.

The thread waits while the buffer is full. Then the operating system's buffers fill up, and then the server has to wait,
or to hang up: nothing piles up here.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from etl_resources.exceptions import EtlError, UnavailableError
from etl_resources.resilience import Policy

_LOG = logging.getLogger(__name__)
_STANDS = 5.0
"""Seconds after which a connection counts as made, though nothing has come over it."""

Token = str | int


class Received(NamedTuple):
    """One message."""

    body: bytes
    at: float
    """Seconds since 1970."""
    token: Token | None = None
    """From where the server can go on after this message; None: this message says nothing about it."""
    kind: str | None = None
    problem: str | None = None
    """Why the body is not all there."""
    missed_since: float | None = None
    """First message after a time in which others may have been missed: when that began."""
    resumption: int = 0
    """Number of the connection, where the message may be one that was received before."""


class Session(Protocol):
    """One connection."""

    @property
    def retry(self) -> float | None:
        """Seconds that the server wants a client to wait before it comes back."""
        ...

    def __iter__(self) -> Iterator[Received | None]:
        """Yield messages, and None for any other sign of life; ends when the server says goodbye.

        Raises:
            UnavailableError: the connection is lost.
        """
        ...

    def interrupt(self) -> None:
        """Make the iteration end now; called from another thread."""


class EndedError(EtlError):
    """The server has said that there is nothing more to come."""


Opener = Callable[[Token | None], AbstractContextManager[Session]]


class Feed:
    """Messages of one stream, over as many connections as it takes; begins at once, `close` it.

    `token` is from where the server shall go on; without one, what is sent while there is no connection is missed.
    `seen_at` is when the last message came that is known to be safe, None if there was none.
    """

    def __init__(
        self, opener: Opener, policy: Policy, *, token: Token | None, seen_at: float | None, buffer_bytes: int,
        where: str,
    ) -> None:  # fmt: skip
        self._opener, self._policy, self._where = opener, policy, where
        self._token, self._alive_at, self._room = token, seen_at, buffer_bytes
        self._connections = 0
        self._missed_since: float | None = None
        self._replayed: Token | None = None  # the last token before this connection, until another one comes
        self._fruitless = self._messages = 0
        self._retry: float | None = None
        self._changed = threading.Condition()
        self._buffer: deque[Received] = deque()
        self._bytes = 0
        self._stop = threading.Event()
        self._session: Session | None = None
        self._connected_at = 0.0
        self._error: EtlError | None = None
        self._failed = "none was made yet"  # empty: there is a connection, or the server said goodbye
        self._thread = threading.Thread(target=self._run, name=f"feed {where}", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._session is not None

    @property
    def connected_seconds(self) -> float:
        """For how long there has been a connection; 0 without one."""
        return time.monotonic() - self._connected_at if self.connected else 0.0

    @property
    def error(self) -> EtlError | None:
        """Why nothing more is received, if that was not asked for."""
        return self._error

    def poll(self, timeout: float, most: int) -> list[Received]:
        """Return up to `most` messages, as soon as there is one; none after `timeout` seconds.

        Raises:
            EndedError: the server says that the stream has ended.
            UnavailableError, CredentialsRejectedError, ...: there is no connection any more, and no message left.
        """
        with self._changed:
            if not self._buffer:
                self._changed.wait_for(lambda: self._buffer or not self._thread.is_alive(), timeout)
            found = [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]
            self._bytes -= sum(len(message.body) for message in found)
            self._changed.notify_all()
        if not found and not self._thread.is_alive() and self._error is not None:
            raise self._error
        return found

    def rest(self, most: int) -> list[Received]:
        """Return up to `most` messages that were received before the end, whatever it was."""
        try:
            return self.poll(0, most)
        except EtlError:
            return []

    def check(self) -> None:
        """Raise UnavailableError if there is no connection: the end of a run would not be the end of what there is."""
        if not self.connected and self._failed and not isinstance(self._error, EndedError):
            raise UnavailableError(
                f"the run ended without a connection: {self._failed}", where=self._where,
                fix="what was received is committed; run again when the server can be reached",
            )  # fmt: skip

    def close(self) -> None:
        """Hang up. What is in the buffer can still be polled."""
        self._stop.set()
        with self._changed:
            session = self._session
            self._changed.notify_all()
        if session is not None:
            session.interrupt()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                retry = self._policy.call(self._receive)
                limit = self._policy.ceiling(self._fruitless + 1)
                wait = random.uniform(0, limit) if retry is None else min(retry, self._policy.longest_wait)  # noqa: S311
                self._stop.wait(wait)
        except EtlError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - a defect here must end the read, and not look like silence
            self._error = UnavailableError(f"receiving failed: {error!r}", where=self._where)
        finally:
            with self._changed:
                self._changed.notify_all()

    def _receive(self) -> float | None:
        """Receive over one connection until it ends; an error is raised only if nothing came of it at all."""
        if self._stop.is_set():
            return None
        began, self._messages, self._retry = time.monotonic(), 0, None
        try:
            with self._opener(self._token) as session:
                self._begin(session)
                self._listen(session)
            lost = "the server hung up"
        except UnavailableError as error:
            lost = error.what
            if not self._messages and time.monotonic() - began < _STANDS and not self._stop.is_set():
                self._failed = lost
                raise
        self._fruitless = 0 if self._messages else self._fruitless + 1
        if not self._stop.is_set():
            _LOG.warning("%s: connection lost (%s), connecting again", self._where, lost)
        return self._retry

    def _listen(self, session: Session) -> None:
        """Take messages until the connection is lost, which is known before it is closed: that may take a while."""
        try:
            for message in session:
                self._alive_at = time.time()
                if message is not None:
                    self._messages += 1
                    self._put(message)
        except UnavailableError as error:
            self._failed = error.what
            raise
        finally:
            self._session, self._retry = None, session.retry

    def _begin(self, session: Session) -> None:
        self._connections += 1
        self._replayed = self._token
        if self._token is None and self._alive_at is not None:
            # It stays until a message comes that can carry it.
            self._missed_since = self._missed_since or self._alive_at
            _LOG.warning(
                "%s: what was sent since %s may be missing: this stream cannot be resumed (see `_missed_since`)",
                self._where, datetime.fromtimestamp(self._missed_since, UTC).isoformat(timespec="milliseconds"),
            )  # fmt: skip
        self._alive_at = time.time()
        with self._changed:
            self._connected_at = time.monotonic()
            self._session, self._failed = session, ""
        if self._stop.is_set():
            session.interrupt()

    def _put(self, message: Received) -> None:
        changes: dict[str, Any] = {}
        if self._missed_since is not None and message.problem is None:
            changes["missed_since"], self._missed_since = self._missed_since, None
        if message.token is not None:
            if message.token == self._replayed:
                changes["resumption"] = self._connections
            else:
                self._replayed = None
            self._token = message.token
        message = message._replace(**changes) if changes else message
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < self._room or self._stop.is_set())
            self._buffer.append(message)
            self._bytes += len(message.body)
            self._changed.notify_all()
