"""MySQL that refuses, breaks off, stalls, restarts or is somebody else: nothing lost, nothing doubled, and said."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from etl_assets.bronze import Bronze
from etl_assets.run import Run
from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.lake import Lake
from etl_resources.secret import Secret
from etl_resources.source import Batch, Incremental, Snapshot, Stream
from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions
from tests.servers.mysql import MysqlServer, running_mysql, shared_mysql
from tests.servers.proxy import wire_to
from tests.soaking import some

ONCE = {"attempts": 1, "silence": 1.5, "timeout": 1.5}
LARGE = "INSERT INTO t SELECT seq, REPEAT('x', 200), seq FROM seq_1_to_30000"


@pytest.fixture(scope="module")
def server() -> MysqlServer:
    return shared_mysql()


@pytest.fixture(scope="module")
def large(server: MysqlServer) -> str:
    """A database whose table nobody changes."""
    return filled(server)


@pytest.fixture
def own(server: MysqlServer) -> str:
    """The same, for one test alone."""
    return filled(server)


def filled(server: MysqlServer) -> str:
    database = server.database()
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, filler text, n int)", LARGE)
    return database


def stream(**options: Any) -> Stream:
    return Stream("s", MysqlStreamOptions(type="mysql", **{"table": "t", **options}))


def drain(batches: Iterator[Batch], then: Any = None) -> int:
    rows = 0
    for batch in batches:
        rows += batch.data.num_rows
        if then:
            then()
            then = None
    return rows


def test_a_wire_that_is_cut_is_an_error_wherever_it_is_cut(server: MysqlServer, large: str) -> None:
    whole = [0]
    with wire_to(server.port) as wire:
        assert drain(MysqlSource(**server.settings(large, port=wire.port)).read(stream(), None)) == 30_000
        whole[0] = wire.received
    for bytes_ in (0, 10, 90, 400, 3000, 20_000, 2_000_000, whole[0] - 30):
        with wire_to(server.port, cut_after=bytes_) as wire:
            source = MysqlSource(**server.settings(large, port=wire.port, resilience=ONCE))
            with pytest.raises(UnavailableError) as caught:
                drain(source.read(stream(), None))
        assert "127.0.0.1" in caught.value.where


@pytest.mark.parametrize("bytes_", some([0, 300_000, 40], 2))
def test_a_server_that_says_nothing_more_is_given_up(server: MysqlServer, large: str, bytes_: int) -> None:
    """At the greeting, while logging in, and between rows."""
    with wire_to(server.port, stall_after=bytes_) as wire:
        source = MysqlSource(**server.settings(large, port=wire.port, resilience=ONCE))
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="timed out"):
            drain(source.read(stream(), None))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_nobody_there_is_tried_again_and_then_said(host: str) -> None:
    settings = {"host": host, "port": 1, "database": "d", "user": "u", "ssl_mode": "disabled"}
    source = MysqlSource(**settings, resilience={"attempts": 2, "first_wait": 0.01})
    with pytest.raises(UnavailableError) as caught:
        source.read_schema(stream())
    assert host in caught.value.where


def test_a_refused_connection_is_tried_again(server: MysqlServer, large: str) -> None:
    with wire_to(server.port, refuse=True) as wire:
        threading.Timer(0.3, setattr, (wire, "refuse", False)).start()
        resilience = {"attempts": 50, "first_wait": 0.05, "longest_wait": 0.1}
        source = MysqlSource(**server.settings(large, port=wire.port, resilience=resilience))
        assert drain(source.read(stream(), None)) == 30_000
        assert wire.connections > 1


@pytest.mark.parametrize("how", some(["QUERY", "CONNECTION"], 1))
def test_a_query_that_is_killed_is_an_error(server: MysqlServer, own: str, how: str) -> None:
    def kill() -> None:
        (reader,) = server.execute(None, "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT t.%'")
        server.execute(None, f"KILL {how} {reader[0]}")

    server.execute(own, LARGE.replace("SELECT seq, REPEAT('x', 200)", "SELECT seq + 100000, REPEAT('x', 1000)"))
    source = MysqlSource(**server.settings(own, resilience=ONCE))
    with pytest.raises(UnavailableError):
        drain(source.read(stream(read_ahead=0), None, batch_rows=1000), kill)


def test_a_slow_lake_is_waited_for(server: MysqlServer, own: str) -> None:
    """The server's own patience with readers and idle sessions is a second here; a reader may take longer."""
    server.execute(None, "SET GLOBAL net_write_timeout = 1", "SET GLOBAL wait_timeout = 1")
    try:
        server.execute(own, LARGE.replace("SELECT seq, REPEAT('x', 200)", "SELECT seq + 100000, REPEAT('x', 1000)"))
        source = MysqlSource(**server.settings(own))
        assert drain(source.read(stream(read_ahead=0), None, batch_rows=100), lambda: time.sleep(2)) == 60_000
    finally:
        server.execute(None, "SET GLOBAL net_write_timeout = 60", "SET GLOBAL wait_timeout = 28800")


