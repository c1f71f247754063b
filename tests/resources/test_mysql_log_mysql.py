"""The binlog of a real MySQL, where there is one: `ETL_TEST_MYSQL_PORT` is its port on this machine.

It has root without a password, gtid_mode=ON, binlog_row_metadata=FULL, and may be written to; the other tests are about
MariaDB. Tried with MySQL 9.7.4.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pymysql
import pytest

from etl_resources.exceptions import ConfigurationError, LogLostError
from etl_resources.sources.mysql import MysqlSource
from tests.resources.mysql_log_landing import Lake, log_of, rows_of
from tests.resources.test_mysql_log_fuzz import fuzz
from tests.resources.test_mysql_log_types import VALUES, check_all_types

PORT = os.environ.get("ETL_TEST_MYSQL_PORT")
pytestmark = pytest.mark.skipif(PORT is None, reason="ETL_TEST_MYSQL_PORT names no MySQL server")
JSON = [
    """'{"b": 1, "a": [1.10, 1e20, 1.5e-7, true, null, "x ü", 123456789012, -5, 70000, 18446744073709551615, {}]}'""",
    "'[]'", "'null'", "'\"text\"'",
    "JSON_OBJECT('d', CAST('2024-02-29' AS DATE), 't', CAST('-10:11:12.5' AS TIME(3)))",
    "JSON_OBJECT('dt', CAST('2024-02-29 10:11:12.5' AS DATETIME(6)), 'n', CAST(-12.340 AS DECIMAL(10,3)))",
    "JSON_ARRAY(CAST(0.5 AS DECIMAL(20,10)), REPEAT('x', 200), REPEAT('y', 70000), 3.0e0, 1e15, 1e14, 1e-5, -0e0)",
    "JSON_ARRAY(5e-324, 1.25e-16, 1.25e-15, 9.9e14)",
    "JSON_OBJECT('b', x'00ff')",
]  # fmt: skip


class Server:
    """The server in the form in which the tests know MariaDB's."""

    port = int(PORT or 0)

    def connect(self, database: str | None = None, **options: Any) -> Any:
        given = {"user": "root", "autocommit": True, "charset": "utf8mb4", **options}
        return pymysql.connect(host="127.0.0.1", port=self.port, database=database, **given)

    def execute(self, database: str | None, *statements: str) -> list[tuple[Any, ...]]:
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def settings(self, database: str | None = None, **other: Any) -> dict[str, Any]:
        given = {"host": "127.0.0.1", "port": self.port, "user": "root", "database": database or "mysql"}
        return {**given, "ssl_mode": "disabled", **other}

    def database(self) -> str:
        name = f"test_{time.time_ns()}"
        self.execute(None, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return name


@pytest.fixture
def server() -> Any:
    return Server()


def test_values_of_all_types_are_those_that_a_snapshot_reads(server: Any) -> None:
    database = server.database()
    values = VALUES | {
        "time(6)": ["'-838:59:58.000001'"], "json": JSON, "vector(3)": ["STRING_TO_VECTOR('[1,2,3]')"]
    }  # fmt: skip
    check_all_types(server, database, MysqlSource(**server.settings(database)), values)


def test_killed_anywhere_beside_writers_every_change_is_there_once(server: Any) -> None:
    fuzz(server, 5, rounds=15)


def test_the_log_comes_over_tls(server: Any) -> None:
    database = server.database()
    source = MysqlSource(**server.settings(database, ssl_mode="required"))
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    lake = Lake.empty("t")
    lake.land(log_of(source, {"t": ["id"]}))
    rows = ", ".join(f"({n}, REPEAT('long ', 100))" for n in range(3000))
    server.execute(database, f"INSERT INTO t VALUES {rows}")
    lake.land(log_of(source, {"t": ["id"]}, mode="continuous", lasts=0.5, every=0.1))
    assert lake.state("t", "id") == rows_of(source, "t", ["id"])


def test_compressed_transactions_are_unpacked(server: Any) -> None:
    database = server.database()
    source = MysqlSource(**server.settings(database))
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    rows = ", ".join(f"({n}, REPEAT('long ', 100))" for n in range(3000))
    server.execute(
        database, "SET SESSION binlog_transaction_compression = ON", f"INSERT INTO t VALUES {rows}",
        "UPDATE t SET v = 'short' WHERE id < 10", "DELETE FROM t WHERE id > 100",
    )  # fmt: skip
    lake.land(log)
    assert len(lake.changes("t")) == 3000 + 10 + 2899
    assert lake.state("t", "id") == rows_of(source, "t", ["id"])
    assert len({row["_xid"] for row in lake.changes("t")}) == 3


def test_parts_of_documents_are_refused(server: Any) -> None:
    database = server.database()
    source = MysqlSource(**server.settings(database))
    server.execute(
        database, "CREATE TABLE t (id int PRIMARY KEY, v json)", """INSERT INTO t VALUES (1, '{"a": 1, "b": 2}')"""
    )
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(
        database, "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'", "UPDATE t SET v = JSON_SET(v, '$.a', 3)"
    )
    with pytest.raises(LogLostError, match="parts of a JSON document"):
        lake.land(log)
    lake.positions["t"] = log.renewed(lake.positions["t"])
    lake.land(log)
    assert lake.state("t", "id") == rows_of(source, "t", ["id"])
    server.execute(None, "SET GLOBAL binlog_row_value_options = 'PARTIAL_JSON'")
    try:
        with pytest.raises(ConfigurationError, match="PARTIAL_JSON"):
            lake.land(log)
    finally:
        server.execute(None, "SET GLOBAL binlog_row_value_options = ''")


def test_prepared_transactions_count_where_they_are_committed(server: Any) -> None:
    database = server.database()
    source = MysqlSource(**server.settings(database))
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY)")
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    for n, name in enumerate((f"kept{database}", f"undone{database}", f"at once{database}")):
        with server.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(f"XA START '{name}'")
            cursor.execute(f"INSERT INTO t VALUES ({n})")
            cursor.execute(f"XA END '{name}'")
            cursor.execute(f"XA COMMIT '{name}' ONE PHASE" if n == 2 else f"XA PREPARE '{name}'")
    server.execute(database, "INSERT INTO t VALUES (9)")
    lake.land(log)
    server.execute(database, f"XA COMMIT 'kept{database}'", f"XA ROLLBACK 'undone{database}'")
    lake.land(log)
    assert [row["id"] for row in lake.changes("t")] == [2, 9, 0]


