"""A value is the same whether a snapshot of the source reads it, the log's own first load, or an event of the log."""

from __future__ import annotations

import json
from datetime import date

import pyarrow as pa
import pytest

from etl_resources.change_log import Boundary
from etl_resources.sources.mysql import MysqlSource
from tests.conformance.cases import TYPE_CASES
from tests.conformance.implementations.mysql import MysqlSourceHarness, mysql_type
from tests.resources.mysql_log_landing import Lake, log_of, rows_of
from tests.servers.mysql import MysqlServer, shared_mysql

VALUES: dict[str, list[str]] = {
    "tinyint": ["-128", "127"],
    "tinyint unsigned": ["255"],
    "tinyint(1)": ["0", "1"],
    "smallint": ["-32768"],
    "smallint unsigned": ["65535"],
    "mediumint": ["-8388608", "8388607", "-1"],
    "mediumint unsigned": ["16777215"],
    "int": ["-2147483648", "2147483647"],
    "int unsigned": ["4294967295"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "bigint unsigned": ["18446744073709551615", "0"],
    "year": ["1901", "2155", "0"],
    "float": ["16777217", "0.1", "-3.4e38"],
    "float unsigned": ["1.5"],
    "double": ["1.7976931348623157e308", "0.30000000000000004", "-0.0"],
    "decimal(9, 9)": ["0.999999999", "-0.000000001"],
    "decimal(10, 2)": ["-12345678.99", "0"],
    "decimal(18, 0)": ["999999999999999999", "-999999999999999999"],
    "decimal(19, 1)": ["-123456789012345678.9", "0.1"],
    "decimal(38, 8)": ["123456789012345678901234567890.12345678", "-99999999999999999999999999999.99999999", "-1"],
    "decimal(38, 0) unsigned": ["99999999999999999999999999999999999999"],
    "decimal(65, 30)": ["-99999999999999999999999999999999999.999999999999999999999999999999", "0", "1.5"],
    "bit(1)": ["b'1'", "b'0'"],
    "bit(9)": ["b'100000001'"],
    "bit(64)": ["b'1111111111111111111111111111111111111111111111111111111111111111'"],
    "date": ["'9999-12-31'", "'0001-01-01'", "'1969-12-31'"],
    "time": ["'-838:59:59'", "'25:00:00'", "'00:00:00'"],
    "time(1)": ["'-00:00:00.1'"],
    "time(3)": ["'-00:00:01.001'", "'100:00:00.999'"],
    "time(6)": ["'-838:59:59.000001'", "'838:59:58.999999'"],
    "datetime": ["'0001-01-01 00:00:00'", "'9999-12-31 23:59:59'"],
    "datetime(2)": ["'2024-02-29 12:00:00.25'"],
    "datetime(5)": ["'1969-12-31 23:59:59.99999'"],
    "datetime(6)": ["'9999-12-31 23:59:59.999999'"],
    "timestamp": ["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"],
    "timestamp(3)": ["'2024-10-27 00:30:00.125'"],
    "char(4)": ["'ab '", "''"],
    "char(200) character set utf8mb4": ["REPEAT('ü', 200)"],
    "varchar(9) character set latin1": ["'Grün€'", "''"],
    "varchar(9) character set cp1251": ["'Привет'"],
    "varchar(9) character set utf16": ["'a€𝄞'"],
    "varchar(9) character set sjis": ["'日本'"],
    "varchar(300)": ["'👩‍👩‍👧 ü'"],
    "tinytext": ["''", "'x'"],
    "text character set latin1": ["'ÄÖÜ'"],
    "longtext": ["REPEAT('x', 70000)"],
    "blob": ["x'00ff'", "''"],
    "binary(3)": ["x'61'", "x'000000'", "x'610062'"],
    "binary(255)": ["x'ff'"],
    "varbinary(300)": ["'text'"],
    "enum('sad', 'happy', 'ü')": ["'happy'", "'ü'"],
    "enum('ä', 'b') character set latin1": ["'ä'"],
    "set('a', 'b', 'c')": ["'a,c'", "''"],
    "point": ["POINT(1, 2)"],
}
MARIADB = {
    "json": ["'{\"b\": 1, \"a\": [1.10]}'"],
    "uuid": ["'6f0e9f0e-0000-4000-8000-000000000000'", "'1b4e28ba-2fa1-11d2-883f-0016d3cca427'",
             "'018f4e3c-7c4e-7d2a-9c3b-aabbccddee00'"],
    "inet6": ["'2001:db8::ff00:42:8329'", "'::ffff:10.1.2.3'", "'::'"],
    "inet4": ["'192.168.0.0'"],
}  # fmt: skip


def fill(server: MysqlServer, database: str, values: dict[str, list[str]]) -> list[str]:
    """Make a table with a column for each type; return the statements that insert the values and their nulls."""
    columns = ", ".join(f"c{n} {type_} NULL" for n, type_ in enumerate(values))
    server.execute(database, f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    longest = max(map(len, values.values()))
    return [
        "SET time_zone = '+00:00'",
        *(
            f"INSERT INTO t VALUES ({{start}} + {row}, "
            + ", ".join(given[row] if row < len(given) else "NULL" for given in values.values())
            + ")"
            for row in range(longest)
        ),
    ]


def check_all_types(server: MysqlServer, database: str, source: MysqlSource, values: dict[str, list[str]]) -> None:
    statements = fill(server, database, values)
    server.execute(database, *(s.replace("{start}", "0") for s in statements))
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(
        database, *(s.replace("{start}", "100") for s in statements), "UPDATE t SET id = id + 1000 WHERE id >= 100"
    )
    server.execute(
        database, "SET time_zone = '+05:00'", "UPDATE t SET id = 50 WHERE id = 0", "DELETE FROM t WHERE id = 1"
    )
    lake.land(log)
    expected = rows_of(source, "t", ["id"])
    assert lake.unreadable == {"t": []}
    for identity, row in lake.state("t", "id").items():
        assert row == expected.pop(identity)
    assert not expected
    before = next(row["_before"] for row in lake.changes("t") if row["_op"] == "delete" and row["id"] == 1)
    first = next(row for row in lake.events["t"] if row["_op"] == "read" and row["id"] == 1)
    assert before == {name: value for name, value in first.items() if not name.startswith("_")}


def test_values_of_all_types_are_those_that_a_snapshot_reads() -> None:
    server = shared_mysql()
    database = server.database()
    check_all_types(server, database, MysqlSource(**server.settings(database)), VALUES | MARIADB)


def test_the_conformance_cases_come_through_the_log() -> None:
    server, harness = shared_mysql(), MysqlSourceHarness.__new__(MysqlSourceHarness)
    database = server.database()
    source = MysqlSource(**server.settings(database))
    cases = [case for case in TYPE_CASES if f"types.{case.name}" not in MysqlSourceHarness.gaps]
    tables = {f"c{n}": ["id"] for n in range(len(cases))}
    for n, case in enumerate(cases):
        server.execute(
            database, f"CREATE TABLE c{n} (id int AUTO_INCREMENT PRIMARY KEY, v {mysql_type(case.type)} NULL)"
        )
    log = log_of(source, tables)
    lake = Lake.empty(*tables)
    lake.land(log)
    with server.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        for n, case in enumerate(cases):
            is_json = mysql_type(case.type) == "json"
            given = [json.dumps(v, ensure_ascii=False) if is_json and v is not None else v for v in case.values]
            cursor.executemany(f"INSERT INTO c{n} (v) VALUES (%s)", [(v,) for v in given])
    lake.land(log)
    for n, case in enumerate(cases):
        found = [row["v"] for row in lake.changes(f"c{n}")]
        assert pa.array(found, harness.received(case).type).equals(harness.received(case)), case.name


@pytest.mark.parametrize(
    ("type_", "text"),
    [("date", "0000-00-00"), ("date", "2024-02-00"), ("date", "2023-02-31"),
     ("datetime(6)", "0000-00-00 00:00:00.000000"),
     ("datetime", "2024-00-01 10:00:00"), ("timestamp", "0000-00-00 00:00:00"),
     ("timestamp(2)", "0000-00-00 00:00:00.00"),
     ("tinyint(1)", "2"), ("tinyint(1)", "-1")],
)  # fmt: skip
def test_what_arrow_cannot_hold_is_set_apart_with_its_place(type_: str, text: str) -> None:
    server = shared_mysql()
    database = server.database()
    source = MysqlSource(**server.settings(database))
    allowed = "SET sql_mode = 'ALLOW_INVALID_DATES'"
    server.execute(
        database, allowed, f"CREATE TABLE t (id int PRIMARY KEY, v {type_} NULL)", f"INSERT INTO t VALUES (1, '{text}')"
    )
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(
        database, allowed, f"INSERT INTO t VALUES (2, NULL), (3, '{text}'), (4, NULL)",
        f"UPDATE t SET v = '{text}' WHERE id = 2",
        "UPDATE t SET v = NULL WHERE id = 3", "DELETE FROM t WHERE id = 1",
    )  # fmt: skip
    lake.land(log)
    told = [json.loads(row["raw"]) for row in lake.unreadable["t"]]
    assert [(row["op"], row["key"], row["values"]["v"]) for row in told] == [
        ("read", {"id": 1}, text), ("insert", {"id": 3}, text), ("update", {"id": 2}, text)
    ]  # fmt: skip
    assert all(row["reason"].startswith(f"v: '{text}' does not fit") for row in lake.unreadable["t"])
    assert [(row["_op"], row["id"]) for row in lake.changes("t")] == [
        ("insert", 2), ("insert", 4), ("update", 3), ("delete", 1)
    ]  # fmt: skip
    assert all({"pos", "seq"} <= set(row) for row in told)
    assert lake.changes("t")[2]["_before"] == {"id": 3, "v": None}, (
        "a before image without the value that cannot be held"
    )


def test_columns_come_and_go_while_the_log_is_read() -> None:
    """Events before an ALTER TABLE have the columns of then, also when the log is read long after it."""
    server = shared_mysql()
    database = server.database()
    source = MysqlSource(**server.settings(database))
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, a int, flag tinyint(1), n decimal(5,2))")
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(
        database, "INSERT INTO t VALUES (1, 1, 1, 1.25)", "ALTER TABLE t ADD COLUMN b varchar(5) DEFAULT 'x' AFTER id",
        "INSERT INTO t VALUES (2, 'b', 2, 0, 2.5)", "ALTER TABLE t DROP COLUMN a",
        "INSERT INTO t VALUES (3, 'c', 1, 3)",
        "ALTER TABLE t MODIFY n decimal(12,4)", "UPDATE t SET n = 12345678.0001 WHERE id = 3",
        "ALTER TABLE t CHANGE b named varchar(9)", "INSERT INTO t VALUES (4, 'd', NULL, 4)",
    )  # fmt: skip
    lake.land(log)
    shown = [{n: v for n, v in row.items() if not n.startswith("_")} for row in lake.changes("t")]
    assert [list(row) for row in shown] == [
        ["id", "a", "flag", "n"], ["id", "b", "a", "flag", "n"], ["id", "b", "flag", "n"], ["id", "b", "flag", "n"],
        ["id", "named", "flag", "n"],
    ]  # fmt: skip
    assert shown[0]["flag"] is True
    assert shown[1]["flag"] is False
    assert str(shown[3]["n"]) == "12345678.0001"
    assert shown[4] == {"id": 4, "named": "d", "flag": None, "n": 4}


def test_columns_that_the_source_does_not_give_are_not_in_the_log_either() -> None:
    server = shared_mysql()
    database = server.database()
    source = MysqlSource(**server.settings(database))
    server.execute(
        database, "CREATE TABLE t (id int PRIMARY KEY, hidden int INVISIBLE DEFAULT 7, v int,"
        " doubled int AS (v * 2) VIRTUAL,"
        " kept int AS (v + 1) STORED)",
    )  # fmt: skip
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    chosen = log_of(source, {"t": ["id"]}, options={"columns": ["v", "id"]})
    some = Lake.empty("t")
    lake.land(log)
    some.land(chosen)
    server.execute(database, "INSERT INTO t (id, v) VALUES (1, 5)", "UPDATE t SET v = 6")
    lake.land(log)
    some.land(chosen)
    assert lake.state("t", "id") == rows_of(source, "t", ["id"]) == {(1,): {"id": 1, "v": 6, "doubled": 12, "kept": 7}}
    assert [list(row)[:2] for row in some.changes("t")] == [["v", "id"]] * 2


def test_images_with_less_than_all_columns_say_what_is_unchanged() -> None:
    """A session may have switched to MINIMAL behind the preflight's back."""
    server = shared_mysql()
    database = server.database()
    source = MysqlSource(**server.settings(database))
    server.execute(
        database,
        "CREATE TABLE t (id int PRIMARY KEY, a int, b varchar(9), d date)",
        "INSERT INTO t VALUES (1, 1, 'x', '2024-01-01'), (2, 2, NULL, NULL)",
    )
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(
        database, "SET SESSION binlog_row_image = 'MINIMAL'", "UPDATE t SET b = 'changed'",
        "UPDATE t SET id = 9, d = '2024-02-29' WHERE id = 2",
        "DELETE FROM t WHERE id = 1",
    )  # fmt: skip
    lake.land(log)
    shown = [(row["_op"], row["id"], row["a"], row["b"], row["d"], row["_unchanged"]) for row in lake.changes("t")]
    assert shown == [
        ("update", 1, None, "changed", None, ["a", "d"]), ("update", 2, None, "changed", None, ["a", "d"]),
        ("delete", 2, None, None, None, None), ("update", 9, None, None, date(2024, 2, 29), ["a", "b"]),
        ("delete", 1, None, None, None, None),
    ]  # fmt: skip


def test_rows_of_every_size_are_cut_where_they_end() -> None:
    """Events of many rows, of one, and longer than a packet of the protocol (16 MB less one byte)."""
    server = shared_mysql()
    database = server.database()
    source = MysqlSource(**server.settings(database))
    server.execute(None, "SET GLOBAL max_allowed_packet = 134217728")
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v longtext)")
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(database, "INSERT INTO t SELECT seq, REPEAT('x', seq % 300) FROM seq_1_to_5000")
    for n, size in enumerate((2**24 - 100, 2**24, 2**25 + 7), 10_001):
        server.execute(
            database, f"INSERT INTO t VALUES ({n}, CONCAT(REPEAT('y', {size}), 'z'))", f"DELETE FROM t WHERE id = {n}"
        )
    lake.land(log)
    assert len(lake.changes("t")) == 5006
    assert lake.state("t", "id") == rows_of(source, "t", ["id"])
    long = [len(row["v"]) for row in lake.changes("t") if row["id"] > 10_000 and row["_op"] == "insert"]
    assert long == [2**24 - 99, 2**24 + 1, 2**25 + 8]


