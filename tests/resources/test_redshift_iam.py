"""Logging in to Redshift with what AWS hands out: the whole way, and what goes wrong on it."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import ValidationError

from etl_assets.components.connections import Connections
from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.redshift_login import Login
from etl_resources.source import Stream
from etl_resources.sources.redshift import RedshiftSource, RedshiftStreamOptions
from tests.servers.proxy import free_port, wire_to
from tests.servers.redshift import shared_redshift
from tests.servers.redshift_logins import CLUSTER, SERVERLESS, WITH_IAM, WORKGROUP, Logins, client, running_logins
from tests.servers.s3 import shared_s3

ONCE = {"attempts": 1, "timeout": 5, "silence": 10, "first_wait": 0.01, "longest_wait": 0.05}
WAYS: list[tuple[str | None, dict[str, Any], str]] = [
    ("etl", {"cluster": CLUSTER}, "GetClusterCredentials"),
    (None, {"cluster": CLUSTER}, WITH_IAM),
    (None, {"workgroup": WORKGROUP}, SERVERLESS),
]


@pytest.fixture(scope="module")
def running() -> Iterator[Logins]:
    with running_logins(shared_redshift()) as logins:
        yield logins


@pytest.fixture
def logins(running: Logins) -> Logins:
    running.forget()
    return running


@functools.cache
def _database() -> str:
    return shared_redshift().database()


def source(logins: Logins, user: str | None = "etl", **settings: Any) -> RedshiftSource:
    """Return a source; `iam` are settings other than those that it needs."""
    iam = logins.settings(**(settings.pop("iam", None) or {"cluster": CLUSTER}))
    given = shared_redshift().settings(_database(), **{"resilience": ONCE, **settings})
    return RedshiftSource(**given | {"user": user, "password": None, "iam": iam})


@pytest.mark.parametrize(("user", "iam", "operation"), WAYS, ids=["cluster", "cluster_by_iam", "workgroup"])
def test_rows_are_read_with_a_login_that_aws_has_handed_out(
    logins: Logins, user: str | None, iam: dict[str, Any], operation: str
) -> None:
    opened = source(logins, user, iam=iam)
    wanted = Stream("s", RedshiftStreamOptions(query="SELECT generate_series(1, 10) AS id"))
    assert sum(batch.data.num_rows for batch in opened.read(wanted, None)) == 10
    [(asked, parameters)] = logins.asked
    assert asked == operation
    assert parameters.items() >= {("dbName" if operation == SERVERLESS else "DbName"): _database()}.items()
    assert parameters.get("DbUser") == user


def test_groups_and_a_user_to_be_made_are_asked_for(logins: Logins) -> None:
    with source(logins, iam={"cluster": CLUSTER, "groups": ["loaders"], "create_user": True}).session():
        pass
    [(_, asked)] = logins.asked
    assert asked["AutoCreate"] == "true"
    assert [value for name, value in asked.items() if name.startswith("DbGroups")] == ["loaders"]


def test_every_session_asks_anew_so_that_no_login_is_used_when_it_has_expired(logins: Logins) -> None:
    opened = source(logins)
    assert opened.ping()
    assert opened.ping()
    assert len(set(logins.passwords)) == 2
    logins.lifetime = -1
    with pytest.raises(CredentialsRejectedError, match="whether `host` is what `iam` names"):
        opened.ping()


def test_a_role_is_assumed_and_its_keys_ask(logins: Logins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(
        f"[profile etl]\nregion = us-east-1\nrole_arn = arn:aws:iam::123456789012:role/etl\nsource_profile = own\n"
        f"[profile own]\naws_access_key_id = own\naws_secret_access_key = secret\n"
        f"services = here\n[services here]\nsts =\n  endpoint_url = {shared_s3().options['endpoint']}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", shared_s3().options["endpoint"])
    keyless = {"access_key_id": None, "secret_access_key": None}
    assert source(logins, iam={"cluster": CLUSTER, "profile": "etl", **keyless}).ping()
    assert logins.keys[0].startswith("ASIA")
    with pytest.raises(ConfigurationError, match="other"):
        source(logins, iam={"cluster": CLUSTER, "profile": "other", **keyless}).ping()


def test_keys_come_from_the_environment_when_none_are_declared(
    logins: Logins, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (("CONFIG_FILE", tmp_path / "none"), ("SHARED_CREDENTIALS_FILE", tmp_path / "none"),
                        ("EC2_METADATA_DISABLED", "true")):  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", str(value))
    opened = source(logins, None, iam={"workgroup": WORKGROUP, "access_key_id": None, "secret_access_key": None})
    with pytest.raises(CredentialsRejectedError, match="locate credentials"):
        opened.ping()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert opened.ping()
    assert logins.keys == ["key"]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(CredentialsRejectedError):
        opened.ping()


@pytest.mark.parametrize(
    ("way", "fault", "kind", "said"),
    [
        (1, (403, "AccessDenied"), CredentialsRejectedError, "they need redshift:GetClusterCredentialsWithIAM"),
        (2, (400, "AccessDeniedException"), CredentialsRejectedError, "they need redshift-serverless:GetCredentials"),
        (1, (403, "ExpiredToken"), CredentialsRejectedError, "have they expired"),
        (2, (400, "ExpiredTokenException"), CredentialsRejectedError, "have they expired"),
        (1, (400, "Throttling"), UnavailableError, "Throttling"),
        (2, (400, "ThrottlingException"), UnavailableError, "Throttling"),
        (1, (503, "ServiceUnavailable"), UnavailableError, "ServiceUnavailable"),
        (2, (400, "ValidationException"), EngineError, "ValidationException"),
        (1, (200, "cut"), UnavailableError, "check `(region|endpoint)`"),
        (2, (200, "cut"), UnavailableError, "check `(region|endpoint)`"),
        (1, (200, "mangled"), UnavailableError, "cannot be read"),
        (2, (200, "mangled"), UnavailableError, "no user and password"),
        (1, (200, "empty"), UnavailableError, "no user and password"),
        (2, (200, "empty"), UnavailableError, "no user and password"),
    ],
)
def test_what_aws_says_is_told_apart(
    logins: Logins, way: int, fault: tuple[int, str], kind: type[EtlError], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    user, iam, _ = WAYS[way]
    caplog.set_level(logging.DEBUG)
    logins.faults = [fault]
    with pytest.raises(kind, match=said) as caught:
        source(logins, user, iam=iam).ping()
    assert f"Redshift {'cluster' if 'cluster' in iam else 'workgroup'}" in caught.value.where
    for password in logins.passwords:
        assert password[:10] not in f"{caught.value!s} {caught.value!r} {caplog.text}"


def test_throttling_is_waited_out(logins: Logins) -> None:
    logins.faults = [(400, "Throttling"), (400, "ThrottlingException")]
    assert source(logins, resilience=ONCE | {"attempts": 3}).ping()
    assert len(logins.asked) == 3


@pytest.mark.parametrize(
    ("user", "iam"), [("etl", {"cluster": "none"}), (None, {"cluster": "none"}), (None, {"workgroup": "none"})]
)
def test_a_cluster_or_workgroup_that_is_not_there_is_said(
    logins: Logins, user: str | None, iam: dict[str, Any]
) -> None:
    with pytest.raises(NotFoundError, match="check `cluster` or `workgroup`"):
        source(logins, user, iam=iam).ping()
    assert len(logins.asked) == 1, "not tried again"


def test_who_may_not_ask_is_told_what_is_needed(logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    """As moto checks keys and their policies."""
    iam = client("iam")
    iam.create_user(UserName="nobody")
    made = iam.create_access_key(UserName="nobody")["AccessKey"]
    monkeypatch.setenv("NOBODY_KEY", made["AccessKeyId"])
    monkeypatch.setenv("NOBODY_SECRET", made["SecretAccessKey"])
    keys = {"access_key_id": {"env": "NOBODY_KEY"}, "secret_access_key": {"env": "NOBODY_SECRET"}}
    before = _actions_without_a_check(0)
    try:
        with pytest.raises(CredentialsRejectedError, match="AccessDenied") as caught:
            source(logins, iam={"cluster": CLUSTER, **keys}).ping()
        with pytest.raises(CredentialsRejectedError, match="InvalidClientTokenId"):
            source(logins).ping()
    finally:
        _actions_without_a_check(before)
    assert "they need redshift:GetClusterCredentials" in caught.value.fix
    assert made["SecretAccessKey"] not in f"{caught.value!s} {caught.value!r}"


def _actions_without_a_check(count: float) -> float:
    """Let moto take so many requests from now on without a look at their keys; return how many it took before."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", shared_s3().port, timeout=20)
    connection.request("POST", "/moto-api/reset-auth", str(count))
    before = float(json.loads(connection.getresponse().read())["PREVIOUS_INITIAL_NO_AUTH_ACTION_COUNT"])
    connection.close()
    return before


