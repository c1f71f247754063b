"""What goes wrong between here, Redshift and S3: an error that says what to do, and nothing left behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EtlError,
    NotFoundError,
    RowsNotConservedError,
    UnavailableError,
)
from etl_resources.files.storage import Storage
from etl_resources.redshift_errors import reported
from etl_resources.secret import Secret
from etl_resources.source import Stream
from etl_resources.sources.redshift import RedshiftSource, RedshiftStreamOptions
from tests.servers.proxy import free_port, wire_to
from tests.servers.redshift import running_redshift, shared_redshift
from tests.servers.s3 import BUCKET
from tests.soaking import some

ROWS = 60_000
ONCE = {"attempts": 1, "timeout": 1, "silence": 1, "first_wait": 0.01, "longest_wait": 0.05}
UNLOAD = {"to": f"s3://{BUCKET}/unloaded-faults"}
"""Of its own: where a store goes away half-way, others leave what they cannot remove."""


@pytest.fixture(scope="module")
def database() -> str:
    server = shared_redshift()
    name = server.database()
    server.execute(
        name, f"CREATE TABLE large AS SELECT g AS id, md5(g::text) AS filler FROM generate_series(1, {ROWS}) g",
        "CREATE TABLE small AS SELECT g AS id FROM generate_series(1, 10) g",
    )  # fmt: skip
    return name


@pytest.fixture
def fault(database: str) -> Iterator[Any]:
    """Make the server misbehave in a way that it knows by name, until the test ends."""

    def tell(name: str) -> None:
        with source(database).session() as session:
            session.execute(f"FAULT {name}")

    yield tell
    tell("")


def source(database: str, **settings: Any) -> RedshiftSource:
    return RedshiftSource(**shared_redshift().settings(database, **{"resilience": ONCE, **settings}))


def stream(table: str = "large", **options: Any) -> Stream:
    return Stream("s", RedshiftStreamOptions(table=table, **options))


def read(opened: RedshiftSource, wanted: Stream) -> int:
    return sum(batch.data.num_rows for batch in opened.read(wanted, None, batch_rows=5_000))


def left() -> list[str]:
    """Return the objects that lie under the prefix of the tests."""
    s3 = shared_redshift().s3
    secrets = {name: Secret(**given) for name, given in s3.secrets.items()}
    return [f.path for f in Storage(s3.options, secrets, s3.client_options).find(f"{UNLOAD['to']}/**")]


@pytest.mark.parametrize("bytes_", some([0, 700, 1_500_000, 30], 3))
def test_a_wire_that_is_cut_is_an_error_wherever_it_is_cut(database: str, bytes_: int) -> None:
    """While it connects, logs in, answers, and sends rows."""
    with wire_to(shared_redshift().port, cut_after=bytes_) as wire, pytest.raises(UnavailableError) as caught:
        read(source(database, port=wire.port), stream())
    assert f"127.0.0.1:{wire.port}" in caught.value.where


@pytest.mark.timeout(40)
@pytest.mark.parametrize("bytes_", some([0, 1_000_000, 30], 2))
def test_a_server_that_falls_silent_is_given_up(database: str, bytes_: int) -> None:
    with wire_to(shared_redshift().port, stall_after=bytes_) as wire, pytest.raises(UnavailableError, match="in time"):
        read(source(database, port=wire.port, statement_timeout=1), stream())


def test_a_statement_may_take_longer_than_a_silence_within_an_answer(database: str) -> None:
    slow = Stream("s", RedshiftStreamOptions(query="SELECT 1 AS id FROM pg_sleep(1.5)"))
    assert read(source(database, statement_timeout=20), slow) == 1
    with pytest.raises(UnavailableError, match="in time"):
        read(source(database, statement_timeout=1), slow)


def test_a_refused_connection_is_tried_again(database: str) -> None:
    with wire_to(shared_redshift().port, refuse=True) as wire:
        with pytest.raises(UnavailableError):
            source(database, port=wire.port, resilience=ONCE | {"attempts": 3}).ping()
        assert wire.connections == 3
        wire.refuse = False
        assert source(database, port=wire.port).ping()


def test_a_host_that_has_no_address_is_named(database: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        source(database, host="no-such-host.invalid").ping()
    assert "no-such-host.invalid" in str(caught.value)


def test_a_wrong_password_is_not_tried_again_and_not_shown(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("WRONG", "s3cr3t")
    with wire_to(shared_redshift().port) as wire:
        opened = source(database, port=wire.port, password=Secret(env="WRONG"), resilience=ONCE | {"attempts": 3})
        with pytest.raises(CredentialsRejectedError, match="check user") as caught:
            opened.ping()
    assert wire.connections == 1
    assert "s3cr3t" not in f"{caught.value!s} {caught.value!r} {opened!r} {caplog.text}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the files of an authority's certificate, and of a certificate for localhost with its key."""
    folder, ca = tmp_path_factory.mktemp("tls"), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    issued = ca.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return folder / "ca.pem", folder / "server.pem"


@pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLS:DeprecationWarning")  # the driver's way to ask for TLS
def test_a_certificate_is_checked_unless_told_otherwise(
    database: str, authority: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, certificate = authority
    with running_redshift(certificate=certificate) as server:
        here: dict[str, Any] = {"host": "localhost", "port": server.port, "sslmode": "verify-full"}
        with pytest.raises(ConfigurationError, match="certificate is not trusted"):
            source(database, **here).ping()
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        assert read(source(database, **here), stream("small")) == 10
        with pytest.raises(ConfigurationError, match=r"not trusted: .*(127\.0\.0\.1|IP address)"):
            source(database, **here | {"host": "127.0.0.1"}).ping()
        assert source(database, **here | {"host": "127.0.0.1", "sslmode": "verify-ca"}).ping()


@pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLS:DeprecationWarning")
def test_a_server_without_tls_is_refused_unless_told_otherwise(database: str) -> None:
    with pytest.raises(ConfigurationError, match="speaks no TLS"):
        source(database, sslmode="verify-full").ping()


@pytest.mark.soak  # to the reader it is a wire that is cut, and a run after an outage
def test_a_server_that_is_restarted_half_way_is_an_error_and_then_read_anew(database: str) -> None:
    port = free_port()
    with running_redshift(port):
        batches = source(database, port=port).read(stream(read_ahead=0), None, batch_rows=1000)
        next(batches)
    with running_redshift(port):
        with pytest.raises(UnavailableError):
            list(batches)
        assert read(source(database, port=port), stream()) == ROWS


def test_unloaded_rows_are_read_once_and_removed(database: str) -> None:
    """Role or keys; and also where the reader stops half-way."""
    wanted = stream(unload=UNLOAD, read_ahead=0)
    assert read(source(database), wanted) == ROWS
    assert read(source(database, iam_role=None), wanted) == ROWS
    batches: Any = source(database).read(wanted, None, batch_rows=5_000)
    next(batches)
    assert len(left()) == 3, "two slices and the manifest, while they are read"
    batches.close()
    assert left() == []


@pytest.mark.parametrize("name", some(["lose_rows", "short_manifest", "no_manifest"], 2))
def test_unloaded_rows_that_are_missing_are_noticed(database: str, fault: Any, name: str) -> None:
    fault(name)
    with pytest.raises(RowsNotConservedError, match="the server"):
        read(source(database), stream(unload=UNLOAD))
    assert left() == []


def test_an_unload_that_does_not_end_is_given_up(database: str, fault: Any) -> None:
    fault("hang")
    with pytest.raises(UnavailableError, match="in time"):
        read(source(database, statement_timeout=1), stream("small", unload=UNLOAD))


def test_an_object_store_that_breaks_off_is_an_error_and_its_objects_go_when_it_is_back(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    s3 = shared_redshift().s3
    with wire_to(s3.port, cut_after=1_000_000) as wire:
        store = {"secrets": s3.secrets, "client_options": s3.client_options | {"timeout": "2s"}}
        there = s3.options | {"endpoint": f"http://127.0.0.1:{wire.port}"}
        with pytest.raises(UnavailableError):
            read(source(database, store={**store, "options": there}), stream(unload=UNLOAD))
    if left():  # it could not be told either
        assert "objects are left in s3://" in caplog.text
    from etl_resources.unloaded import remove

    remove(f"{UNLOAD['to']}/", source(database).store.storage())
    assert left() == []


@pytest.mark.parametrize(
    ("settings", "to", "kind", "said"),
    [
        ({"iam_role": "arn:aws:iam::1:role/other"}, UNLOAD["to"], CredentialsRejectedError, "not authorized to assume"),
        ({}, "s3://no-such-bucket/x", NotFoundError, "NoSuchBucket"),
        ({"iam_role": None, "store": {}}, UNLOAD["to"], ConfigurationError, "lets Redshift write"),
    ],
)
def test_what_the_server_cannot_write_to_is_said(
    database: str, settings: dict[str, Any], to: str, kind: type[EtlError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        read(source(database, **settings), stream("small", unload={"to": to}))


def test_keys_that_a_server_cites_are_not_shown(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "etl_resources")
    monkeypatch.setenv("OTHER_KEY", "AKIAOTHER")
    monkeypatch.setenv("OTHER_SECRET", "geheim")
    s3 = shared_redshift().s3
    secrets = {"access_key_id": {"env": "OTHER_KEY"}, "aws_secret_access_key": {"env": "OTHER_SECRET"}}
    store = {"options": s3.options, "client_options": s3.client_options, "secrets": secrets}
    opened = source(database, iam_role=None, store=store)
    with pytest.raises(CredentialsRejectedError, match="InvalidAccessKeyId") as caught:
        read(opened, stream("small", unload=UNLOAD))
    shown = f"{caught.value!s} {caught.value!r} {caught.value.__cause__!r} {opened!r} {caplog.text}"
    assert not {"geheim", "AKIAOTHER"} & set(shown.replace("'", " ").split())


@pytest.mark.parametrize(
    ("state", "text", "kind"),
    [
        ("28000", 'password authentication failed for user "x"', CredentialsRejectedError),
        ("42501", "permission denied for relation x", CredentialsRejectedError),
        ("3D000", 'database "x" does not exist', NotFoundError),
        ("42P01", 'relation "x" does not exist', NotFoundError),
        ("40001", "1023 detail: Serializable isolation violation on table", UnavailableError),
        ("57014", "Query cancelled on user's request", UnavailableError),
        ("XX000", "S3ServiceException:Access Denied,Status 403,Error AccessDenied,Rid X", CredentialsRejectedError),
        ("XX000", "S3ServiceException:speed limit,Status 503,Error SlowDown,Rid X", UnavailableError),
        ("42601", "syntax error at or near", EtlError),
    ],
)
def test_errors_as_redshift_gives_them_are_told_apart(state: str, text: str, kind: type[EtlError]) -> None:
    error = reported({"C": state, "M": text}, "test")
    assert isinstance(error, kind)
    assert text in error.what