def test_a_compressed_log_is_read_as_well() -> None:
    server = shared_mysql()
    database = server.database()
    source = MysqlSource(**server.settings(database))
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(None, "SET GLOBAL log_bin_compress = 1")
    try:
        server.execute(
            database, "INSERT INTO t SELECT seq, REPEAT('long ', 100) FROM seq_1_to_50",
            "UPDATE t SET v = REPEAT('other ', 90)", "DELETE FROM t WHERE id > 10",
            "ALTER TABLE t COMMENT '" + "c" * 900 + "'", "INSERT INTO t VALUES (99, 'short')",
        )  # fmt: skip
    finally:
        server.execute(None, "SET GLOBAL log_bin_compress = 0")
    lake.land(log)
    assert len(lake.changes("t")) == 141
    assert lake.state("t", "id") == rows_of(source, "t", ["id"])


def test_batches_of_an_old_shape_keep_their_types(  # the schema of a batch is that of its events, whatever comes later
) -> None:
    server = shared_mysql()
    database = server.database()
    source = MysqlSource(**server.settings(database))
    server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, v int)")
    log, lake = log_of(source, {"t": ["id"]}), Lake.empty("t")
    lake.land(log)
    server.execute(
        database, "INSERT INTO t VALUES (1, 1)", "ALTER TABLE t MODIFY v bigint unsigned", "INSERT INTO t VALUES (2, 2)"
    )
    found = [item.batch.data.schema for item in log.read(lake.positions) if not isinstance(item, Boundary)]
    assert [schema.field("v").type for schema in found] == [pa.int32(), pa.decimal128(20, 0)]
    assert [schema.field("_before").type.field("v").type for schema in found] == [pa.int32(), pa.decimal128(20, 0)]
