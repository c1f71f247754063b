"""Reading MySQL: exact values, one snapshot, and no error taken for an end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from etl_resources.exceptions import ConfigurationError, NotFoundError, SchemaConflictError, UnavailableError
from etl_resources.source import Batch, Incremental, Stream, Window
from etl_resources.sources import mysql_plan
from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions
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


def stream(window: Window | None = None, **options: Any) -> Stream:
    return Stream("s", MysqlStreamOptions(type="mysql", **options), None, window)


def rows_of(batches: Iterator[Batch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.data.to_pylist()]


VALUES = [
    ("decimal(38, 8)", "123456789012345678901234567890.12345678", pa.decimal128(38, 8),
     Decimal("123456789012345678901234567890.12345678")),
    ("decimal(38, 0) unsigned", "9" * 38, pa.decimal128(38, 0), Decimal("9" * 38)),
    # Nothing of 39 digits fits into Delta: the text is exact.
    ("decimal(65, 30)", f"-{'9' * 35}.{'9' * 30}", pa.string(), f"-{'9' * 35}.{'9' * 30}"),
    ("bigint unsigned", "18446744073709551615", pa.decimal128(20, 0), Decimal(18446744073709551615)),
    ("int unsigned", "4294967295", pa.int64(), 4294967295),
    ("mediumint unsigned", "16777215", pa.int32(), 16777215),
    ("smallint unsigned", "65535", pa.int32(), 65535),
    ("tinyint unsigned", "255", pa.int16(), 255),
    ("tinyint", "-128", pa.int8(), -128),
    ("tinyint(1)", "1", pa.bool_(), True),
    ("year", "2155", pa.int16(), 2155),
    # A FLOAT's own text has six digits; it needs up to nine.
    ("float", "16777217", pa.float32(), 16777216.0),
    ("float", "0.1", pa.float32(), 0.10000000149011612),
    ("double", "1.7976931348623157e308", pa.float64(), 1.7976931348623157e308),
    ("double", "0.30000000000000004", pa.float64(), 0.30000000000000004),
    ("bit(1)", "b'1'", pa.bool_(), True),
    ("bit(8)", "b'10000001'", pa.int64(), 129),
    ("bit(64)", f"b'{'1' * 64}'", pa.decimal128(20, 0), Decimal(2**64 - 1)),
    ("time(6)", "'-838:59:59.000001'", pa.string(), "-838:59:59.000001"),
    ("time", "'25:00:00'", pa.string(), "25:00:00"),
    ("datetime(6)", "'9999-12-31 23:59:59.999999'", pa.timestamp("us"),
     datetime(9999, 12, 31, 23, 59, 59, 999999)),
    ("datetime", "'0001-01-01 00:00:00'", pa.timestamp("us"), datetime(1, 1, 1)),
    ("timestamp(3)", "'2024-10-27 00:30:00.125'", pa.timestamp("us", "UTC"),
     datetime(2024, 10, 27, 0, 30, 0, 125000, UTC)),
    ("date", "'9999-12-31'", pa.date32(), date(9999, 12, 31)),
    ("json", "'{\"b\": 1, \"a\": [1.10]}'", pa.string(), '{"b": 1, "a": [1.10]}'),
    ("enum('sad', 'happy')", "'happy'", pa.string(), "happy"),
    ("set('a', 'b', 'c')", "'a,c'", pa.string(), "a,c"),
    ("uuid", "'6f0e9f0e-0000-4000-8000-000000000001'", pa.string(), "6f0e9f0e-0000-4000-8000-000000000001"),
    ("inet6", "'2001:db8::ff00:42:8329'", pa.string(), "2001:db8::ff00:42:8329"),
    ("varchar(9) character set latin1", "'Grün'", pa.string(), "Grün"),
    ("varchar(9) character set utf8mb4", "'👩‍👩‍👧 ü'", pa.string(), "👩‍👩‍👧 ü"),
    ("char(4)", "'ab '", pa.string(), "ab"),
    ("tinytext", "''", pa.string(), ""),
    ("blob", "x'00ff'", pa.binary(), b"\x00\xff"),
    ("binary(3)", "x'61'", pa.binary(), b"a\x00\x00"),
    ("varbinary(5)", "'text'", pa.binary(), b"text"),
    ("longtext", "REPEAT('x', 70000)", pa.string(), "x" * 70000),
    ("point", "POINT(1, 2)", pa.binary(), bytes.fromhex("000000000101000000000000000000f03f0000000000000040")),
]  # fmt: skip


def test_values_arrive_exactly(server: MysqlServer, source: MysqlSource, database: str) -> None:
    """One column for each, and a row with nothing in them."""
    columns = ", ".join(f"v{n} {type_} NULL" for n, (type_, _, _, _) in enumerate(VALUES))
    server.execute(
        database, "SET time_zone = '+00:00'", f"CREATE TABLE t (id int PRIMARY KEY, {columns})",
        f"INSERT INTO t VALUES (1, {', '.join(given for _, given, _, _ in VALUES)})", "INSERT INTO t (id) VALUES (2)",
    )  # fmt: skip
    (batch,) = source.read(stream(table="t"), None)
    assert batch.unreadable is None
    assert batch.data.schema.types[1:] == [arrow for _, _, arrow, _ in VALUES]
    assert batch.data.schema.types == source.read_schema(stream(table="t")).types
    rows = [list(row.values())[1:] for row in batch.data.to_pylist()]
    assert rows == [[value for _, _, _, value in VALUES], [None] * len(VALUES)]


ODD = [
    ("date", "0000-00-00"),
    ("date", "2024-00-00"),
    ("date", "2024-02-00"),
    ("datetime(6)", "0000-00-00 00:00:00.000000"),
    ("datetime", "2024-00-01 10:00:00"),
    ("timestamp", "0000-00-00 00:00:00"),
    ("tinyint(1)", "2"),
    ("tinyint(1)", "-1"),
]


def test_what_arrow_cannot_hold_is_set_apart_and_the_rest_is_read(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    """One row for each, which has it in a column of its own."""
    columns = ", ".join(f"v{n} {type_} NULL" for n, (type_, _) in enumerate(ODD))
    server.execute(
        database, "SET sql_mode = 'ALLOW_INVALID_DATES'", f"CREATE TABLE t (id int PRIMARY KEY, {columns})",
        *(f"INSERT INTO t (id, v{n}) VALUES ({n}, '{text}')" for n, (_, text) in enumerate(ODD)),
        "INSERT INTO t (id) VALUES (-1), (99)",
    )  # fmt: skip
    (batch,) = source.read(stream(table="t"), None)
    nothing = {f"v{n}": None for n in range(len(ODD))}
    assert batch.data.to_pylist() == [{"id": -1, **nothing}, {"id": 99, **nothing}]
    assert batch.rows_read == len(ODD) + 2
    assert batch.unreadable is not None
    for n, ((_, text), row) in enumerate(zip(ODD, batch.unreadable.to_pylist(), strict=True)):
        assert row["reason"].startswith(f"v{n}: '{text}'")
        assert json.loads(row["raw"]) == {"id": n, **nothing, f"v{n}": text}


def test_an_invalid_day_is_set_apart_as_well(server: MysqlServer, source: MysqlSource, database: str) -> None:
    server.execute(
        database, "SET sql_mode = 'ALLOW_INVALID_DATES'", "CREATE TABLE t (id int, v date)",
        "INSERT INTO t VALUES (1, '2024-02-29'), (2, '2023-02-31')",
    )  # fmt: skip
    (batch,) = source.read(stream(table="t"), None)
    assert batch.data.to_pylist() == [{"id": 1, "v": date(2024, 2, 29)}]
    assert batch.unreadable is not None
    assert b"2023-02-31" in batch.unreadable.column("raw")[0].as_py()


def test_tinyint_of_one_digit_may_be_read_as_a_number(server: MysqlServer, source: MysqlSource, database: str) -> None:
    server.execute(database, "CREATE TABLE t (v tinyint(1))", "INSERT INTO t VALUES (0), (1), (2), (-128)")
    (batch,) = source.read(stream(table="t", tinyint1="integer"), None)
    assert batch.data.column("v").to_pylist() == [0, 1, 2, -128]


def test_rows_longer_than_a_packet_arrive_whole(server: MysqlServer, source: MysqlSource, database: str) -> None:
    """A packet holds 16 MB less one byte; lengths around it, and twice it, are cut up differently."""
    edge = 2**24 - 1
    server.execute(None, "SET GLOBAL max_allowed_packet = 134217728")
    server.execute(database, "CREATE TABLE t (id int, v longblob)", "INSERT INTO t VALUES (0, 'before')")
    sizes = [edge - 6, edge - 5, 2 * edge + 5]
    for n, size in enumerate(sizes, 1):
        server.execute(database, f"INSERT INTO t VALUES ({n}, CONCAT(REPEAT('x', {size - 1}), 'y'))")
    server.execute(database, "INSERT INTO t VALUES (99, 'after')")
    found = {}
    for batch in source.read(stream(table="t", read_ahead=0), None, batch_rows=3):
        for row in batch.data.to_pylist():
            found[row["id"]] = (len(row["v"]), row["v"][-2:])
    assert found == {0: (6, b"re"), **{n: (size, b"xy") for n, size in enumerate(sizes, 1)}, 99: (5, b"er")}


def test_names_that_need_quotes_are_quoted(server: MysqlServer, source: MysqlSource, database: str) -> None:
    server.execute(
        database, """CREATE TABLE `a.b"``{c}'` (`x`` {y}` int, `from` text)""",
        """INSERT INTO `a.b"``{c}'` VALUES (1, 'it''s \\\\')""",
    )  # fmt: skip
    options = {"table": """"a.b""`{c}'\"""", "columns": ["from", "x` {y}"]}
    (batch,) = source.read(stream(**options), None)
    assert batch.data.to_pylist() == [{"from": "it's \\", "x` {y}": 1}]