def test_a_tagged_transaction_is_followed_without_its_name(server: Any) -> None:
    database = server.database()
    source = MysqlSource(**server.settings(database))
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY)")
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(
        database,
        "SET gtid_next = 'AUTOMATIC:tagged'",
        "INSERT INTO t VALUES (1)",
        "SET gtid_next = 'AUTOMATIC'",
        "INSERT INTO t VALUES (2)",
    )
    lake.land(log)
    assert [row["id"] for row in lake.changes("t")] == [1, 2]
    assert (lake.positions["t"] or {})["gtid"] is None


def test_another_server_is_asked_for_what_is_not_among_the_transactions_read(server: Any) -> None:
    """The one server plays the one that takes over: to the positions, it is another."""
    server.execute(None, "RESET BINARY LOGS AND GTIDS")
    database = server.database()
    source = MysqlSource(**server.settings(database))
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY)", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (1)")
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    assert str((lake.positions["t"] or {})["gtid"]) == server.execute(None, "SELECT @@GLOBAL.gtid_executed")[0][0]
    server.execute(database, "INSERT INTO t VALUES (2)")
    lake.land(log)
    highest = lake.changes("t")[-1]["_pos"]
    lake.positions["t"] = {**(lake.positions["t"] or {}), "server": "00000000-0000-0000-0000-000000000001"}
    server.execute(database, "INSERT INTO t VALUES (3)", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (4)")
    lake.land(log)
    assert [row["id"] for row in lake.changes("t")] == [2, 3, 4]
    assert lake.changes("t")[1]["_pos"] > highest
    gtid = str((lake.positions["t"] or {})["gtid"])
    assert gtid.endswith(f":1-{gtid.rsplit('-', 1)[1]}"), "no transaction is left out"
    lake.positions["t"] = {
        **(lake.positions["t"] or {}), "server": "another", "gtid": "00000000-0000-0000-0000-000000000001:1-5"
    }  # fmt: skip
    with pytest.raises(LogLostError, match="does not have all transactions"):
        lake.land(log)
