"""The HTTP client: who it says it is, how often it asks, and what it makes of every way in which asking goes wrong."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.http import HttpConnection
from etl_resources.http_auth import Token
from etl_resources.http_client import Answer, Request
from etl_resources.http_errors import Redaction
from etl_resources.http_limits import Gate, pause_of
from etl_resources.http_settings import OAuth2, RateLimit
from etl_resources.resilience import Policy
from etl_resources.secret import Secret
from tests.servers.http_api import Api, Asked, Told, running_api
from tests.servers.proxy import free_port, wire_to

SECRET = "s3cr3t/+&= word"
QUICK = Policy(attempts=3, first_wait=0.01, longest_wait=0.01, timeout=2, silence=1)


@pytest.fixture(scope="module")
def running() -> Iterator[Api]:
    with running_api() as api:
        yield api


@pytest.fixture
def api(running: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setenv("HTTP_SECRET", SECRET)
    running.log.clear()
    running.allowed, running.zipped, running.interfere = None, False, lambda asked, told: told
    running.routes = {"/x": lambda asked: Told(b'{"fine": true}')}
    return running


def connection(api: Api, **settings: Any) -> HttpConnection:
    return HttpConnection(**{"base_url": api.url, "allow_http": True, "resilience": QUICK, **settings})


def fetch(http: HttpConnection, url: str = "/x", **request: Any) -> Answer:
    with http.client() as client:
        return client.fetch(Request(url, **request), lambda answer: answer, "here")


def answers(api: Api, *told: Told | None) -> None:
    """Give these answers one after the other, and then what there is."""
    left = list(told)
    api.interfere = lambda asked, usual: left.pop(0) if left else usual


AUTH: dict[str, tuple[dict[str, Any], Any]] = {
    "header": (
        {"api_key": {"header": "X-Key", "value": {"env": "HTTP_SECRET"}}}, lambda a: a.headers.get("x-key") == SECRET
    ),
    "query": ({"api_key": {"query": "key", "value": {"env": "HTTP_SECRET"}}}, lambda a: a.query.get("key") == SECRET),
    "basic": (
        {"basic": {"user": "me", "password": {"env": "HTTP_SECRET"}}},
        lambda a: a.headers.get("authorization") == "Basic bWU6czNjcjN0LysmPSB3b3Jk",
    ),
    "bearer": ({"bearer": {"env": "HTTP_SECRET"}}, lambda a: a.headers.get("authorization") == f"Bearer {SECRET}"),
}  # fmt: skip


@pytest.mark.parametrize("way", AUTH)
def test_requests_carry_their_credentials(api: Api, way: str) -> None:
    settings, allowed = AUTH[way]
    api.allowed = allowed
    assert fetch(connection(api, auth=settings)).body == b'{"fine": true}'
    with pytest.raises(CredentialsRejectedError):
        fetch(connection(api))


@pytest.mark.parametrize("way", AUTH)
@pytest.mark.parametrize("told", [401, 403, 404, 400, 500, None])
def test_no_error_no_repr_and_no_log_shows_the_secret(
    api: Api, way: str, told: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even when the server's own answer repeats it."""
    caplog.set_level(logging.DEBUG)
    settings, _ = AUTH[way]

    def repeat(asked: Asked, usual: Told) -> Told | None:
        body = json.dumps({"you": asked.headers, "asked": asked.query}).encode()
        return None if told is None else Told(body, told)

    api.interfere = repeat
    http = connection(api, auth=settings)
    with pytest.raises(EtlError) as caught:
        fetch(http)
    shown = "".join([str(caught.value), repr(caught.value), repr(http), caplog.text])
    causes = caught.value.__cause__, caught.value.__suppress_context__
    assert causes == (None, True) or caught.value.__context__ is None
    for form in (SECRET, "s3cr3t", "czNjcjN0", "bWU6czNjcjN0"):
        assert form not in shown


def granting(api: Api, lives: float = 3600) -> list[Asked]:
    """Let the API grant tokens t1, t2 … at /token; return what was asked of it."""
    asked: list[Asked] = []

    def token(request: Asked) -> Told:
        asked.append(request)
        return Told(
            json.dumps({"access_token": f"t{len(asked)}", "expires_in": lives, "token_type": "Bearer"}).encode()
        )

    api.routes["/token"] = token
    return asked


