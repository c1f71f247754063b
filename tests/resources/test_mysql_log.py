"""The binlog as events: in order, each once, and joined to the first load without a gap."""

from __future__ import annotations

import threading
import time
from typing import Any

import psutil
import pyarrow as pa
import pytest

from etl_resources.change_log import Boundary, event_fields
from etl_resources.exceptions import ConfigurationError, LogLostError, NotFoundError
from etl_resources.sources.mysql import MysqlSource
from tests.resources.mysql_log_landing import KilledError, Lake, log_of, rows_of
from tests.servers.mysql import MysqlServer, shared_mysql
from tests.soaking import some


@pytest.fixture
def server() -> MysqlServer:
    return shared_mysql()


@pytest.fixture
def database(server: MysqlServer) -> str:
    return server.database()


@pytest.fixture
def source(server: MysqlServer, database: str) -> MysqlSource:
    return MysqlSource(**server.settings(database))


def operations(lake: Lake, name: str) -> list[tuple[Any, ...]]:
    return [(row["_op"], row.get("id"), row.get("v")) for row in lake.changes(name)]


def test_each_change_comes_once_in_order_with_what_was_before(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v varchar(9))", "INSERT INTO t VALUES (1, 'a')")
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(
        database, "SET autocommit = 0", "INSERT INTO t VALUES (2, 'b'), (3, 'c')", "UPDATE t SET v = 'B' WHERE id = 2",
        "DELETE FROM t WHERE id = 1", "COMMIT", "UPDATE t SET id = 30 WHERE id = 3", "COMMIT",
    )  # fmt: skip
    lake.land(log)
    lake.land(log)
    assert operations(lake, "t") == [
        ("insert", 2, "b"), ("insert", 3, "c"), ("update", 2, "B"), ("delete", 1, None),
        ("delete", 3, None), ("update", 30, "c"),
    ]  # fmt: skip
    events = lake.changes("t")
    assert [row["_seq"] for row in events] == [1, 3, 5, 7, 0, 1], "within the transaction, whatever the batch"
    assert [row["_before"] and row["_before"]["v"] for row in events] == [None, None, "b", "a", "c", "c"]
    assert events[5]["_before"]["id"] == 3
    first, second = events[0], events[4]
    assert first["_pos"] < second["_pos"]
    assert len({row["_xid"] for row in events[:4]}) == 1
    assert first["_xid"] != second["_xid"]
    assert all(row["_commit_ts"] is not None and row["_origin"] is None for row in events)
    assert lake.state("t", "id") == rows_of(source, "t", ["id"])


def test_events_have_the_columns_of_the_interface(server: MysqlServer, source: MysqlSource, database: str) -> None:
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v varchar(9))", "INSERT INTO t VALUES (1, 'a')")
    log = log_of(source, {"t": ["id"]})
    row = source.read_schema(log.tables[0].stream)
    expected = pa.schema([*row, *event_fields(row)])
    first = list(log.read({"t": None}))
    positions = next(item for item in reversed(first) if isinstance(item, Boundary)).positions
    server.execute(database, "INSERT INTO t VALUES (2, 'b')", "TRUNCATE t")
    later = list(log.read(positions))
    found = [item.batch.data.schema for item in first + later if not isinstance(item, Boundary)]
    assert len(found) == 3
    assert all(schema == expected for schema in found)
    assert isinstance(later[-1], Boundary)
    assert later[-1].caught_up
    assert later[-1].lag.bytes == 0


def test_a_truncate_is_an_event_between_the_others(server: MysqlServer, source: MysqlSource, database: str) -> None:
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1)")
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(
        database, "INSERT INTO t VALUES (2, 2)", f"TRUNCATE TABLE `{database}`.`t`", "INSERT INTO t VALUES (3, 3)",
        "CREATE TABLE other (id int)", "TRUNCATE other",
    )  # fmt: skip
    lake.land(log)
    assert operations(lake, "t") == [("insert", 2, 2), ("truncate", None, None), ("insert", 3, 3)]
    assert lake.state("t", "id") == {(3,): {"id": 3, "v": 3}}