def test_an_aws_that_does_not_answer_is_said(logins: Logins) -> None:
    with pytest.raises(UnavailableError, match="check `region`, `endpoint`"):
        source(logins, iam={"cluster": CLUSTER, "endpoint": f"http://127.0.0.1:{free_port()}"}).ping()
    with pytest.raises(UnavailableError, match=r"no-such-host\.invalid"):
        source(logins, iam={"cluster": CLUSTER, "endpoint": "http://no-such-host.invalid"}).ping()
    logins.faults = [(503, "ServiceUnavailable")]  # nothing is handed out, perhaps late, that other tests would count
    with wire_to(logins.port, stall_after=0) as wire:
        there = {"cluster": CLUSTER, "endpoint": f"http://127.0.0.1:{wire.port}"}
        with pytest.raises(UnavailableError, match="timeout"):
            source(logins, iam=there, resilience=ONCE | {"silence": 0.3}).ping()
    with wire_to(logins.port, refuse=True) as wire:
        opened = source(logins, iam={"cluster": CLUSTER, "endpoint": f"http://127.0.0.1:{wire.port}"})
        with pytest.raises(UnavailableError):
            opened.ping()
        assert wire.connections == 1, "tried again by the policy only"


def test_the_certificate_of_aws_is_checked(logins: Logins, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    with running_logins(shared_redshift(), tmp_path / "server.pem") as encrypted:
        with pytest.raises(ConfigurationError, match="give `ca_file`"):
            source(encrypted).ping()
        assert encrypted.asked == []
        assert source(encrypted, iam={"cluster": CLUSTER, "ca_file": str(tmp_path / "ca.pem")}).ping()


def test_no_secret_is_shown(logins: Logins, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the password that was handed out nor the keys, in logs of every level, in reprs and in errors."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("A_SECRET", "hunter2-secret")
    monkeypatch.setenv("A_TOKEN", "hunter2-token")
    keys = {"secret_access_key": {"env": "A_SECRET"}, "session_token": {"env": "A_TOKEN"}}
    opened = source(logins, iam={"cluster": CLUSTER, **keys})
    with opened.session() as session:
        shown = f"{session!r} {session._connection!r}"
    logins.lifetime = -1
    with pytest.raises(CredentialsRejectedError) as caught:
        opened.ping()
    assert len(logins.passwords) == 2
    shown += f"{opened!r} {caught.value!s} {caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert not [secret for secret in (*logins.passwords, "hunter2") if secret in shown]
    assert "geheim" not in repr(Login("etl", "geheim"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"user": "etl"}, "give one of `password` and `iam`"),
        ({"user": "etl", "password": {"env": "X"}, "iam": {"region": "r", "cluster": "c"}}, "give one of `password`"),
        ({"password": {"env": "X"}}, "give the `user` whose `password` it is"),
        ({"iam": {"cluster": "c"}}, r"warehouse\.iam\.region: "),
        ({"iam": {"region": "r"}}, "give one of `cluster` and `workgroup`"),
        ({"iam": {"region": "r", "cluster": "c", "workgroup": "w"}}, "give one of `cluster` and `workgroup`"),
        ({"iam": {"region": "r", "clustr": "c"}}, r"warehouse\.iam\.clustr: unknown key"),
        ({"iam": {"region": "r", "cluster": "c", "secret_access_key": "s3cr3t"}}, "a secret is never written down"),
        ({"user": "etl", "iam": {"region": "r", "workgroup": "w"}}, "leave `user` out"),
        ({"iam": {"region": "r", "cluster": "c", "groups": ["g"]}}, "need a `cluster` and a `user`"),
        ({"iam": {"region": "r", "workgroup": "w", "create_user": True}}, "need a `cluster` and a `user`"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given: dict[str, Any], said: str) -> None:
    written = {"type": "redshift", "host": "h", "database": "d", **given}
    with pytest.raises(ConfigurationError, match=said) as caught:
        Connections(connections={"warehouse": written}).resources(where="test")
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(ValidationError):
        RedshiftSource(**{name: value for name, value in written.items() if name != "type"})
