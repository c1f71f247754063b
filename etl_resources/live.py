"""How to reach a server that pushes: settings shared by the sources `websocket` and `sse`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import dagster as dg
from pydantic import Field

from etl_resources import tls
from etl_resources.exceptions import ConfigurationError
from etl_resources.http_settings import Authentication
from etl_resources.resilience import Policy

if TYPE_CHECKING:
    import ssl

    from etl_resources.http_client import Response
    from etl_resources.http_errors import Redaction

_ENCRYPTED = {"http": "https", "ws": "wss"}


class LiveConnection(dg.ConfigurableResource):
    """Where a server is and how to say who asks. Nothing connects before it is used."""

    url: str = Field(description="Address of the server; a stream may add a path to it.")
    auth: Authentication = Authentication()
    headers: dict[str, str] = Field(
        default_factory=dict, description="Further headers. None of them secret: see `auth`."
    )
    allow_plaintext: bool = Field(
        default=False, description="Whether http:// or ws:// is allowed: nothing is encrypted then."
    )
    ca_file: str | None = Field(
        default=None, description="File with certificates of authorities to trust, instead of the usual ones."
    )
    resilience: Policy = Policy()

    def address(self, path: str) -> str:
        """Return the address of a path, checked.

        Raises:
            ConfigurationError: it is no address, would be in clear text, or holds a password.
        """
        url = self.url.rstrip("/") + "/" + path.lstrip("/") if path else self.url
        parts = urlsplit(url)
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        if not parts.hostname or parts.scheme not in {*_ENCRYPTED, *_ENCRYPTED.values()}:
            raise ConfigurationError(
                "this is no address", where=where, fix="write https://host/path or wss://host/path"
            )
        if parts.username is not None or parts.password is not None:
            raise ConfigurationError("an address must not hold credentials", where=where, fix="use `auth`")
        if parts.scheme in _ENCRYPTED and not self.allow_plaintext:
            raise ConfigurationError(
                f"{parts.scheme}:// sends everything in clear text", where=where,
                fix=f"write {_ENCRYPTED[parts.scheme]}://, or say `allow_plaintext: true` for a server on this machine",
            )  # fmt: skip
        return url

    def credentials(self, redact: Redaction) -> tuple[dict[str, str], dict[str, str]]:
        """Return secret headers and secret parameters of the query, a token of OAuth 2 fetched anew.

        Raises:
            ConfigurationError, CredentialsRejectedError, UnavailableError: a variable is not set; the token server.
        """
        from etl_resources.http_auth import Credentials

        found = Credentials(self.auth, redact)
        return dict(found.headers(lambda url, form, headers: self._post(url, form, headers, redact))), found.query

    def ssl_context(self) -> ssl.SSLContext:
        """Return how certificates are verified.

        Raises:
            ConfigurationError: `ca_file` cannot be used.
        """
        return tls.context(self.ca_file, offered=tls.HTTP, setting="ca_file")

    def _post(self, url: str, form: dict[str, str], headers: dict[str, str], redact: Redaction) -> Response:
        import httpx

        from etl_resources.http_client import Response
        from etl_resources.http_errors import translated

        if urlsplit(url).scheme != "https" and not self.allow_plaintext:
            raise ConfigurationError("the token server would get the secret in clear text", where=url.partition("?")[0])
        with translated(url.partition("?")[0], redact):
            timeout = httpx.Timeout(self.resilience.silence, connect=self.resilience.timeout)
            answer = httpx.post(url, data=form, headers=headers, timeout=timeout, verify=self.ssl_context())
        return Response(answer.status_code, answer.headers, answer.content)


def with_query(url: str, parameters: dict[str, str]) -> str:
    """Return an address with further parameters in its query."""
    parts = urlsplit(url)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *parameters.items()])
    return urlunsplit(parts._replace(query=query))