@pytest.mark.parametrize("parallel", [None, {"column": "id", "parts": 3}])
def test_a_read_sees_one_moment(server: MysqlServer, source: MysqlSource, database: str, parallel: Any) -> None:
    """Rows that move about in the table while it is read are neither missed nor doubled."""
    server.execute(
        database, "CREATE TABLE t (id int PRIMARY KEY, filler text)",
        "INSERT INTO t SELECT seq, REPEAT('x', 500) FROM seq_1_to_30000",
    )  # fmt: skip
    batches = source.read(stream(table="t", read_ahead=0, parallel=parallel), None, batch_rows=1000)
    seen = next(iter(batches)).data.column("id").to_pylist()
    server.execute(database, "DELETE FROM t WHERE id % 2 = 0", "INSERT INTO t SELECT seq, '' FROM seq_40001_to_40100")
    for batch in batches:
        seen += batch.data.column("id").to_pylist()
    assert sorted(seen) == list(range(1, 30001))


def test_parallel_ranges_hold_every_row_once(server: MysqlServer, source: MysqlSource, database: str) -> None:
    """Also rows without the column, at both ends, and where there are fewer values than parts."""
    for values in ([None], [5], [5, 6], [None, -(2**63), 0, 2**63 - 1], [None, *range(-50, 1000, 7)], []):
        server.execute(database, "CREATE OR REPLACE TABLE t (id bigint)")
        if values:
            listed = ", ".join(f"({'NULL' if value is None else value})" for value in values)
            server.execute(database, f"INSERT INTO t VALUES {listed}")
        got = rows_of(source.read(stream(table="t", parallel={"column": "id", "parts": 4}), None))
        assert sorted([row["id"] for row in got], key=str) == sorted(values, key=str)


