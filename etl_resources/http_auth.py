"""Credentials are put on a request at the last moment, and only for hosts that may have them.

They are no part of the requests that the client keeps, logs and shows in errors.
"""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import CredentialsRejectedError, UnavailableError
from etl_resources.http_errors import Redaction, refusal

if TYPE_CHECKING:
    from etl_resources.http_client import Response
    from etl_resources.http_settings import Authentication, OAuth2

_EARLY = 60.0
"""Seconds before its end at which a token is fetched anew; of a token that lives shortly, a tenth of its life."""

Fetch = Callable[[str, dict[str, str], dict[str, str]], "Response"]
"""POST of a form: address, fields, headers."""


class Credentials:
    """What requests carry, fetched when it is first needed; secrets are read from the environment here."""

    def __init__(self, settings: Authentication, redact: Redaction) -> None:
        self._headers: dict[str, str] = {}
        self._query: dict[str, str] = {}
        self._token: Token | None = None
        if (key := settings.api_key) is not None:
            value = key.value.reveal()
            redact.add(value)
            (self._headers if key.header else self._query)[key.header or key.query or ""] = value
        elif (basic := settings.basic) is not None:
            password = basic.password.reveal()
            redact.add(password)
            self._headers["Authorization"] = _basic(basic.user, password, redact)
        elif settings.bearer is not None:
            token = settings.bearer.reveal()
            redact.add(token)
            self._headers["Authorization"] = f"Bearer {token}"
        elif settings.oauth2 is not None:
            self._token = Token(settings.oauth2, redact)

    @property
    def query(self) -> dict[str, str]:
        """Parameters of the query that hold a secret."""
        return self._query

    @property
    def renewable(self) -> bool:
        """Whether `renew` may help when the server says no."""
        return self._token is not None

    def headers(self, fetch: Fetch) -> dict[str, str]:
        """Return the headers of a request; raises as `Token.value`."""
        if self._token is None:
            return self._headers
        return {"Authorization": f"Bearer {self._token.value(fetch)}"}

    def renew(self, refused: str) -> None:
        """Have the token fetched anew, unless it is another one already than the header `refused`."""
        if self._token is not None:
            self._token.forget(refused.removeprefix("Bearer "))


class Token:
    """An access token, shared by all threads of a client."""

    def __init__(self, settings: OAuth2, redact: Redaction, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._redact, self._clock = settings, redact, clock
        self._value: str | None = None
        self._until: float | None = None
        self._lock = threading.Lock()

    def value(self, fetch: Fetch) -> str:
        """Return a token that is valid for some time yet.

        Raises:
            CredentialsRejectedError, UnavailableError, NotFoundError, ConfigurationError: the token server's answer.
        """
        with self._lock:
            if self._value is None or (self._until is not None and self._clock() >= self._until):
                self._fetch(fetch)
            assert self._value is not None  # noqa: S101 - just fetched
            return self._value

    def forget(self, refused: str) -> None:
        """Drop the token if it is the one that was refused; another thread may have a newer one already."""
        with self._lock:
            if self._value == refused:
                self._value = None

    def _fetch(self, fetch: Fetch) -> None:
        settings, secret = self._settings, self._settings.client_secret.reveal()
        self._redact.add(secret)
        form = {"grant_type": "client_credentials", **settings.parameters}
        headers = {"Accept": "application/json"}
        if settings.scope is not None:
            form["scope"] = settings.scope
        if settings.client_auth == "basic":
            headers["Authorization"] = _basic(settings.client_id, secret, self._redact)
        else:
            form |= {"client_id": settings.client_id, "client_secret": secret}
        where = f"token server {settings.token_url.partition('?')[0]}"
        asked_at = self._clock()
        answer = fetch(settings.token_url, form, headers)
        # RFC 6749 has 400 with `invalid_client` and the like for credentials that are wrong.
        if answer.status == 400:
            raise CredentialsRejectedError(
                f"the token server refused: {self._redact(answer.body.decode('utf-8', 'replace'))[:200]}", where=where,
                fix="check client_id, client_secret and scope",
            )  # fmt: skip
        if answer.status != 200:
            raise refusal(answer.status, answer.body, where, self._redact)
        self._take(_document(answer), asked_at, where)

    def _take(self, granted: dict[str, Any], asked_at: float, where: str) -> None:
        token, lives = granted.get("access_token"), granted.get("expires_in")
        if not isinstance(token, str) or not token:
            raise UnavailableError("the token server's answer holds no access_token", where=where)
        self._redact.add(token)
        try:
            seconds = None if lives is None else float(lives)
        except (TypeError, ValueError):
            seconds = None
        self._value = token
        self._until = None if seconds is None else asked_at + seconds - min(_EARLY, seconds / 10)


def _document(answer: Response) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _basic(user: str, password: str, redact: Redaction) -> str:
    encoded = b64encode(f"{user}:{password}".encode()).decode()
    redact.add(encoded)
    return f"Basic {encoded}"