def oauth(api: Api, **more: Any) -> dict[str, Any]:
    secret = {"env": "HTTP_SECRET"}
    return {"oauth2": {"token_url": f"{api.url}/token", "client_id": "me", "client_secret": secret, **more}}


def test_a_token_is_fetched_once_and_used_by_all_threads(api: Api) -> None:
    asked = granting(api)
    api.allowed = lambda a: a.headers.get("authorization") == "Bearer t1"
    with connection(api, auth=oauth(api, scope="read", client_auth="body")).client() as client:
        threads = [
            threading.Thread(target=client.fetch, args=(Request("/x"), lambda answer: answer, "here")) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(asked) == 1
    assert b"scope=read" in asked[0].body
    assert b"client_id=me&client_secret=s3cr3t" in asked[0].body
    assert len([a for a in api.log if a.path == "/x"]) == 8


def test_a_token_that_is_refused_is_fetched_anew_once(api: Api) -> None:
    asked = granting(api)
    api.allowed = lambda a: a.headers.get("authorization") == "Bearer t2"
    assert fetch(connection(api, auth=oauth(api))).body == b'{"fine": true}'
    assert len(asked) == 2
    api.allowed = lambda a: False
    api.log.clear()
    with pytest.raises(CredentialsRejectedError):
        fetch(connection(api, auth=oauth(api)))
    assert [a.path for a in api.log] == ["/token", "/x", "/token", "/x"], "once, and not again and again"


def test_a_token_is_fetched_anew_before_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_SECRET", SECRET)
    now, granted = [0.0], []

    def fetch_form(url: str, form: Any, headers: Any) -> Any:
        from etl_resources.http_client import Response

        granted.append(now[0])
        return Response(200, {}, json.dumps({"access_token": f"t{len(granted)}", "expires_in": 1000}).encode())

    settings = OAuth2(token_url="https://x/token", client_id="me", client_secret=Secret(env="HTTP_SECRET"))
    token = Token(settings, Redaction(), clock=lambda: now[0])
    seen = []
    for moment in (0, 939, 941, 1800):
        now[0] = moment
        seen.append(token.value(fetch_form))
    assert seen == ["t1", "t1", "t2", "t2"]


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (Told(b'{"error": "invalid_client"}', 400), CredentialsRejectedError),
        (Told(b'{"error": "invalid_client"}', 401), CredentialsRejectedError),
        (Told(b"{}"), UnavailableError),
        (Told(b"<html>", 503), UnavailableError),
        (Told(b"", 404), NotFoundError),
    ],
)
def test_a_token_server_that_gives_none_is_an_error(api: Api, told: Told, kind: type[EtlError]) -> None:
    api.routes["/token"] = lambda asked: told
    with pytest.raises(kind, match="token server"):
        fetch(connection(api, auth=oauth(api)))


@pytest.mark.parametrize("place", ["https://other.example/x", "http://127.0.0.1:1/x", "//other.example/x", "http:/x"])
def test_credentials_are_not_sent_to_another_host(api: Api, place: str) -> None:
    """Neither behind a redirect, nor behind a link, nor in clear text instead of TLS."""
    answers(api, Told(b"", 302, {"Location": place}))
    if place == "http:/x":  # the same host after all
        fetch(connection(api))
        return
    with pytest.raises(ConfigurationError, match=r"another host|clear text") as caught:
        fetch(connection(api, auth=AUTH["bearer"][0]))
    assert len(api.log) == 1
    assert "hosts" in caught.value.fix or "allow_http" in caught.value.fix


def test_a_host_that_is_listed_gets_them(api: Api) -> None:
    with running_api() as other:
        other.routes["/y"] = lambda asked: Told(asked.headers.get("authorization", "").encode())
        answers(api, Told(b"", 307, {"Location": f"{other.url}/y"}))
        http = connection(api, auth=AUTH["bearer"][0], hosts=[other.url])
        assert fetch(http).body == f"Bearer {SECRET}".encode()


def test_redirects_that_do_not_end_are_an_error(api: Api) -> None:
    api.interfere = lambda asked, told: Told(b"", 302, {"Location": "/x"})
    with pytest.raises(ConfigurationError, match="redirects"):
        fetch(connection(api))


