"""Peeking: nothing is consumed, transactions stay whole, memory does not grow with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from etl_resources.change_log import LogTable
from etl_resources.changes import postgres_slot
from etl_resources.changes.postgres_peek import peek
from etl_resources.changes.postgres_settings import PostgresLogCapture
from etl_resources.exceptions import EtlError
from etl_resources.postgres_session import Session
from etl_resources.source import Stream
from etl_resources.sources.postgres import PostgresStreamOptions
from tests.resources.pgoutput_log import PUBLICATION, SLOT, Log, follow
from tests.servers.postgres import PostgresServer

SCRIPT = Path(__file__).parent / "postgres_peeking.py"


@pytest.fixture
def log(postgres_server: PostgresServer, postgres_database: str) -> Iterator[Log]:
    with follow(postgres_server, postgres_database) as found:
        yield found


def tags(log: Log, **limits: Any) -> str:
    return b"".join(message[:1] for message in log.messages(**limits).to_pylist()).decode()


def test_a_peek_consumes_nothing_and_comes_whole_transactions_far(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)")
    ((middle,),) = log.rows("SELECT pg_current_wal_lsn()::text")
    log.sql("INSERT INTO t VALUES (4)", "INSERT INTO t VALUES (5)")
    assert tags(log) == tags(log) == "BRIIICBICBIC"
    assert tags(log, upto_nchanges=1) == "BRIIIC"
    assert tags(log, upto_nchanges=7) == "BRIIICBIC"
    assert tags(log, upto_lsn=middle) == "BRIIIC"
    assert tags(log, upto_lsn="0/1") == ""
    log.sql(f"SELECT pg_replication_slot_advance('{SLOT}', '{middle}')")
    assert tags(log) == "BRICBIC"


def test_pieces_are_as_small_as_asked_for(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 1000)")
    with log.source.session() as session:
        pieces = [piece.to_pylist() for piece in peek(session, SLOT, PUBLICATION, batch_rows=64)]
    assert {len(piece) for piece in pieces[:-1]} == {64}
    assert [message for piece in pieces for message in piece] == log.messages().to_pylist()


@pytest.mark.parametrize(("slot", "publication"), [("no 'slot\\", PUBLICATION), (SLOT, "no 'publi,cation\\")])
def test_what_is_not_there_is_named(log: Log, slot: str, publication: str) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    name = slot if slot != SLOT else publication
    with log.source.session() as session, pytest.raises(EtlError) as raised:
        list(peek(session, slot, publication))
    assert f'"{name}" does not exist' in raised.value.what


def test_a_peek_that_is_left_early_leaves_the_session_usable(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 50000)")
    with log.source.session() as session:
        messages = peek(session, SLOT, PUBLICATION, batch_bytes=1 << 12)
        next(messages)
        messages.close()
        assert session.value("SELECT 1") == 1


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rows", [60_000, 1_000_000])
def test_a_large_transaction_needs_no_more_memory_than_a_small_one(log: Log, rows: int) -> None:
    """50 MB at the most; a test of the test holds on to what it gets, and needs more."""
    log.sql("CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(12, 2), at timestamptz)")
    values = "SELECT n, md5(n::text) || md5(n::text), n / 7.0, now() FROM generate_series({}, {}) n"
    log.sql(f"INSERT INTO t {values.format(1, 20_000)}", f"INSERT INTO t {values.format(20_001, 20_000 + rows)}")
    address = log.server.dsn(log.database)

    def measured(*keep: str) -> Any:
        done = subprocess.run(
            [sys.executable, SCRIPT, address, SLOT, PUBLICATION, *keep], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    told = measured()
    assert told["events"] == rows + 20_000
    assert told["megabytes"] <= 50
    if rows > 100_000:
        assert measured("keep")["megabytes"] > 100


class Asked:
    """A session that takes note of what it is asked."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def rows(self, query: str) -> list[Any]:
        return []

    @contextmanager
    def stream(self, query: str, *, batch_bytes: int) -> Iterator[Iterator[Any]]:
        self.statements.append(query)
        yield iter(())


@pytest.mark.parametrize(("server", "messages"), [(130014, False), (140000, True), (150004, True), (180000, True)])
def test_messages_are_asked_for_where_the_server_knows_them(server: int, messages: bool) -> None:
    """PostgreSQL 13 refuses the option; it gives a transaction that is empty without its message, later ones do not."""
    session = Asked()
    list(peek(cast(Session, session), SLOT, PUBLICATION, server=server))
    (statement,) = session.statements
    options = "'proto_version', '1', 'publication_names', '\"every \"\"table\"'"
    more = ", 'messages', 'true'" if messages else ""
    assert statement.endswith(f"NULL, NULL, {options}{more})")


def test_a_read_says_which_server_it_peeks_at(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server of version 13 is asked, here by one that only claims to be of it."""
    asked: list[str] = []
    stream = Session.stream

    def noted(self: Session, query: str, *, batch_bytes: int) -> Any:
        asked.append(query)
        return stream(self, query, batch_bytes=batch_bytes)

    monkeypatch.setattr(Session, "stream", noted)
    status = postgres_slot.status
    monkeypatch.setattr(postgres_slot, "status", lambda *given: replace(status(*given), version=130000))
    log.sql("CREATE TABLE t (id int PRIMARY KEY)")
    settings = PostgresLogCapture(slot="claims_13", heartbeat=False, mode="continuous", lasts=0.01)
    table = LogTable(Stream("t", PostgresStreamOptions(type="postgres", table="t"), settings), ("id",))
    changes = log.source.change_log("shop", [table], settings)
    try:
        with closing(changes.read({"t": None})) as items:
            next(items)
    finally:
        changes.remove()
    assert [("pg_logical_slot_peek" in query, "messages" in query) for query in asked] == [(True, False)]
