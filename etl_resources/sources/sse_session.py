"""One connection to a server of Server-Sent Events."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError
from etl_resources.extras import client
from etl_resources.http_errors import Redaction, refusal, translated
from etl_resources.live_feed import EndedError, Received, Token
from etl_resources.sources.sse_events import EventParser

if TYPE_CHECKING:
    import httpx

    from etl_resources.live import LiveConnection

_REFUSAL_BYTES = 4096


class SseSession:
    """Events of one answer that does not end."""

    def __init__(self, response: httpx.Response, redact: Redaction, max_bytes: int, where: str) -> None:
        self._response, self._redact, self._where = response, redact, where
        self._parser = EventParser(max_bytes)
        self._interrupted = False

    @property
    def retry(self) -> float | None:
        """Seconds that the server wants a client to wait before it comes back."""
        return self._parser.retry

    def __iter__(self) -> Iterator[Received | None]:
        """Yield events, and None for comments and the like; raises UnavailableError where the answer breaks off."""
        pieces = self._response.iter_bytes()
        while not self._interrupted:
            with translated(self._where, self._redact):
                piece = next(pieces, None)
            if piece is None:
                return
            now = time.time()
            events = self._parser.feed(piece)
            if not events:
                yield None
            for event in events:
                yield Received(event.data, now, event.id or None, event.type, event.problem)

    def interrupt(self) -> None:
        """Make the iteration end now: a read that waits for the next piece ends when the connection does."""
        self._interrupted = True
        stream = self._response.extensions.get("network_stream")
        found = stream.get_extra_info("socket") if stream is not None else None
        if found is not None:
            with suppress(OSError):
                # Of the connection below TLS: the thread that reads is inside of the upper one.
                socket.socket.shutdown(found, socket.SHUT_RDWR)


@contextmanager
def open_session(
    connection: LiveConnection, path: str, token: Token | None, max_bytes: int, where: str
) -> Iterator[SseSession]:
    """Connect, and hang up at the end; `token` goes as Last-Event-ID.

    Raises:
        UnavailableError, CredentialsRejectedError, NotFoundError, ConfigurationError: as their names say.
        EndedError: the server answers 204: there is nothing more to come.
    """
    httpx = client("httpx", extra="sse")
    from etl_resources.http_transport import AuthorisingTransport, sealed

    redact, policy = Redaction(), connection.resilience
    url = connection.address(path)
    headers, query = connection.credentials(redact)
    wanted = {"Accept": "text/event-stream", "Cache-Control": "no-store", **connection.headers}
    if token is not None:
        wanted["Last-Event-ID"] = str(token)
    transport = AuthorisingTransport(httpx.HTTPTransport(verify=connection.ssl_context()))
    timeout = httpx.Timeout(policy.silence, connect=policy.timeout)
    with httpx.Client(transport=transport, timeout=timeout) as asking:
        with translated(where, redact):
            request = asking.build_request(
                "GET", url, headers=[(name.encode(), value.encode()) for name, value in wanted.items()]
            )
            response = asking.send(sealed(request, headers, query), stream=True)
        try:
            _check(response, where, redact)
            yield SseSession(response, redact, max_bytes, where)
        finally:
            response.close()


def _check(response: httpx.Response, where: str, redact: Redaction) -> None:
    if response.status_code == 204:
        raise EndedError("the server says that there is nothing more to come", where=where)
    if response.status_code != 200:
        body = b""
        with translated(where, redact):
            for piece in response.iter_bytes():
                body += piece
                if len(body) > _REFUSAL_BYTES:
                    break
        raise refusal(response.status_code, body, where, redact)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "text/event-stream":
        raise ConfigurationError(
            f"the server answers {kind or 'without a type'}, and not text/event-stream", where=where,
            fix="check `url` and `path`",
        )  # fmt: skip