def test_clear_text_needs_to_be_said(api: Api) -> None:
    with pytest.raises(ConfigurationError, match="clear text"):
        fetch(connection(api, allow_http=False))
    assert not api.log
    with pytest.raises(ConfigurationError, match="must not hold credentials"):
        fetch(connection(api, base_url="https://me:word@example.org"))
    with pytest.raises(ConfigurationError) as caught:
        fetch(connection(api, base_url=f"https://me:{SECRET}@example.org"))
    assert "s3cr3t" not in str(caught.value)
    granting(api)
    https = connection(api, base_url="https://127.0.0.1:1", allow_http=False, auth=oauth(api))
    with pytest.raises(ConfigurationError, match="clear text"):
        fetch(https)
    assert not api.log, "the client's secret was not sent either"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(api: Api, status: int) -> None:
    answers(api, Told(b"busy", status), Told(b"busy", status))
    assert fetch(connection(api)).body == b'{"fine": true}'
    answers(api, *[Told(b"busy", status)] * 3)
    with pytest.raises(UnavailableError, match=f"{status} .*busy"):
        fetch(connection(api))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, ConfigurationError), (401, CredentialsRejectedError), (403, CredentialsRejectedError), (404, NotFoundError),
     (410, NotFoundError), (422, ConfigurationError), (501, EngineError), (304, ConfigurationError)],
)  # fmt: skip
def test_what_does_not_pass_is_asked_once(api: Api, status: int, kind: type[EtlError]) -> None:
    answers(api, Told(b"" if status == 304 else b"because", status))
    with pytest.raises(kind) as caught:
        fetch(connection(api))
    assert caught.value.where == "here"
    assert len(api.log) == 1


def test_the_server_is_left_alone_for_as_long_as_it_says(api: Api) -> None:
    answers(api, Told(b"", 429, {"Retry-After": "1"}))
    started = time.monotonic()
    assert fetch(connection(api)).body == b'{"fine": true}'
    assert time.monotonic() - started >= 0.95
    answers(api, Told(b"", 403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "0"}))
    assert fetch(connection(api)).body == b'{"fine": true}', "a limit that says 403 is no wrong password"
    api.log.clear()
    answers(api, Told(b"", 429, {"Retry-After": "4000"}))
    with pytest.raises(UnavailableError, match=r"left alone for (4000|3999) seconds") as caught:
        fetch(connection(api, longest_pause=60))
    assert "longest_pause" in caught.value.fix
    assert len(api.log) == 1


@pytest.mark.parametrize(
    ("status", "headers", "pause"),
    [
        (429, {"retry-after": "7"}, 7), (503, {"retry-after": "Thu, 01 Jan 1970 00:16:50 GMT"}, 10),
        (429, {"retry-after": "soon"}, None), (200, {"retry-after": "7"}, None), (429, {}, None),
        (200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, 30),
        (200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "2000000000"}, 2_000_000_000 - 1000),
        (200, {"x-ratelimit-remaining": "1", "x-ratelimit-reset": "30"}, None),
        (200, {"ratelimit-remaining": "0", "ratelimit-reset": "5"}, 5),
    ],
)  # fmt: skip
def test_what_answers_say_about_limits(status: int, headers: dict[str, str], pause: float | None) -> None:
    assert pause_of(status, headers, 1000.0) == pause


def test_no_more_requests_than_configured(api: Api) -> None:
    with connection(api, rate=RateLimit(requests=5, seconds=0.5)).client() as client:
        started = time.monotonic()
        for _ in range(11):
            client.fetch(Request("/x"), lambda answer: answer, "here")
        assert time.monotonic() - started >= 0.95


