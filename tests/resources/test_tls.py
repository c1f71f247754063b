"""Certificates of servers: a context is built once, and anew when the authorities are no longer those of before."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from etl_resources import tls
from etl_resources.exceptions import ConfigurationError
from etl_resources.http import HttpConnection
from etl_resources.kafka_registry import Registry
from etl_resources.live import LiveConnection
from etl_resources.mysql import MysqlConnection
from etl_resources.rabbitmq import RabbitmqConnection
from etl_resources.resilience import Policy

Users = Callable[[str | None], ssl.SSLContext]


def _of_http(file: str | None) -> ssl.SSLContext:
    return HttpConnection(base_url="https://localhost", ca_file=file).ssl_context()


def _of_live(file: str | None) -> ssl.SSLContext:
    return LiveConnection(url="wss://localhost", ca_file=file).ssl_context()


def _of_rabbitmq(file: str | None) -> ssl.SSLContext:
    password: Any = {"env": "X"}
    options = RabbitmqConnection(host="localhost", user="u", password=password, ca_file=file)._tls()
    assert options is not None
    return options.context


def _of_mysql(file: str | None, mode: str = "verify_identity") -> ssl.SSLContext:
    settings = MysqlConnection(host="localhost", database="d", user="u", ssl_ca=file, ssl_mode=mode)._tls()
    found: ssl.SSLContext = settings["ssl"]
    return found


def _of_registry(file: str | None) -> ssl.SSLContext:
    opener: Any = Registry("https://localhost", None, file, Policy())._opener("here")
    [context] = [handler._context for handler in opener.handlers if hasattr(handler, "_context") and handler._context]
    assert isinstance(context, ssl.SSLContext)
    return context


users = pytest.mark.parametrize("of", [_of_http, _of_live, _of_rabbitmq, _of_mysql, _of_registry])


@pytest.fixture(scope="module")
def authorities() -> list[trustme.CA]:
    return [trustme.CA(), trustme.CA()]


@contextmanager
def served(authority: trustme.CA, name: str = "localhost") -> Iterator[int]:
    """Give the port of a server with a certificate of an authority, which speaks TLS and no more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    authority.issue_cert(name).configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with suppress(OSError), client, context.wrap_socket(client, server_side=True) as secure:
                    if secure.recv(65_536):  # a request: who answers before it and hangs up takes the answer back
                        secure.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def shake_hands(context: ssl.SSLContext, port: int) -> str | None:
    """Connect, and return the protocol that was agreed on."""
    plain = socket.create_connection(("127.0.0.1", port), 10)
    with plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
        return secure.selected_alpn_protocol()


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What contexts are built from, from now on."""
    build, found = ssl.create_default_context, []

    def counted(**given: Any) -> ssl.SSLContext:
        found.append(given)
        return build(**given)

    monkeypatch.setattr(tls, "_BUILT", {})
    monkeypatch.setattr(ssl, "create_default_context", counted)
    return found


@users
def test_an_authority_that_is_replaced_in_its_file_is_trusted_by_the_next_connection(
    of: Users, authorities: list[trustme.CA], tmp_path: Path
) -> None:
    old, new = authorities
    old.cert_pem.write_to_path(file := tmp_path / "ca.pem")
    with served(new) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(of(str(file)), port)
        new.cert_pem.write_to_path(file)
        shake_hands(of(str(file)), port)
        new.cert_pem.write_to_path(other := tmp_path / "other.pem")
        old.cert_pem.write_to_path(file)
        other.replace(file)
        shake_hands(of(str(file)), port)


@users
def test_a_context_is_not_built_twice(
    of: Users, authorities: list[trustme.CA], tmp_path: Path, builds: list[Any]
) -> None:
    authorities[0].cert_pem.write_to_path(file := tmp_path / "ca.pem")
    assert of(str(file)) is of(str(file))
    assert of(None) is of(None)
    assert of(None) is not of(str(file))
    assert len(builds) == 2


def test_nor_by_connections_that_are_made_at_the_same_time(builds: list[Any]) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len({id(context) for context in pool.map(lambda _: _of_mysql(None), range(16))}) == 1
    assert len(builds) == 1


@users
def test_the_authorities_that_the_environment_names_are_those_of_the_next_connection(
    of: Users, authorities: list[trustme.CA], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: list[Any]
) -> None:
    authorities[0].cert_pem.write_to_path(tmp_path / "ca.pem")
    with served(authorities[0]) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(of(None), port)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        shake_hands(of(None), port)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem.none"))
        with pytest.raises((ssl.SSLCertVerificationError, ConfigurationError)):
            shake_hands(of(None), port)
    assert len(builds) == 3


@pytest.mark.skipif(shutil.which("openssl") is None, reason="its files are named by what openssl makes of them")
def test_a_folder_of_authorities_that_the_environment_names_is_looked_into(
    authorities: list[trustme.CA], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorities[0].cert_pem.write_to_path(file := tmp_path / "ca.pem")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with served(authorities[0]) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(_of_http(None), port)
        name = _hash_of_the_subject(file)
        (tmp_path / f"{name}.0").symlink_to(file)
        shake_hands(_of_http(None), port)


def _hash_of_the_subject(file: Path) -> str:
    words = ["openssl", "x509", "-hash", "-noout", "-in", str(file)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def test_what_one_client_asks_of_a_context_is_not_seen_by_another(
    authorities: list[trustme.CA], tmp_path: Path
) -> None:
    """HTTP offers its protocol; MySQL may check less."""
    authorities[0].cert_pem.write_to_path(path := tmp_path / "ca.pem")
    file = str(path)
    plain, less = _of_rabbitmq(file), _of_mysql(file, "required")
    with served(authorities[0]) as port:
        with httpx.Client(verify=_of_http(file)) as client:
            assert client.get(f"https://localhost:{port}/").status_code == 204
        assert shake_hands(_of_http(file), port) == "http/1.1"
        assert shake_hands(plain, port) is None
    with served(authorities[1], "elsewhere") as port:
        shake_hands(less, port)
        for strict in (plain, _of_mysql(file), _of_mysql(file, "verify_ca")):
            with pytest.raises(ssl.SSLCertVerificationError):
                shake_hands(strict, port)
    with served(authorities[0], "elsewhere") as port:
        shake_hands(_of_mysql(file, "verify_ca"), port)
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            shake_hands(_of_mysql(file), port)


@users
def test_a_file_that_will_not_do_is_named_and_is_read_again(
    of: Users, authorities: list[trustme.CA], tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    for text in (None, "no certificate"):
        if text is not None:
            file.write_text(text)
        with pytest.raises(ConfigurationError, match=r"ca\.pem cannot be used") as caught:
            of(str(file))
        assert "ca" in caught.value.fix
    authorities[0].cert_pem.write_to_path(file)
    with served(authorities[0]) as port:
        shake_hands(of(str(file)), port)