def test_an_error_of_the_query_half_way_is_an_error(server: MysqlServer, large: str) -> None:
    query = "SELECT 9223372036854775807 + IF(id > 20000, 1, 0) AS v FROM t"
    with pytest.raises(EngineError, match="out of range"):
        drain(MysqlSource(**server.settings(large)).read(stream(table=None, query=query), None))
    hasty = MysqlSource(**server.settings(large, statement_timeout=0.05))
    with pytest.raises(UnavailableError, match="max_statement_time"):
        drain(hasty.read(stream(table=None, query="SELECT BENCHMARK(1000000000, MD5('x')) AS v"), None))


def test_what_is_not_there_or_not_allowed_is_said(server: MysqlServer, large: str, monkeypatch: Any) -> None:
    with pytest.raises(NotFoundError, match="no_such_database"):
        MysqlSource(**server.settings("no_such_database")).ping()
    monkeypatch.setenv("NARROW_PASSWORD", "pw")
    server.execute(
        large,
        "CREATE OR REPLACE USER narrow@'127.0.0.1' IDENTIFIED BY 'pw'",
        f"GRANT SELECT ON {large}.t TO narrow@'127.0.0.1'",
    )
    narrow = MysqlSource(**server.settings(large, user="narrow", password=Secret(env="NARROW_PASSWORD")))
    assert drain(narrow.read(stream(), None)) == 30_000
    with pytest.raises(CredentialsRejectedError) as caught:
        drain(narrow.read(stream(parallel={"column": "id", "parts": 2}), None))
    assert "GRANT LOCK TABLES" in caught.value.fix


def test_a_password_is_in_no_message_and_no_repr(server: MysqlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_PASSWORD", "gehéim'\\ im Wort €")
    server.execute(None, "CREATE OR REPLACE USER limited@'127.0.0.1' IDENTIFIED BY 'something else'")
    source = MysqlSource(**server.settings(user="limited", password=Secret(env="SOURCE_PASSWORD"), database="test"))
    with pytest.raises(CredentialsRejectedError) as caught:
        source.read_schema(stream())
    server.execute(
        None, "CREATE OR REPLACE USER limited@'127.0.0.1' IDENTIFIED BY 'gehéim''\\\\ im Wort €'",
        "CREATE DATABASE IF NOT EXISTS test", "GRANT SELECT ON test.* TO limited@'127.0.0.1'",
    )  # fmt: skip
    assert source.ping()
    error: BaseException | None = caught.value
    texts = [repr(source), repr(source.model_dump())]
    while error is not None:
        texts += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    assert not any("geh" in text for text in texts)


def test_encryption_is_asked_for_unless_it_is_switched_off(server: MysqlServer) -> None:
    settings = server.settings()
    del settings["ssl_mode"]
    with pytest.raises(ConfigurationError, match="SSL") as caught:
        MysqlSource(**settings).read_schema(stream())
    assert "ssl_mode" in caught.value.fix
    with pytest.raises(ValueError, match="ssl_mode"):
        MysqlSource(**{**settings, "ssl_mode": "preferred"})


def test_a_certificate_is_verified_and_a_restart_half_way_is_an_error(tmp_path: Path) -> None:
    """One server for both: with the right authority and name a connection is made, else not."""
    authority, other = trustme.CA(), trustme.CA()
    with running_mysql() as server:
        server.stop()
        server.configuration.update(_certificate(authority, server.directory))
        server.start()
        authority.cert_pem.write_to_path(str(tmp_path / "right.pem"))
        other.cert_pem.write_to_path(str(tmp_path / "wrong.pem"))
        given = server.settings(ssl_mode="verify_identity", ssl_ca=str(tmp_path / "right.pem"), resilience=ONCE)
        cipher = stream(table=None, query="SELECT VARIABLE_VALUE AS v FROM information_schema.session_status"
                        " WHERE VARIABLE_NAME = 'Ssl_cipher'")  # fmt: skip
        (batch,) = MysqlSource(**given).read(cipher, None)
        assert batch.data.column("v")[0].as_py() != ""
        for wrong in (
            {"ssl_ca": str(tmp_path / "wrong.pem")}, {"ssl_ca": str(tmp_path / "none.pem")}, {"ssl_ca": None},
            {"host": "localhost"},
        ):  # fmt: skip
            with pytest.raises(ConfigurationError, match="certificate"):
                MysqlSource(**{**given, **wrong}).ping()
        assert MysqlSource(**{**given, "host": "localhost", "ssl_mode": "verify_ca"}).ping()
        assert MysqlSource(**{**given, "ssl_ca": None, "ssl_mode": "required"}).ping()

        database = server.database()
        server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, filler text, n int)", LARGE)
        plain = MysqlSource(**server.settings(database, resilience=ONCE))

        def restart() -> None:
            server.stop()
            server.start()

        with pytest.raises(UnavailableError):
            drain(plain.read(stream(read_ahead=0), None, batch_rows=1000), restart)
        assert drain(plain.read(stream(), None)) == 30_000