def test_a_part_that_fails_fails_the_read(server: MysqlServer, source: MysqlSource, database: str) -> None:
    server.execute(
        database, "CREATE TABLE t (id int, filler text)",
        "INSERT INTO t SELECT seq, REPEAT('x', 1000) FROM seq_1_to_24000",
    )  # fmt: skip
    batches = source.read(stream(table="t", read_ahead=0, parallel={"column": "id", "parts": 3}), None, batch_rows=100)
    next(iter(batches))
    readers = server.execute(
        None,
        "SELECT id FROM information_schema.processlist WHERE info LIKE '%FROM%AS t WHERE%' AND id <> CONNECTION_ID()",
    )
    assert readers
    server.execute(None, f"KILL {readers[0][0]}")
    with pytest.raises(UnavailableError):
        rows_of(batches)


def test_an_empty_snapshot_says_that_it_is_empty(server: MysqlServer, source: MysqlSource, database: str) -> None:
    server.execute(database, "CREATE TABLE t (id int)")
    (batch,) = source.read(stream(table="t"), None)
    assert (batch.data.num_rows, batch.data.schema.names) == (0, ["id"])
    assert batch.position is not None


@pytest.mark.parametrize("type_", some(["timestamp", "date", "datetime(6)"], 2))
def test_a_window_is_half_open_and_in_utc(server: MysqlServer, source: MysqlSource, database: str, type_: str) -> None:
    server.execute(
        database, "SET time_zone = '+00:00'", f"CREATE TABLE t (id int, at {type_} NULL)",
        "INSERT INTO t VALUES (1, '2024-01-01'), (2, '2024-01-02'), (3, '2024-01-03'), (4, NULL)",
    )  # fmt: skip
    for start, end in (
        (datetime(2024, 1, 2), datetime(2024, 1, 3)),
        (datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, 12, tzinfo=UTC)),
    ):
        (batch,) = source.read(stream(Window("at", start, end), table="t"), {"whatever": 1})
        assert batch.data.column("id").to_pylist() == [2]
        assert batch.position is None, "a window neither uses nor moves the position"


