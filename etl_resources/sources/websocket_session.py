"""One WebSocket connection."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError, EtlError, UnavailableError
from etl_resources.extras import client
from etl_resources.http_errors import Redaction, refusal
from etl_resources.live import with_query
from etl_resources.live_feed import Received, Token
from etl_resources.sources.websocket_protocol import Reader, WebsocketOptions, opening

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection, reconnect

    from etl_resources.live import LiveConnection

_CLOSING = 2.0
_FRAMES = 16
_TOO_BIG = 1009


class GoodbyeError(UnavailableError):
    """The connection was closed as it should be."""


class WebsocketSession:
    """Messages of one connection. Whether the server is there is asked only while we listen: one that has to wait for
    us cannot answer."""

    retry: float | None = None

    def __init__(
        self, client: ClientConnection, options: WebsocketOptions, silence: float, redact: Redaction, where: str
    ) -> None:
        self._client, self._options, self._where, self._redact = client, options, where, redact
        self._silence = silence
        self._reader = Reader(options)
        self._interrupted = False

    def __iter__(self) -> Iterator[Received | None]:
        """Yield records, and None for other messages and answers; raises UnavailableError when it is lost."""
        heard = time.monotonic()
        while not self._interrupted:
            body = None
            try:
                with translated(self._where, self._redact), suppress(TimeoutError):
                    body = self._client.recv(timeout=self._options.heartbeat_seconds, decode=False)
                if body is None:
                    self._ask(time.monotonic() - heard)
            except GoodbyeError:
                return
            if body is None:
                yield None
                continue
            heard, now = time.monotonic(), time.time()
            record, token = self._reader.read(body)
            yield Received(body, now, token) if record else None

    def interrupt(self) -> None:
        """Make the iteration end now, with a goodbye to the server."""
        self._interrupted = True
        self._client.close()

    def _ask(self, silent: float) -> None:
        """Ask whether the server is there; a ping has to be answered, a message of the user's by anything at all."""
        with translated(self._where, self._redact):
            if self._options.heartbeat_message is not None:
                if silent > self._silence:
                    raise UnavailableError(f"nothing was heard for {silent:.0f} seconds", where=self._where)
                self._client.send(self._options.heartbeat_message)
            elif not self._client.ping().wait(self._options.heartbeat_seconds):
                seconds = self._options.heartbeat_seconds
                raise UnavailableError(f"a ping was not answered for {seconds:g} seconds", where=self._where)


@contextmanager
def open_session(
    connection: LiveConnection, options: WebsocketOptions, token: Token | None, where: str
) -> Iterator[WebsocketSession]:
    """Connect, subscribe, and hang up at the end.

    Raises:
        UnavailableError, CredentialsRejectedError, NotFoundError, ConfigurationError: as their names say.
    """
    client("websockets", extra="websocket")
    from websockets.typing import Subprotocol

    redact, policy = Redaction(), connection.resilience
    url = connection.address(options.path)
    headers, query = connection.credentials(redact)
    secrets = {name: secret.reveal() for name, secret in options.secrets.items()}
    for secret in secrets.values():
        redact.add(secret)
    opener = _connector()(
        with_query(url, query) if query else url, additional_headers={**connection.headers, **headers},
        ssl=connection.ssl_context() if url.startswith("wss:") else None, open_timeout=policy.timeout,
        close_timeout=_CLOSING, ping_interval=None, max_size=options.max_message_bytes, max_queue=_FRAMES,
        subprotocols=[Subprotocol(name) for name in options.subprotocols] or None, user_agent_header="etl-platform",
    )  # fmt: skip
    with translated(where, redact):
        connected = opener.__enter__()
    try:
        with translated(where, redact):
            for text in opening(options, token, secrets):
                connected.send(text)
        yield WebsocketSession(connected, options, policy.silence, redact, where)
    finally:
        connected.close()


def _connector() -> type[reconnect]:
    from websockets.sync.client import reconnect

    class Direct(reconnect):
        """Follows no redirects: the library would take along secrets in headers that it does not know as such."""

        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc

    return Direct


@contextmanager
def translated(where: str, redact: Redaction) -> Iterator[None]:
    """Run calls of the client, and nothing else, so that their errors come out as errors of the tree."""
    from websockets.exceptions import WebSocketException

    try:
        yield
    except EtlError:
        raise
    except (WebSocketException, OSError) as error:
        # Without the cause: its text and its request may hold credentials.
        raise _translate(error, where, redact(re.sub(r"\s+", " ", str(error)))) from None


def _translate(error: Exception, where: str, text: str) -> EtlError:
    from websockets import exceptions

    fix = "check host and port in `url`, and that the server runs"
    found: EtlError = UnavailableError(f"no connection: {text or type(error).__name__}", where=where, fix=fix)
    if isinstance(error, exceptions.InvalidStatus):
        found = refusal(error.response.status_code, bytes(error.response.body or b""), where, Redaction())
    elif isinstance(error, ssl.SSLCertVerificationError):
        fix = "give the certificate of its authority as `ca_file`"
        found = ConfigurationError(f"the server's certificate is not trusted: {text}", where=where, fix=fix)
    elif isinstance(error, exceptions.ConnectionClosed):
        lost = GoodbyeError if isinstance(error, exceptions.ConnectionClosedOK) else UnavailableError
        found = lost(f"the connection was lost: {text}", where=where)
        if error.sent is not None and error.sent.code == _TOO_BIG:
            found = ConfigurationError(f"a message is too long: {text}", where=where, fix="raise `max_message_bytes`")
    elif isinstance(error, exceptions.InvalidURI):
        found = ConfigurationError(f"this is no address: {text}", where=where, fix="check `url` and `path`")
    elif isinstance(error, exceptions.NegotiationError):
        found = ConfigurationError(f"the server does not speak that: {text}", where=where, fix="check `subprotocols`")
    return found
