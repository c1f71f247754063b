"""What an HTTP client meets, as errors of this project's tree. No text from outside is shown with a secret in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import quote, quote_plus

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)

_SHOWN = 200
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class Redaction:
    """Takes secrets out of text, also as they stand in a URL."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets: set[str] = set()
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Keep one more secret, such as a token that was just fetched, from being shown."""
        self._secrets |= {form for form in (secret, quote(secret, safe=""), quote_plus(secret)) if form}

    def __call__(self, text: str) -> str:
        """Return the text with `***` where a secret stood."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def __repr__(self) -> str:
        return f"Redaction of {len(self._secrets)} texts"


def refusal(status: int, body: bytes, where: str, redact: Redaction, *, paused: bool = False) -> EtlError:
    """Return the error for a status of 400 or more; `paused`: the answer said when to come again."""
    # Redacted before it is cut: half a secret would not be recognised.
    said = re.sub(r"\s+", " ", redact(body.decode("utf-8", "replace"))).strip()[:_SHOWN]
    what = f"the server answered {status} {_phrase(status)}" + (f": {said}" if said else "")
    if status in TRANSIENT or (status == 403 and paused):
        return UnavailableError(what, where=where, fix="it was asked again and again; ask later, or ask less often")
    if status in {401, 403}:
        return CredentialsRejectedError(what, where=where, fix="check `auth` and what the credentials are allowed to")
    if status in {404, 410}:
        return NotFoundError(what, where=where, fix="check `base_url` and `path`")
    if status >= 500:
        return EngineError(what, where=where)
    return ConfigurationError(what, where=where, fix="check path, parameters and body of the request")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


@contextmanager
def translated(where: str, redact: Redaction) -> Iterator[None]:
    """Run calls of the client, and nothing else, so that their errors come out as errors of the tree."""
    import ssl

    import httpx

    try:
        yield
    except EtlError:
        raise
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
        # Without the cause: its text and its request may hold credentials.
        raise _translate(error, where, redact(re.sub(r"\s+", " ", str(error)))) from None


def _translate(error: Exception, where: str, text: str) -> EtlError:
    import httpx

    broken: EtlError = UnavailableError(f"the answer broke off: {text or type(error).__name__}", where=where)
    if re.search("certificate verify failed|CERTIFICATE_VERIFY_FAILED", text):
        broken = ConfigurationError(
            f"the server's certificate is not trusted: {text[:_SHOWN]}", where=where,
            fix="give the certificate of its authority as `ca_file`",
        )  # fmt: skip
    elif isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        broken = UnavailableError("no connection within `resilience.timeout`", where=where, fix="check host and port")
    elif isinstance(error, httpx.TimeoutException):
        broken = UnavailableError("the server fell silent for `resilience.silence` seconds", where=where)
    elif re.search(r"Name or service not known|name resolution|nodename nor servname|No address associated", text):
        fix = "check the host in `base_url`"
        broken = UnavailableError(f"the host name is not known: {text}", where=where, fix=fix)
    elif isinstance(error, httpx.ConnectError):
        fix = "check host and port in `base_url`, and that the server runs"
        broken = UnavailableError(f"no connection: {text}", where=where, fix=fix)
    elif isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        broken = ConfigurationError(f"this is no address: {text}", where=where, fix="check `base_url` and `path`")
    elif isinstance(error, httpx.DecodingError):
        broken = UnavailableError(f"the answer's compression is broken: {text}", where=where)
    return broken