@pytest.mark.parametrize("rows", some([2, 7, 1, 3, 100], 2))
def test_parts_of_the_first_load_end_anywhere(
    server: MysqlServer, source: MysqlSource, database: str, rows: int
) -> None:
    """Keys of several columns and of any type; each part goes on behind the last key, and what comes between counts."""
    server.execute(
        database,
        "CREATE TABLE t (a varchar(5) CHARACTER SET latin1, b binary(2), e enum('z', 'y'), d datetime(3), v int,"
        " PRIMARY KEY (a, b, e, d))",
        "INSERT INTO t VALUES ('ä', 0x0001, 'z', '2024-01-01', 1), ('ä', 0x0001, 'y', '2024-01-01', 2),"
        " ('ä', 0x0100, 'z', '2024-01-01 00:00:00.5', 3), ('\\\\''', '', 'y', '2024-01-01', 4),"
        " ('', '', 'y', '2024-01-01', 5), ('ä', 0x0001, 'z', '2024-01-02', 6), ('b', 0x27, 'z', '2024-01-01', 7)",
    )
    key = ["a", "b", "e", "d"]
    log, lake = log_of(source, {"t": key}, snapshot_rows=rows), Lake.empty("t")
    for step in range(9):
        lake.land(log, boundaries=1)
        server.execute(database, f"UPDATE t SET v = v + 10 WHERE v % 3 = {step % 3}")
    lake.land(log)
    assert lake.state("t", *key) == rows_of(source, "t", key)
    assert len([row for row in lake.events["t"] if row["_op"] == "read"]) == 7


def test_a_kill_at_every_boundary_and_between_two_commits_loses_and_doubles_nothing(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    tables = {"t": ["id"], "u": ["id"]}
    for name in tables:
        server.execute(
            database, f"CREATE TABLE {name} (id int PRIMARY KEY, v int)",
            f"INSERT INTO {name} SELECT seq, 0 FROM seq_1_to_20",
        )  # fmt: skip
    log, lake = log_of(source, tables, snapshot_rows=6, commit_rows=1), Lake.empty(*tables)
    made = 0
    for step in range(12):
        for name in tables:
            server.execute(database, f"UPDATE {name} SET v = v + 1 WHERE id = {1 + step % 20}")
            server.execute(database, f"INSERT INTO {name} VALUES ({100 + step}, {step})")
            made += 2
        if step % 3 == 2:
            with pytest.raises(KilledError):
                lake.land(log, kill_between=True)
        else:
            lake.land(log, boundaries=1 + step % 2)
    lake.land(log)
    for name, key in tables.items():
        assert lake.state(name, *key) == rows_of(source, name, key)
    assert sum(lake.repeated.values()) > 0, "a stream behind the others is caught up without doubling theirs"


def test_a_new_stream_joins_a_log_that_others_follow(server: MysqlServer, source: MysqlSource, database: str) -> None:
    for name in ("t", "u"):
        server.execute(
            database, f"CREATE TABLE {name} (id int PRIMARY KEY, v int)", f"INSERT INTO {name} VALUES (1, 1)"
        )
    lake = Lake.empty("t")
    lake.land(log_of(source, {"t": ["id"]}))
    server.execute(database, "INSERT INTO t VALUES (2, 2)", "INSERT INTO u VALUES (2, 2)")
    lake.positions["u"] = None
    lake.land(log_of(source, {"t": ["id"], "u": ["id"]}))
    assert [row["_op"] for row in lake.events["u"]] == ["read", "read"]
    assert operations(lake, "t") == [("insert", 2, 2)]
    assert lake.state("u", "id") == rows_of(source, "u", ["id"])


def test_a_snapshot_taken_again_finds_what_was_deleted_meanwhile(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    server.execute(
        database, "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t SELECT seq, seq FROM seq_1_to_10"
    )
    log, lake = log_of(source, {"t": ["id"]}, snapshot_rows=3), Lake.empty("t")
    lake.land(log)
    server.execute(database, "DELETE FROM t WHERE id IN (2, 3)", "UPDATE t SET v = 0 WHERE id = 5")
    before = lake.positions["t"]
    lake.positions["t"] = log.renewed(before)
    assert log.renewed(None) is None
    lake.land(log)
    assert not lake.changes("t"), "the log is followed from the new snapshot on"
    assert lake.swept["t"] > before["pos"]  # type: ignore[index]
    assert lake.state("t", "id") == rows_of(source, "t", ["id"])


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE t", "RENAME TABLE t TO old", "ALTER TABLE t RENAME TO old",
     "CREATE OR REPLACE TABLE t (id int PRIMARY KEY)",
     "RENAME TABLE t TO old, fresh TO t", "ALTER TABLE t TRUNCATE PARTITION p0"],
)  # fmt: skip
def test_a_table_that_is_no_longer_the_one_it_was_is_said(
    server: MysqlServer, source: MysqlSource, database: str, statement: str
) -> None:
    server.execute(
        database, "CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY HASH (id) PARTITIONS 2",
        "CREATE TABLE fresh (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1)",
    )  # fmt: skip
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(database, "INSERT INTO t VALUES (2, 2)", statement)
    if rows_gone := "t" not in {name for (name,) in server.execute(database, "SHOW TABLES")}:
        with pytest.raises(NotFoundError, match="there is no table t"):
            lake.land(log)
        server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v int)")
    with pytest.raises(LogLostError, match="changed table"):
        lake.land(log)
    lake.positions["t"] = log.renewed(lake.positions["t"])
    lake.land(log)
    assert lake.state("t", "id") == rows_of(source, "t", ["id"])
    assert rows_gone == statement.endswith(("DROP TABLE t", "TO old"))


