"""What a sensor is told of MySQL: it changes whenever a read would find more, and only then or nearly so."""

from __future__ import annotations

import time
from typing import Any

import pytest

from etl_resources.exceptions import UnavailableError
from etl_resources.resilience import Policy
from etl_resources.secret import Secret
from etl_resources.source import Incremental, Position, Stream
from etl_resources.sources import mysql_news
from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions
from tests.servers.mysql import MysqlServer, running_mysql, shared_mysql
from tests.servers.proxy import free_port
from tests.soaking import some

TABLE = "CREATE TABLE t (id int PRIMARY KEY, at timestamp(6) NULL)"
STREAM = Stream("t", MysqlStreamOptions(type="mysql", table="t"), Incremental(cursor="at"))


@pytest.fixture
def server() -> MysqlServer:
    return shared_mysql()


@pytest.fixture
def database(server: MysqlServer) -> str:
    name = server.database()
    server.execute(
        name, "CREATE TABLE t (id int PRIMARY KEY, at timestamp(6) NULL)", "CREATE TABLE m (n int) ENGINE=MyISAM"
    )
    return name


def settled(source: MysqlSource) -> Position:
    """Look until the server has done what it does behind the scenes, such as writing down statistics."""
    before = None
    for _ in range(50):
        found = source.latest(STREAM)
        assert found is not None
        if found == before:
            return found
        before = found
        time.sleep(0.1)
    raise AssertionError("every look changes it")


STATEMENT, COMMIT = "with the statement only", "at the commit, too"


@pytest.mark.parametrize(
    ("in_log", "counts"), some([(True, STATEMENT), (False, COMMIT), (False, STATEMENT), (True, COMMIT)], 2)
)
def test_it_changes_with_every_commit_and_not_by_looking(
    server: MysqlServer, database: str, in_log: bool, counts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a session that leaves the binary log out, and of a transaction that had written at the look before.

    MariaDB's count moves at the commit as well; that of MySQL does not, as these that MariaDB has beside it.
    """
    if counts == STATEMENT:
        monkeypatch.setattr(mysql_news, "_COUNTS", ("Handler_write", "Handler_update", "Handler_delete"))
    source = MysqlSource(**server.settings(database))
    with server.connect(database) as client, client.cursor() as cursor:
        cursor.execute(f"SET sql_log_bin = {int(in_log)}")
        seen = [settled(source)]
        for write in ("INSERT INTO t VALUES (1, NOW())", "UPDATE t SET at = NULL", "DELETE FROM t"):
            cursor.execute("BEGIN")
            cursor.execute(write)
            seen.append(settled(source))
            cursor.execute("COMMIT")
            seen.append(settled(source))
            assert seen[-1] not in seen[:-1], f"{write}: the commit was not seen"
        cursor.execute("SELECT * FROM t")
        assert settled(source) == seen[-1]


def test_tables_without_transactions_are_seen_in_the_log(server: MysqlServer, database: str) -> None:
    source = MysqlSource(**server.settings(database))
    before = settled(source)
    server.execute(database, "INSERT INTO m VALUES (1)")
    assert settled(source) != before


def test_who_may_not_see_transactions_is_told_what_the_log_tells(
    server: MysqlServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKER_PASSWORD", "pw")
    server.execute(
        database, "CREATE OR REPLACE USER looker@'127.0.0.1' IDENTIFIED BY 'pw'",
        f"GRANT SELECT ON {database}.* TO looker@'127.0.0.1'",
    )  # fmt: skip
    source = MysqlSource(**server.settings(database, user="looker", password=Secret(env="LOOKER_PASSWORD")))
    before = source.latest(STREAM)
    assert before is not None
    assert set(before) == {"logged"}
    server.execute(database, "INSERT INTO t VALUES (1, NOW())")
    assert source.latest(STREAM) != before
    monkeypatch.setattr(mysql_news, "_logged", lambda _: None)
    assert source.latest(STREAM) is None, "counts alone would miss the commit of what is open"


def test_a_server_without_a_log_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_mysql({"skip-log-bin": "1"}) as server:
        name = server.database()
        server.execute(name, TABLE)
        source = MysqlSource(**server.settings(name))
        before: Any = settled(source)
        assert before["logged"] is None
        server.execute(name, "INSERT INTO t VALUES (1, NOW())")
        assert settled(source) != before


def test_a_server_that_is_away_is_said_to_be(server: MysqlServer, database: str) -> None:
    hasty = Policy(attempts=1, timeout=1)
    source = MysqlSource(**server.settings(database, port=free_port(), resilience=hasty))
    with pytest.raises(UnavailableError):
        source.latest(STREAM)