def test_a_pause_holds_for_all_threads() -> None:
    now = [0.0]
    gate = Gate(None, 60, clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    gate.pause(5)
    gate.pause(2)
    gate.pass_through("here")
    assert now == [5.0]


BROKEN: dict[str, Told | None] = {
    "cut off": Told(b'{"fine": tr', promise=500),
    "no answer": None,
    "broken gzip": Told(b"no gzip at all", headers={"Content-Encoding": "gzip"}, promise=14),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_an_answer_that_breaks_off_is_asked_for_again_and_never_taken_for_whole(api: Api, fault: str) -> None:
    if BROKEN[fault] is None:
        answers(api, None)
    else:
        answers(api, BROKEN[fault])
    assert fetch(connection(api)).body == b'{"fine": true}'
    api.interfere = lambda asked, told: BROKEN[fault]
    with pytest.raises(UnavailableError):
        fetch(connection(api))


def test_a_wire_that_is_reset_refused_or_silent(api: Api) -> None:
    big = b"[" + b" " * 100_000 + b"]"
    api.routes["/x"] = lambda asked: Told(big)
    with wire_to(api.port, cut_after=50_000) as wire:
        http = connection(api, base_url=f"http://127.0.0.1:{wire.port}")
        with pytest.raises(UnavailableError, match=r"broke off|no connection"):
            fetch(http)
        assert wire.connections >= 3
        wire.cut_after = None
        assert fetch(http).body == big, "the server is back"
    with wire_to(api.port, stall_after=50_000) as wire:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="silent"):
            fetch(connection(api, base_url=f"http://127.0.0.1:{wire.port}", resilience=Policy(attempts=1, silence=0.5)))
        assert time.monotonic() - started < 10
    with pytest.raises(UnavailableError, match="no connection") as caught:
        fetch(connection(api, base_url=f"http://127.0.0.1:{free_port()}"))
    assert "base_url" in caught.value.fix


def test_a_slow_loris_has_an_end(api: Api) -> None:
    """A byte now and then is not silence."""
    answers(api, Told(b'{"fine": true}' * 20, drip=0.05))
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"longer than 0.5 seconds") as caught:
        fetch(connection(api, longest_answer=0.5, resilience=Policy(attempts=1)))
    assert time.monotonic() - started < 10
    assert "longest_answer" in caught.value.fix


def test_an_answer_that_is_too_large_is_refused_also_when_it_is_small_on_the_wire(api: Api) -> None:
    api.routes["/x"] = lambda asked: Told(b" " * 5_000_000)
    api.zipped = True
    with pytest.raises(ConfigurationError, match="larger than 1,000,000 bytes"):
        fetch(connection(api, max_response_bytes=1_000_000))
    assert len(fetch(connection(api)).body) == 5_000_000
    assert len(api.log) == 2, "not asked again"


def test_a_host_that_is_not_known_is_said_to_be(api: Api) -> None:
    with pytest.raises(UnavailableError, match="host name") as caught:
        fetch(connection(api, base_url="https://no-such-host.invalid", resilience=Policy(attempts=1, timeout=5)))
    assert "base_url" in caught.value.fix


def test_certificates_are_verified(tmp_path: Path, api: Api) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    key, chain, trusted = tmp_path / "key.pem", tmp_path / "chain.pem", tmp_path / "ca.pem"
    issued.private_key_pem.write_to_path(key)
    for pem in issued.cert_chain_pems:
        pem.write_to_path(chain, append=True)
    authority.cert_pem.write_to_path(trusted)
    with running_api(tls=(str(key), str(chain))) as secure:
        secure.routes["/x"] = lambda asked: Told(b"[]")
        url = f"https://127.0.0.1:{secure.port}"
        with pytest.raises(ConfigurationError, match="certificate") as caught:
            fetch(connection(api, base_url=url, allow_http=False))
        assert "ca_file" in caught.value.fix
        assert fetch(connection(api, base_url=url, allow_http=False, ca_file=str(trusted))).body == b"[]"
    with pytest.raises(ConfigurationError, match=r"ca_file|cannot be used"):
        fetch(connection(api, ca_file=str(tmp_path / "nothing.pem")))


def test_ping_tells_a_wrong_password_from_a_place_without_a_page(api: Api) -> None:
    assert connection(api).ping(), "404 at the base is an answer"
    api.allowed = lambda asked: False
    with pytest.raises(CredentialsRejectedError):
        connection(api).ping()


def test_two_ways_to_say_who_asks_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="one of api_key"):
        HttpConnection(
            base_url="https://x", auth={"bearer": {"env": "A"}, "basic": {"user": "u", "password": {"env": "B"}}}
        )  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="either `header` or `query`"):
        HttpConnection(base_url="https://x", auth={"api_key": {"value": {"env": "A"}}})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="never written down"):
        HttpConnection(base_url="https://x", auth={"bearer": "literal"})  # type: ignore[arg-type]