def test_rows_that_were_logged_as_a_statement_are_not_passed_over(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v int)", "CREATE TABLE other (id int)")
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(database, "SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO other VALUES (1)")
    lake.land(log)
    server.execute(database, "SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO t VALUES (1, 1)")
    with pytest.raises(LogLostError, match="INSERT INTO t"):
        lake.land(log)


@pytest.mark.parametrize(
    ("setting", "value", "normal"),
    [("binlog_row_image", "MINIMAL", "FULL"), ("binlog_row_metadata", "MINIMAL", "FULL"),
     ("binlog_format", "MIXED", "ROW")],
)  # fmt: skip
def test_a_server_that_logs_too_little_is_refused(
    server: MysqlServer, source: MysqlSource, database: str, setting: str, value: str, normal: str
) -> None:
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY)")
    log = log_of(source, {"t": ["id"]})
    server.execute(None, f"SET GLOBAL {setting} = '{value}'")
    try:
        assert [f.what for f in log.preflight() if f.level == "error"] == [
            f"{setting} is {value}, and has to be {normal}"
        ]
        with pytest.raises(ConfigurationError, match=setting):
            next(log.read({"t": None}))
    finally:
        server.execute(None, f"SET GLOBAL {setting} = '{normal}'")
    assert [f for f in log.preflight() if f.level == "error"] == []


def test_tables_that_cannot_be_followed_are_found_before(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    server.execute(
        database, "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE child (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)",
        "CREATE TABLE keyless (id int)", "CREATE VIEW seen AS SELECT * FROM parent",
        "CREATE TABLE squeezed (id int PRIMARY KEY, v text COMPRESSED)",
        "CREATE TABLE versions (id int PRIMARY KEY) WITH SYSTEM VERSIONING",
    )  # fmt: skip
    tables = ("parent", "child", "keyless", "seen", "squeezed", "versions", "nowhere")
    found = {
        f.stream: f.what for f in log_of(source, {name: ["id"] for name in tables}).preflight() if f.level == "error"
    }
    assert set(found) == set(tables) - {"parent"}
    assert "foreign key" in found["child"]
    assert "COMPRESSED" in found["squeezed"]
    assert "primary key" in found["keyless"]
    assert [f.level for f in log_of(source, {"child": ["id"]}, allow_cascades=True).preflight()].count("error") == 0
    with pytest.raises(ConfigurationError, match="foreign key"):
        next(log_of(source, {"child": ["id"]}).read({"child": None}))
    with pytest.raises(ConfigurationError, match="the key has the column nothing"):
        next(log_of(source, {"parent": ["nothing"]}).read({"parent": None}))


def test_changes_come_while_they_are_made(server: MysqlServer, source: MysqlSource, database: str) -> None:
    """Continuous: a change is committed within the interval after it was made, and the run ends when its time is up."""
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, at double)")
    lake = Lake.empty("t")
    lake.land(log_of(source, {"t": ["id"]}))
    log = log_of(source, {"t": ["id"]}, mode="continuous", every=0.1, lasts=4.0)
    delays: list[float] = []
    made = threading.Event()

    def write() -> None:
        for n in range(10):
            server.execute(database, f"INSERT INTO t VALUES ({n}, {time.time()!r})")
            time.sleep(0.15)
        made.set()

    writer = threading.Thread(target=write)
    writer.start()
    started, events = time.monotonic(), 0
    for item in log.read(dict(lake.positions)):
        if isinstance(item, Boundary):
            lake.positions = dict(item.positions)
            continue
        events += item.batch.data.num_rows
        delays += [time.time() - at for at in item.batch.data.column("at").to_pylist()]
    writer.join()
    assert made.is_set()
    assert events == 10
    assert sorted(delays)[5] < 1.0
    assert 4.0 <= time.monotonic() - started < 20.0


def test_a_transaction_of_many_rows_needs_little_memory(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    """The rows are given on as they come, before the end of their transaction is known."""
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v varchar(90), n double)")
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(database, "INSERT INTO t SELECT seq, REPEAT('v', 80), seq FROM seq_1_to_400000")
    resident = psutil.Process().memory_info
    batches, rows, first, most = 0, 0, 0, 0
    for item in log.read(lake.positions):
        if isinstance(item, Boundary):
            assert rows == 400_000, "no boundary within a transaction"
            continue
        batches, rows = batches + 1, rows + item.batch.data.num_rows
        first = first or resident().rss
        most = max(most, resident().rss)
        assert item.batch.data.nbytes < 32 * 2**20
    assert batches > 5
    assert most - first < 50 * 2**20