def test_a_window_over_something_else_than_time_is_refused(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    server.execute(database, "CREATE TABLE t (id int)")
    with pytest.raises(ConfigurationError, match="id is of type int32"):
        list(source.read(stream(Window("id", datetime(2024, 1, 1), datetime(2024, 1, 2)), table="t"), None))


def test_a_table_that_changes_between_description_and_read_is_an_error(
    server: MysqlServer, source: MysqlSource, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.execute(database, "CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    make_plan = mysql_plan.make_plan

    def change_afterwards(*arguments: Any) -> Any:
        planned = make_plan(*arguments)
        server.execute(database, "ALTER TABLE t MODIFY id text")
        return planned

    monkeypatch.setattr(mysql_plan, "make_plan", change_afterwards)
    with pytest.raises(SchemaConflictError, match="id was described as int32"):
        list(source.read(stream(table="t"), None))


def test_names_that_are_not_there_come_with_the_nearest_that_are(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    server.execute(database, "CREATE TABLE orders (order_id int, amount int)")
    for options, near in (
        ({"table": "order"}, "orders"),
        ({"table": f"{database}.ordres"}, f"{database}.orders"),
        ({"table": "orders", "columns": ["order_idd"]}, "order_id"),
        ({"table": "orders", "parallel": {"column": "amonut", "parts": 2}}, "amount"),
    ):
        with pytest.raises(NotFoundError) as caught:
            list(source.read(stream(**options), None))
        assert near in caught.value.fix
    with pytest.raises(NotFoundError, match="no_such"):
        list(source.read(stream(query="SELECT no_such FROM orders"), None))


def test_a_query_is_read_and_cannot_be_captured_incrementally(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    query = "SELECT 1 AS id, 'a;b' AS name UNION ALL SELECT 2, NULL;"
    assert rows_of(source.read(stream(query=query), None)) == [{"id": 1, "name": "a;b"}, {"id": 2, "name": None}]
    options = MysqlStreamOptions(type="mysql", query=query)
    with pytest.raises(ConfigurationError, match="incrementally"):
        list(source.read(Stream("s", options, Incremental(cursor="id")), None))
    with pytest.raises(ConfigurationError, match="Duplicate column name"):
        source.read_schema(stream(query="SELECT 1 AS id, 2 AS id"))


@pytest.mark.parametrize(
    "options",
    [{}, {"table": "t", "query": "SELECT 1"}, {"table": "t", "colums": ["a"]},
     {"query": "SELECT 1", "parallel": {"column": "table", "parts": 2}}],
)  # fmt: skip
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"table|colums"):
        MysqlStreamOptions(type="mysql", **options)


def test_an_estimate_is_what_the_planner_expects(server: MysqlServer, source: MysqlSource, database: str) -> None:
    server.execute(
        database,
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t SELECT seq FROM seq_1_to_2000",
        "ANALYZE TABLE t",
    )
    found = source.estimate(stream(table="t"), None)
    assert found is not None
    assert 1000 < (found.rows or 0) < 4000
    assert source.ping()
