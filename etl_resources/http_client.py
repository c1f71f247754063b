"""Requests that are repeated while that may help, answers that are whole or not there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from etl_resources.exceptions import ConfigurationError, UnavailableError
from etl_resources.http_auth import Credentials
from etl_resources.http_errors import Redaction, refusal, translated
from etl_resources.http_limits import Gate, pause_of

if TYPE_CHECKING:
    import httpx

    from etl_resources.http import HttpConnection

T = TypeVar("T")
_REDIRECTS = 5


@dataclass(frozen=True)
class Request:
    """A request without its credentials. `url` is absolute, or a path behind the connection's base."""

    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    """Sent as JSON; None: no body."""


@dataclass(frozen=True)
class Answer:
    """A whole answer with a status below 400, unpacked. `url` is where it came from, without credentials."""

    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Response:
    """A whole answer of any status; `redirect` is the address it sends on to."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    redirect: str | None = None


class HttpClient:
    """Asks the hosts of one connection; may be used by several threads."""

    def __init__(self, settings: HttpConnection) -> None:
        import httpx

        from etl_resources.http_transport import AuthorisingTransport

        self.settings = settings
        self.redact = Redaction()
        self._credentials = Credentials(settings.auth, self.redact)
        self.gate = Gate(settings.rate, settings.longest_pause)
        policy = settings.resilience
        with translated(settings.address, self.redact):
            limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
            self._client = httpx.Client(
                transport=AuthorisingTransport(httpx.HTTPTransport(verify=settings.ssl_context(), limits=limits)),
                timeout=httpx.Timeout(policy.silence, connect=policy.timeout),
                headers={"Accept-Encoding": "gzip, deflate", "User-Agent": "etl-platform", **settings.headers},
            )
        self._url = lru_cache(64)(httpx.URL)  # parsing an address takes a tenth of a request's time
        self._allowed = {settings.origin(settings.base_url), *map(settings.origin, settings.hosts)}

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def fetch(self, request: Request, accept: Callable[[Answer], T], where: str) -> T:
        """Return what `accept` makes of the answer; a transient error of either is a reason to ask again.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError, ConfigurationError, EngineError
        """
        return self.settings.resilience.call(lambda: accept(self._ask(request, where)))

    def absolute(self, url: str) -> str:
        """Return the absolute form of an address: behind the base, or as it is; without the credentials in it.

        Raises:
            ConfigurationError: it is of a host that may not be given the credentials.
        """
        with translated(self.settings.address, self.redact):
            base = self.settings.base_url
            if url.startswith("//"):
                found = self._url(base).join(url)
            elif "://" in url:
                found = self._url(url)
            else:
                found = self._url(f"{base.rstrip('/')}/{url.lstrip('/')}" if url else base)
            for name in self._credentials.query:
                found = found.copy_remove_param(name)
        self._check_host(str(found))
        return str(found)

    def follow(self, base: str, link: str) -> str:
        """Return a link of an answer as an absolute address; raises as `absolute`."""
        with translated(self.settings.address, self.redact):
            return self.absolute(str(self._url(base).join(link)))

    def _check_host(self, url: str) -> None:
        origin = self.settings.origin(url)
        if origin not in self._allowed:
            raise ConfigurationError(
                f"the API sends on to another host, {self.redact(origin)}, and it would be given the credentials",
                where=self.settings.address, fix="if it belongs to the API, list it in `hosts` of the connection",
            )  # fmt: skip

    def _ask(self, request: Request, where: str) -> Answer:
        url, params = self.absolute(request.url), request.params
        for _ in range(_REDIRECTS):
            answer = self._send_authorised(request, url, params, where)
            if answer.redirect is None:
                return Answer(url, answer.headers, answer.body)
            if request.method != "GET":
                raise ConfigurationError(
                    f"the server redirects a {request.method}", where=where, fix="give the address it redirects to"
                )
            url, params = self.follow(url, answer.redirect), {}
        raise ConfigurationError(f"more than {_REDIRECTS} redirects", where=where, fix="check `base_url` and `path`")

    def _send_authorised(self, request: Request, url: str, params: Mapping[str, str], where: str) -> Response:
        """Send with the credentials, once more with a new token where one was refused; return only what is no error."""
        for last in (False, True):
            headers = self._credentials.headers(self._post_form)
            made = {"method": request.method, "url": url, "params": params, "json": request.body}
            answer = self._send({**made, "headers": request.headers}, where, headers, self._credentials.query)
            if answer.status != 401 or last or not self._credentials.renewable:
                break
            self._credentials.renew(headers["Authorization"])
        pause = pause_of(answer.status, answer.headers, time.time())
        if pause is not None:
            self.gate.pause(pause)
        if answer.status >= 300 and answer.redirect is None:
            raise refusal(answer.status, answer.body, where, self.redact, paused=pause is not None)
        return answer

    def _post_form(self, url: str, form: dict[str, str], headers: dict[str, str]) -> Response:
        self.settings.origin(url)  # a secret goes there: encrypted, or as the user says
        return self._send({"method": "POST", "url": url, "data": form}, url.partition("?")[0], headers, {})

    def _send(
        self, made: dict[str, Any], where: str, secret: Mapping[str, str], secret_query: Mapping[str, str]
    ) -> Response:
        from etl_resources.http_transport import sealed

        self.gate.pass_through(where)
        with translated(where, self.redact):
            params = made.pop("params", None)
            url = self._url(made.pop("url"))
            request = self._client.build_request(url=url.copy_merge_params(dict(params)) if params else url, **made)
            response = self._client.send(sealed(request, secret, secret_query), stream=True)
            try:
                body = self._read(response, where)
            finally:
                response.close()
        redirect = response.headers.get("location") if response.status_code in {301, 302, 303, 307, 308} else None
        return Response(response.status_code, response.headers, body, redirect)

    def _read(self, response: httpx.Response, where: str) -> bytes:
        """Read the body within the limits of size and time."""
        limit, until = self.settings.max_response_bytes, time.monotonic() + self.settings.longest_answer
        parts, size = [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise ConfigurationError(
                    f"an answer is larger than {limit:,} bytes", where=where,
                    fix="ask for smaller pages, or raise `max_response_bytes` of the connection",
                )  # fmt: skip
            if time.monotonic() > until:
                raise UnavailableError(
                    f"an answer took longer than {self.settings.longest_answer:g} seconds", where=where,
                    fix="ask for smaller pages, or raise `longest_answer` of the connection",
                )  # fmt: skip
        return b"".join(parts)
