"""Servers that crash, purge, begin anew or are replaced: nothing is lost without a word, and nothing comes twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from etl_resources.changes.mysql_position import Cursor
from etl_resources.exceptions import CredentialsRejectedError, LogLostError, UnavailableError
from etl_resources.sources.mysql import MysqlSource
from tests.resources.mysql_log_landing import Lake, log_of, rows_of
from tests.servers.mysql import MysqlServer, running_mysql
from tests.servers.proxy import wire_to

SAFE = {"sync-binlog": "1", "innodb-flush-log-at-trx-commit": "1", "log-slave-updates": "1"}


@pytest.fixture(scope="module")
def server() -> Iterator[MysqlServer]:
    with running_mysql(SAFE) as running:
        yield running


@pytest.fixture
def database(server: MysqlServer) -> str:
    return server.database()


@pytest.fixture
def source(server: MysqlServer, database: str) -> MysqlSource:
    return MysqlSource(**server.settings(database))


def filled(server: MysqlServer, database: str, source: MysqlSource) -> Lake:
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1)")
    lake = Lake.empty("t")
    lake.land(log_of(source, {"t": ["id"]}))
    return lake


def purge(server: MysqlServer) -> None:
    """Purge all files but the last; one that a reader has just left may still count as used."""
    deadline = time.monotonic() + 20
    while len(files := server.execute(None, "SHOW BINARY LOGS")) > 1:
        server.execute(None, f"PURGE BINARY LOGS TO '{files[-1][0]}'")
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_end_of_a_file_is_passed_and_what_is_read_may_be_purged(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    """A position at the end of a file that is closed moves to the next, also without any transaction."""
    log, lake = log_of(source, {"t": ["id"]}), filled(server, database, source)
    for n in range(3):
        server.execute(database, f"INSERT INTO t VALUES ({10 + n}, 0)", "FLUSH BINARY LOGS")
    lake.land(log)
    last = server.execute(None, "SHOW BINARY LOGS")[-1][0]
    assert Cursor.from_position(lake.positions["t"] or {}).file == last
    files = {row["_pos"] >> 40 for row in lake.changes("t")}
    assert len(files) == 3, "each transaction has the number of its own file"
    purge(server)
    server.execute(database, "INSERT INTO t VALUES (20, 0)")
    assert log.state(lake.positions).state == "ok"
    assert log.state(lake.positions).news is True
    lake.land(log)
    assert lake.state("t", "id") == rows_of(source, "t", ["id"])


def test_a_purged_log_is_found_and_a_new_snapshot_heals_it(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    log, lake = log_of(source, {"t": ["id"]}), filled(server, database, source)
    server.execute(
        database, "INSERT INTO t VALUES (2, 2)", "DELETE FROM t WHERE id = 1", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS"
    )
    purge(server)
    assert log.state(lake.positions).state == "lost"
    with pytest.raises(LogLostError, match="cannot go on") as caught:
        lake.land(log)
    assert "resnapshot" in caught.value.fix
    lake.positions["t"] = log.renewed(lake.positions["t"])
    lake.land(log)
    assert lake.state("t", "id") == rows_of(source, "t", ["id"]) == {(2,): {"id": 2, "v": 2}}
    assert log.state(lake.positions).state == "ok"


def test_a_log_that_begins_anew_is_another_log_and_places_in_it_still_grow(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    log, lake = log_of(source, {"t": ["id"]}), filled(server, database, source)
    place = Cursor.from_position(lake.positions["t"] or {}).place
    server.execute(None, "RESET MASTER")
    server.execute(database, "INSERT INTO t VALUES (2, 2)")
    while int(server.execute(None, "SHOW MASTER STATUS")[0][1]) < place + 2000:  # the place is there again
        server.execute(database, "UPDATE t SET v = v + 1")
    with pytest.raises(LogLostError, match=r"not the one that was read|cannot go on"):
        lake.land(log)
    lake.positions["t"] = log.renewed(lake.positions["t"])
    highest = max(row["_pos"] for row in lake.events["t"])
    lake.land(log)
    server.execute(database, "UPDATE t SET v = 0")
    lake.land(log)
    assert min(row["_pos"] for row in lake.events["t"][1:]) > highest
    assert lake.state("t", "id") == rows_of(source, "t", ["id"])


def test_a_server_that_crashes_goes_on_where_it_was(server: MysqlServer, source: MysqlSource, database: str) -> None:
    log, lake = log_of(source, {"t": ["id"]}), filled(server, database, source)
    for n in range(3):
        server.execute(database, f"INSERT INTO t VALUES ({10 + n}, 0)")
        server.stop(signal.SIGKILL if n % 2 else signal.SIGTERM)
        server.start()
        server.execute(database, f"INSERT INTO t VALUES ({20 + n}, 0)")
        lake.land(log, boundaries=1)
    lake.land(log)
    assert [row["id"] for row in lake.changes("t")] == [10, 20, 11, 21, 12, 22]


def test_a_prepared_transaction_counts_where_it_is_committed(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    log, lake = log_of(source, {"t": ["id"]}), filled(server, database, source)
    for n, name in enumerate(("kept", "undone", "late"), 101):
        with server.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(f"XA START '{name}'")
            cursor.execute(f"INSERT INTO t VALUES ({n}, 0)")
            cursor.execute(f"XA END '{name}'")
            cursor.execute(f"XA PREPARE '{name}'")
            if name == "late":
                cursor.execute(f"XA COMMIT '{name}'")
    server.execute(database, "INSERT INTO t VALUES (2, 2)")
    lake.land(log)
    assert [row["id"] for row in lake.changes("t")] == [103, 2]
    server.execute(database, "XA COMMIT 'kept'", "XA ROLLBACK 'undone'", "INSERT INTO t VALUES (3, 3)")
    lake.land(log)
    assert [row["id"] for row in lake.changes("t")] == [103, 2, 101, 3]
    assert lake.state("t", "id") == rows_of(source, "t", ["id"])


def test_a_replica_that_takes_over_is_followed_by_gtid() -> None:
    with running_mysql(SAFE) as server, running_mysql({**SAFE, "server-id": "2"}) as replica:
        _replicate(server, replica)
        database = server.database()
        check_takeover(server, replica, MysqlSource(**server.settings(database)), database)


def check_takeover(server: MysqlServer, replica: MysqlServer, source: MysqlSource, database: str) -> None:
    tables = {"t": ["id"], "u": ["id"]}
    lake = filled(server, database, source)
    server.execute(database, "CREATE TABLE u (id int PRIMARY KEY, v int)", "INSERT INTO u VALUES (1, 1)")
    lake.positions["u"] = None
    lake.land(log_of(source, tables))
    server.execute(database, "INSERT INTO t VALUES (2, 2)", "INSERT INTO u VALUES (2, 2)")
    lake.land(log_of(source, {"u": ["id"]}))  # t is behind u
    other = MysqlSource(**replica.settings(database))
    server.execute(database, "INSERT INTO t VALUES (3, 3)", "INSERT INTO u VALUES (3, 3)", "DELETE FROM t WHERE id = 1")
    _wait_for(replica, server.execute(None, "SELECT @@gtid_binlog_pos")[0][0])
    replica.execute(None, "STOP SLAVE", "RESET SLAVE ALL")
    replica.execute(database, "INSERT INTO t VALUES (4, 4)", "FLUSH BINARY LOGS", "INSERT INTO u VALUES (4, 4)")
    highest = {name: max(row["_pos"] for row in lake.events[name]) for name in tables}
    lake.land(log_of(other, tables))
    assert [row["id"] for row in lake.changes("t")] == [2, 3, 1, 4]
    assert [row["id"] for row in lake.changes("u")] == [2, 3, 4], "what u had is not there twice"
    assert lake.repeated["u"] == 1
    for name in tables:
        fresh = [row for row in lake.changes(name) if row["id"] == 4]
        assert fresh[0]["_pos"] > highest[name]
        assert fresh[0]["_origin"] is None
        assert lake.state(name, "id") == rows_of(other, name, ["id"])
    assert {row["_origin"] for row in lake.changes("t")} == {None, "1"}
    replica.execute(database, "UPDATE t SET v = 9 WHERE id = 4")
    lake.land(log_of(other, tables))
    assert lake.state("t", "id") == rows_of(other, "t", ["id"])
    # The old server does not have what the new one did: to go back would lose it.
    with pytest.raises(LogLostError):
        lake.land(log_of(source, tables))


def _replicate(server: MysqlServer, replica: MysqlServer) -> None:
    server.execute(
        None, "CREATE USER IF NOT EXISTS replica@'127.0.0.1'", "GRANT REPLICATION SLAVE ON *.* TO replica@'127.0.0.1'"
    )
    replica.execute(None, "RESET MASTER")
    replica.execute(
        None, f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={server.port}, MASTER_USER='replica',"
        " MASTER_USE_GTID=slave_pos", "START SLAVE",
    )  # fmt: skip


def _wait_for(replica: MysqlServer, gtid: str) -> None:
    deadline = time.monotonic() + 30
    while replica.execute(None, "SELECT @@gtid_slave_pos")[0][0] != gtid:
        assert time.monotonic() < deadline, replica.execute(None, "SHOW SLAVE STATUS")
        time.sleep(0.05)


def test_a_server_that_never_had_what_was_read_is_refused(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    lake = filled(server, database, source)
    with running_mysql({**SAFE, "server-id": "3"}) as other:
        other.execute(None, f"CREATE DATABASE {database}")
        other.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v int)")
        with pytest.raises(LogLostError):
            lake.land(log_of(MysqlSource(**other.settings(database)), {"t": ["id"]}))


def test_a_connection_that_breaks_or_falls_silent_is_an_error_and_the_next_run_goes_on(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    lake = filled(server, database, source)
    server.execute(database, "INSERT INTO t SELECT seq, 0 FROM seq_100_to_20000")
    patient = {"attempts": 1, "timeout": 5, "silence": 1, "deadline": 5}
    with wire_to(server.port, cut_after=120_000) as wire:
        broken = MysqlSource(**server.settings(database, port=wire.port, resilience=patient))
        with pytest.raises(UnavailableError):
            lake.land(log_of(broken, {"t": ["id"]}))
    with wire_to(server.port, stall_after=120_000) as wire:
        stalled = MysqlSource(**server.settings(database, port=wire.port, resilience=patient))
        with pytest.raises(UnavailableError, match=r"not even a heartbeat|timed out"):
            lake.land(log_of(stalled, {"t": ["id"]}, heartbeat=0.3))
    assert not lake.changes("t"), "half a transaction is never committed"
    lake.land(log_of(source, {"t": ["id"]}))
    assert len(lake.changes("t")) == 19901


def test_a_user_without_the_privileges_is_told_which(server: MysqlServer, source: MysqlSource, database: str) -> None:
    filled(server, database, source)
    server.execute(
        None, "CREATE USER IF NOT EXISTS little@'127.0.0.1'", f"GRANT SELECT ON {database}.* TO little@'127.0.0.1'"
    )
    log = log_of(MysqlSource(**server.settings(database, user="little")), {"t": ["id"]})
    assert "BINLOG MONITOR" in next(f.fix for f in log.preflight() if f.level == "error")
    with pytest.raises(CredentialsRejectedError):
        next(log.read({"t": None}))