def _certificate(authority: trustme.CA, folder: Path) -> dict[str, str]:
    """Write a certificate for 127.0.0.1 where the server's user can read it; return the server's settings."""
    certificate = authority.issue_cert("127.0.0.1")
    owner = (folder / "data").stat()
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    for file in (folder / "cert.pem", folder / "key.pem"):
        os.chown(file, owner.st_uid, owner.st_gid)
    return {"ssl-cert": str(folder / "cert.pem"), "ssl-key": str(folder / "key.pem")}


@pytest.mark.parametrize("capture", some([Incremental(cursor="id"), Snapshot()], 1))
def test_two_runs_with_a_failure_between_land_the_truth(
    server: MysqlServer, own: str, tmp_path: Path, capture: Any
) -> None:
    """The wire breaks in the first run; a row comes in between; the second run lands every row, once."""
    lake = Lake(uri=str(tmp_path / "lake"))
    with wire_to(server.port, cut_after=2_000_000) as wire:
        source = MysqlSource(**server.settings(own, port=wire.port, resilience=ONCE))
        bronze = Bronze(lake, "test", Stream("t", MysqlStreamOptions(type="mysql", table="t"), capture))
        with pytest.raises(UnavailableError):
            bronze.land(source, Run("first"))
        assert _landed(bronze) == []
        wire.cut_after = None
        server.execute(own, "INSERT INTO t VALUES (30001, 'late', 1)")
        assert bronze.land(source, Run("second")).account.inserted == 30_001
        assert _landed(bronze) == list(range(1, 30_002))
        if isinstance(capture, Incremental):
            server.execute(own, "INSERT INTO t VALUES (30002, 'later', 1)")
            assert bronze.land(source, Run("third")).account.inserted == 1
            assert bronze.land(source, Run("fourth")).account.read == 0
            assert _landed(bronze) == list(range(1, 30_003))


def _landed(bronze: Bronze) -> list[int]:
    handle = bronze.table.open()
    return [] if handle is None else sorted(handle.delta.to_pyarrow_table(columns=["id"])["id"].to_pylist())


def test_a_reader_that_stops_early_leaves_no_thread_and_no_connection(server: MysqlServer, large: str) -> None:
    def connections() -> int:
        return len(server.execute(None, f"SELECT 1 FROM information_schema.processlist WHERE db = '{large}'"))

    for options in ({}, {"parallel": {"column": "id", "parts": 3}}):
        batches: Any = MysqlSource(**server.settings(large)).read(stream(**options), None, batch_rows=500)
        next(batches)
        batches.close()
        assert [t for t in threading.enumerate() if t.name == "etl-read-ahead"] == []
        deadline = time.monotonic() + 5
        while connections() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert connections() == 0
