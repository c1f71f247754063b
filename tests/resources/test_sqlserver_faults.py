"""SQL Server when something is in the way: nothing is lost or doubled, and the message says what to do."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import mssql_python
import pyarrow as pa
import pytest

from etl_assets.bronze import Bronze
from etl_resources import lifeline
from etl_resources.exceptions import ConfigurationError, CredentialsRejectedError, NotFoundError, UnavailableError
from etl_resources.lake import Lake
from etl_resources.source import Incremental, Snapshot, Stream
from etl_resources.sources.sqlserver import SqlServerSource, SqlServerStreamOptions
from tests.assets.doubles import new_run
from tests.conformance.cases import many_rows
from tests.forks import Forks, forking
from tests.servers.proxy import free_port, wire_to
from tests.servers.tds import PASSWORD, VARIABLE, TdsServer, running_tds, shared_tds
from tests.servers.tds_certificate import write_certificate
from tests.soaking import some

__all__ = ["forking"]

ROWS = 30_000
ONCE = {"attempts": 1, "timeout": 3}
SHORT = {"attempts": 1, "timeout": 3, "silence": 0.6}


@pytest.fixture(scope="module")
def server() -> TdsServer:
    server = shared_tds()
    fill(server)
    return server


def fill(server: TdsServer, table: str = "faults", rows: int = ROWS) -> None:
    server.execute(
        f"CREATE TABLE dbo.{table} (id bigint, name nvarchar(60), amount float, note nvarchar(60), rv rowversion)"
    )
    server.load(f"dbo.{table}", many_rows(rows))


def stream(**options: Any) -> Stream:
    return Stream("faults", SqlServerStreamOptions(type="sqlserver", table="faults", **options), Snapshot())


def drain(source: SqlServerSource, **options: Any) -> int:
    return sum(b.data.num_rows for b in source.read(stream(**options), None, batch_rows=1000))


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_nobody_there_is_tried_again_and_then_said(server: TdsServer, host: str) -> None:
    resilience = {"attempts": 2, "first_wait": 0.01, "timeout": 1}
    source = SqlServerSource(**server.settings(host=host, port=free_port(), resilience=resilience))
    started = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        source.read_schema(stream())
    assert time.monotonic() - started >= 2, "both attempts wait as long as they may"
    assert host in caught.value.where


def test_a_connection_that_is_refused_once_is_made_at_the_second_attempt(server: TdsServer) -> None:
    with wire_to(server.port, refuse=True) as wire:
        threading.Timer(0.5, lambda: setattr(wire, "refuse", False)).start()
        settings = server.settings(port=wire.port, resilience={"attempts": 4, "first_wait": 0.3, "timeout": 2})
        assert drain(SqlServerSource(**settings)) == ROWS


@pytest.mark.parametrize("options", some([{"parallel": 3, "split_by": "id"}, {}], 1))
def test_a_wire_that_is_cut_is_an_error_wherever_it_is_cut(server: TdsServer, options: dict[str, Any]) -> None:
    with wire_to(server.port) as whole:
        assert drain(SqlServerSource(**server.settings(port=whole.port)), **options) == ROWS
    for share in (0, 0.001, 0.9) if options else (0, 0.001, 0.3, 0.9, 0.999, 0.9999):
        with wire_to(server.port, cut_after=int(whole.received * share)) as wire:
            source = SqlServerSource(**server.settings(port=wire.port, resilience=ONCE))
            with pytest.raises(UnavailableError):
                drain(source, **options)


def test_a_result_that_the_driver_takes_for_complete_is_not_believed(
    server: TdsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Microsoft's driver ends a result, now and then, where the connection was reset; the server's count tells."""
    fetch, calls = mssql_python.Cursor.arrow_batch, iter(range(100))
    monkeypatch.setattr(
        mssql_python.Cursor, "arrow_batch", lambda self, size: fetch(self, size if next(calls) < 4 else 0)
    )
    with pytest.raises(UnavailableError, match="broke off after"):
        drain(SqlServerSource(**server.settings()))


