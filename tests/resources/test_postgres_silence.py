"""A PostgreSQL server that says nothing any more: read from and loaded into, it is gone, and nobody waits for ever."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from etl_resources.exceptions import UnavailableError
from etl_resources.postgres import PostgresConnection
from etl_resources.resilience import Policy
from etl_resources.source import Stream
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from tests.resources.test_postgres_log_faults import limit
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import wire_to

ONCE = Policy(attempts=1, timeout=2.0, silence=0.5)
ROWS = 30_000


@pytest.fixture
def database(postgres_server: PostgresServer, postgres_database: str) -> str:
    with postgres_server.connect(postgres_database) as client:
        client.execute(f"CREATE TABLE t AS SELECT n AS id, md5(n::text) AS v FROM generate_series(1, {ROWS}) n")
    return postgres_database


def through(server: PostgresServer, database: str, port: int) -> dict[str, Any]:
    return server.settings(database, port=port, resilience=ONCE)


@pytest.mark.parametrize("bytes_", [0, 400, 3_000, 600_000])
def test_a_source_that_falls_silent_anywhere(postgres_server: PostgresServer, database: str, bytes_: int) -> None:
    stream = Stream("t", PostgresStreamOptions(type="postgres", table="t"))
    with (
        wire_to(postgres_server.port, stall_after=bytes_) as wire,
        limit(25),
        pytest.raises(UnavailableError) as caught,
    ):
        list(PostgresSource(**through(postgres_server, database, wire.port)).read(stream, None, batch_rows=1000))
    assert str(wire.port) in caught.value.where


@pytest.mark.parametrize("when", ["before the rows", "after the rows"])
def test_a_load_into_a_server_that_falls_silent(postgres_server: PostgresServer, database: str, when: str) -> None:
    rows = pa.record_batch({"id": pa.array(range(ROWS), pa.int32()), "v": pa.array(["x" * 100] * ROWS)})
    with wire_to(postgres_server.port) as wire, limit(25):
        connection = PostgresConnection(**through(postgres_server, database, wire.port))
        with pytest.raises(UnavailableError, match=r"no answer for 0\.5 s"), connection.session() as session:  # noqa: PT012
            session.execute("BEGIN")
            if when == "after the rows":
                assert session.copy("public", "t", rows) == ROWS
            wire.stall_after = wire.received
            session.copy("public", "t", rows)
    with postgres_server.connect(database) as client:
        assert client.execute("SELECT count(*) FROM t").fetchone() == (ROWS,)


def test_a_statement_that_takes_long_is_waited_for(postgres_server: PostgresServer, database: str) -> None:
    connection = PostgresConnection(**postgres_server.settings(database, resilience=ONCE))
    with limit(20), connection.session() as session:
        assert session.rows("SELECT pg_sleep(1.3)::text, 7")[0][1] == 7


def test_a_server_that_has_no_connection_to_spare_is_not_gone(postgres_server: PostgresServer, database: str) -> None:
    with postgres_server.connect(database) as client:
        client.execute("CREATE ROLE alone LOGIN CONNECTION LIMIT 1")
        try:
            # The driver connects twice, and the server may not have seen the end of the first connection yet.
            patient = Policy(attempts=20, first_wait=0.05, longest_wait=0.1, silence=0.5)
            settings = postgres_server.settings(database, resilience=patient, user="alone")
            with limit(20), PostgresConnection(**settings).session() as session:
                assert session.rows("SELECT pg_sleep(1.3)::text, 7")[0][1] == 7
        finally:
            client.execute("DROP ROLE alone")