def test_a_catalogue_that_comes_short_is_not_believed(server: TdsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a column would be missing in the lake, and nobody would know."""
    fetch = mssql_python.Cursor.fetchall
    monkeypatch.setattr(
        mssql_python.Cursor, "fetchall", lambda self: rows[:3] if len(rows := fetch(self)) > 3 else rows
    )
    with pytest.raises(UnavailableError, match="broke off after 3 rows"):
        SqlServerSource(**server.settings()).read_schema(stream())


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_a_server_that_falls_silent_is_hung_up_on(server: TdsServer, share: float) -> None:
    """The driver itself would wait for ever, also for the answer to a cancellation."""
    with wire_to(server.port, stall_after=int(4_000_000 * share)) as wire:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=r"no answer for 0\.6 seconds"):
            drain(SqlServerSource(**server.settings(port=wire.port, resilience=SHORT)))
        assert time.monotonic() - started < 10
    assert not [t for t in threading.enumerate() if t.name.startswith("etl-")]


def test_a_slow_server_is_not_a_silent_one(server: TdsServer) -> None:
    """A batch may take longer than the silence as long as bytes keep coming."""
    with wire_to(server.port, bytes_per_second=3_000_000) as wire:
        started = time.monotonic()
        assert drain(SqlServerSource(**server.settings(port=wire.port, resilience=SHORT))) == ROWS
        assert time.monotonic() - started > 1.2


def test_without_the_lifeline_that_read_would_hang(server: TdsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test above: only hanging up ends the call."""
    monkeypatch.setattr(lifeline.Lifeline, "_watch", lambda *_: None)
    with wire_to(server.port, stall_after=1_000_000) as wire:
        source = SqlServerSource(**server.settings(port=wire.port, resilience=SHORT))
        errors: list[BaseException] = []

        def read() -> None:
            try:
                drain(source)
            except UnavailableError as error:
                errors.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        thread.join(1.5)
        assert thread.is_alive()
        wire.break_now()
        thread.join(10)
        assert errors


def test_a_password_is_in_no_message_and_no_repr(server: TdsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    right = SqlServerSource(**server.settings())
    assert right.ping()
    for wrong in ("geheim;Server=elsewhere", "geheim}x", "geheim" * 30):
        monkeypatch.setenv("WRONG_PASSWORD", wrong)
        source = SqlServerSource(**server.settings(password={"env": "WRONG_PASSWORD"}))
        expected = CredentialsRejectedError if len(wrong) < 128 else ConfigurationError
        with pytest.raises(expected) as caught:
            source.read_schema(stream())
        error: BaseException | None = caught.value
        texts = [repr(source), repr(source.model_dump()), repr(right)]
        while error is not None:
            texts += [str(error), repr(error)]
            error = error.__cause__ or error.__context__
        assert not any("geheim" in text or PASSWORD in text for text in texts)


def test_a_password_is_asked_once_only(server: TdsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying again with a wrong password locks the account."""
    monkeypatch.setenv("WRONG_PASSWORD", "wrong")
    with wire_to(server.port) as wire:
        source = SqlServerSource(**server.settings(port=wire.port, password={"env": "WRONG_PASSWORD"}))
        with pytest.raises(CredentialsRejectedError):
            source.ping()
        assert wire.connections == 1


def test_a_database_that_is_not_there_is_named(server: TdsServer) -> None:
    with pytest.raises(NotFoundError, match="no_such_database"):
        SqlServerSource(**server.settings(database="no_such_database")).ping()


def test_encryption_is_asked_for_unless_it_is_switched_off(server: TdsServer) -> None:
    settings = server.settings(resilience=ONCE)
    del settings["encrypt"]
    with pytest.raises(ConfigurationError, match="Encryption not supported") as caught:
        SqlServerSource(**settings).ping()
    assert "encrypt" in caught.value.fix
    with pytest.raises(ValueError, match="encrypt"):
        SqlServerSource(**{**settings, "encrypt": "optional"})


def verified(given: list[dict[str, Any]]) -> list[str]:
    """Connect with each of the settings, in a process of its own, and return what is said."""
    said = []
    for settings in given:
        try:
            said.append(str(SqlServerSource(**settings).ping()))
        except ConfigurationError as error:
            said.append(f"{type(error).__name__} {error.what}")
    return said


def test_a_certificate_is_verified(tmp_path: Path, forks: Forks) -> None:
    """With the right authority a connection is made; with another one, or another name, it is not."""
    own, _ = write_certificate(tmp_path, "own"), write_certificate(tmp_path, "other")
    with running_tds(certificate=own) as server:
        settings = server.settings(encrypt="yes", resilience=ONCE, password={"env": VARIABLE})
        with pytest.raises(ConfigurationError, match="certificate") as caught:
            SqlServerSource(**settings).ping()
        assert "trust_server_certificate" in caught.value.fix
        assert SqlServerSource(**settings, trust_server_certificate=True).ping()

        def connect(authority: str, *more: dict[str, str]) -> list[str]:
            # The driver reads the list of authorities once per process.
            env = {"SSL_CERT_FILE": str(tmp_path / authority), VARIABLE: PASSWORD}
            said = forks.start(verified, env=env, given=[{**settings, **each} for each in more]).result()
            assert isinstance(said, list)
            return said

        name = "hostname_in_certificate"
        by_name, named, not_named, other_name = connect(
            "own.crt", {"host": "localhost"}, {name: "localhost"}, {}, {name: "db.example.org"}
        )
        assert (by_name, named) == ("True", "True")
        assert "does not match host name" in not_named
        assert "does not match host name" in other_name
        (other,) = connect("other.crt", {"host": "localhost"})
        assert "ConfigurationError" in other


def test_two_landings_with_an_outage_between_have_every_row_once(server: TdsServer, tmp_path: Path) -> None:
    """The connection breaks in the middle of the first run; the server is away; the next runs bring the rest."""
    rows = 9_000
    fill(server, "landed", rows)
    with wire_to(server.port, cut_after=450_000) as wire:
        settings = server.settings(port=wire.port, resilience={"attempts": 2, "timeout": 1, "first_wait": 0.05})
        options = SqlServerStreamOptions(type="sqlserver", table="landed", columns=["id", "note"])
        bronze = Bronze(Lake(uri=str(tmp_path)), "test", Stream("landed", options, Incremental(cursor="rv")))
        with pytest.raises(UnavailableError):
            bronze.land(SqlServerSource(**settings), new_run())
        assert bronze.position() is None, "nothing was committed"
        wire.refuse = True
        with pytest.raises(UnavailableError):
            bronze.land(SqlServerSource(**settings), new_run())
        wire.refuse = False
        wire.cut_after = None
        assert bronze.land(SqlServerSource(**settings), new_run()).account.inserted == rows
        server.load("dbo.landed", many_rows(500, first=rows))
        assert bronze.land(SqlServerSource(**settings), new_run()).account.inserted == 500
        assert bronze.land(SqlServerSource(**settings), new_run()).account.inserted == 0
        handle = bronze.table.open()
        assert handle is not None
        landed = handle.delta.to_pyarrow_table(columns=["id"]).column("id")
        assert Counter(landed.to_pylist()) == Counter(range(rows + 500))


def test_rows_that_are_recognised_stand_in_the_account(tmp_path: Path) -> None:
    server = shared_tds()
    server.execute("CREATE TABLE dbo.recognised (id int, step int)")
    server.load("dbo.recognised", pa.table({"id": [1, 2, 3], "step": [1, 2, 3]}))
    options = SqlServerStreamOptions(type="sqlserver", table="recognised", late_by=1)
    bronze = Bronze(Lake(uri=str(tmp_path)), "test", Stream("recognised", options, Incremental(cursor="step")))
    source = SqlServerSource(**server.settings())
    bronze.land(source, new_run())
    server.load("dbo.recognised", pa.table({"id": [4], "step": [2]}))
    account = bronze.land(source, new_run()).account
    assert (account.read, account.inserted, dict(account.filtered)) == (3, 1, {"delivered_before": 2})
