"""Reading SQL Server: exact values, one moment, names, options, and what it says when it cannot."""

from __future__ import annotations

import itertools
import json
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from etl_resources.exceptions import ConfigurationError, EngineError, EtlError, NotFoundError
from etl_resources.source import Incremental, Snapshot, Stream, Window
from etl_resources.sources import sqlserver_plan
from etl_resources.sources.sqlserver import SqlServerSource, SqlServerStreamOptions
from etl_resources.sources.sqlserver_columns import Column, _column
from tests.servers.tds import TdsServer, running_tds, shared_tds
from tests.soaking import some

_names = itertools.count(1)
LARGE = "SELECT n AS id, N'some filler that takes room' AS filler FROM dbo.large"


@pytest.fixture
def server() -> TdsServer:
    return shared_tds()


@pytest.fixture
def source(server: TdsServer) -> SqlServerSource:
    return SqlServerSource(**server.settings())


def stream(window: Window | None = None, **options: Any) -> Stream:
    return Stream("s", SqlServerStreamOptions(type="sqlserver", **options), Snapshot(), window)


def table(server: TdsServer, columns: str, *rows: str) -> str:
    name = f"t{next(_names)}"
    server.execute(f"CREATE TABLE dbo.{name} ({columns})", *(f"INSERT INTO dbo.{name} VALUES {row}" for row in rows))
    return name


VALUES = [
    ("tinyint", "255", pa.int16(), 255),
    ("smallint", "-32768", pa.int16(), -32768),
    ("int", "2147483647", pa.int32(), 2147483647),
    ("money", "-922337203685477.5808", pa.decimal128(19, 4), Decimal("-922337203685477.5808")),
    ("decimal(5, 5)", "-0.00012", pa.decimal128(5, 5), Decimal("-0.00012")),
    ("nchar(5)", "N'ab   '", pa.string(), "ab   "),
    ("varchar(20)", "'ü'", pa.string(), "ü"),
    ("nvarchar(max)", "N''", pa.string(), ""),
    ("varbinary(8)", "0x00ff", pa.binary(), b"\x00\xff"),
    ("datetime", "'2024-01-01 23:59:59.997'", pa.timestamp("us"), datetime(2024, 1, 1, 23, 59, 59, 997000)),
    ("datetime2(0)", "'9999-12-31 23:59:59'", pa.timestamp("us"), datetime(9999, 12, 31, 23, 59, 59)),
    ("datetimeoffset(7)", "'2024-07-01 12:00:00+02:00'", pa.timestamp("us", "UTC"),
     datetime(2024, 7, 1, 10, tzinfo=UTC)),
    ("time(0)", "'23:59:59'", pa.string(), "23:59:59"),
    ("time(7)", "'23:59:59.123456'", pa.string(), "23:59:59.1234560"),
    ("date", "'0001-01-01'", pa.date32(), date(1, 1, 1)),
    ("uniqueidentifier", "'6f0e9f0e-0000-4000-8000-00000000000a'", pa.string(),
     "6F0E9F0E-0000-4000-8000-00000000000A"),
]  # fmt: skip


def test_values_arrive_exactly(server: TdsServer, source: SqlServerSource) -> None:
    """One column for each; the server fills the `rowversion`."""
    columns = ", ".join(f"v{n} {type_}" for n, (type_, _, _, _) in enumerate(VALUES))
    name = table(server, f"{columns}, r rowversion")
    names = ", ".join(f"v{n}" for n in range(len(VALUES)))
    server.execute(f"INSERT INTO dbo.{name} ({names}) VALUES ({', '.join(v for _, v, _, _ in VALUES)})")
    (version,) = server.execute(f"SELECT r FROM dbo.{name}")[0]
    (batch,) = source.read(stream(table=name), None)
    assert batch.data.schema.types == [*(arrow for _, _, arrow, _ in VALUES), pa.binary()]
    assert batch.data.schema == source.read_schema(stream(table=name))
    assert list(batch.data.to_pylist()[0].values()) == [*(value for _, _, _, value in VALUES), version]


def test_the_seventh_digit_is_cut_off_and_not_rounded() -> None:
    """Also before 1970, where cutting off goes towards the past; times, which are text, keep it."""
    with running_tds(last_digit=9) as server:
        server.execute("CREATE TABLE dbo.t (a datetime2(7), b datetimeoffset(7), c time(7))")
        server.execute(
            "INSERT INTO dbo.t VALUES ('9999-12-31 23:59:59.999999', '1960-01-01 00:00:00.999998', '23:59:59')"
        )
        (batch,) = SqlServerSource(**server.settings()).read(stream(table="t"), None)
    assert batch.data.to_pylist() == [
        {"a": datetime(9999, 12, 31, 23, 59, 59, 999999), "b": datetime(1960, 1, 1, 0, 0, 0, 999998, UTC),
         "c": "23:59:59.0000009"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "select", "arrow"),
    [
        ("xml", "CAST(t.[c] AS nvarchar(max))", pa.string()),
        ("text", "CAST(t.[c] AS varchar(max))", pa.string()),
        ("image", "CAST(t.[c] AS varbinary(max))", pa.binary()),
        ("sql_variant", "CAST(t.[c] AS nvarchar(4000))", pa.string()),
        ("geography", "t.[c].ToString()", pa.string()),
        ("smallmoney", "t.[c]", pa.decimal128(10, 4)),
        ("smalldatetime", "t.[c]", pa.timestamp("us")),
        ("real", "t.[c]", pa.float32()),
    ],
)
def test_types_that_the_test_server_does_not_have_are_selected_like_this(
    declared: str, select: str, arrow: Any
) -> None:
    assert _column("c", declared) == Column("c", declared, select, arrow)


def test_what_is_no_valid_text_is_set_apart_and_the_rest_is_read(server: TdsServer, source: SqlServerSource) -> None:
    """Half a surrogate pair fits into nvarchar; the driver would make U+FFFD of it without a word."""
    name = table(server, "id int, a nvarchar(20), b nvarchar(max)", "(1, N'x', N'😀')", "(2, N'y\ue000', NULL)")
    (batch,) = source.read(stream(table=name), None)
    assert batch.data.to_pylist() == [{"id": 1, "a": "x", "b": "😀"}]
    assert batch.rows_read == 2
    assert batch.unreadable is not None
    (row,) = batch.unreadable.to_pylist()
    assert row["reason"].startswith("a: ")
    assert json.loads(row["raw"]) == {"id": 2, "a": "y\ufffd", "b": None}
    (kept,) = source.read(stream(table=name, replaced_text="keep"), None)
    assert kept.data.column("a").to_pylist() == ["x", "y\ufffd"]
    assert kept.unreadable is None


def test_names_that_need_quotes_are_quoted(server: TdsServer, source: SqlServerSource) -> None:
    server.execute("CREATE SCHEMA [O'Hara]", "CREATE TABLE [O'Hara].[a.b]]c] ([x y] int, [from] nvarchar(20))")
    server.execute("INSERT INTO [O'Hara].[a.b]]c] VALUES (1, N'it''s')")
    (batch,) = source.read(stream(table="O'Hara.[a.b]]c]", columns=["from", "x y"]), None)
    assert batch.data.to_pylist() == [{"from": "it's", "x y": 1}]
    with pytest.raises(ConfigurationError, match="names no table"):
        source.read_schema(stream(table="a.b.c"))


def test_upper_and_lower_case_of_a_table_do_not_matter(server: TdsServer, source: SqlServerSource) -> None:
    name = table(server, "id int", "(1)")
    (batch,) = source.read(stream(table=f"DBO.{name.upper()}"), None)
    assert batch.data.num_rows == 1


def test_a_query_is_read_as_it_stands_or_as_a_subquery(server: TdsServer, source: SqlServerSource) -> None:
    name = table(server, "id int, name nvarchar(20)", "(1, N'a')", "(2, N'b')")
    query = f"SELECT id * 2 AS twice, name FROM dbo.{name} WHERE name <> 'a';"
    (whole,) = source.read(stream(query=query), None)
    (part,) = source.read(stream(query=query, columns=["name"]), None)
    assert whole.data.to_pylist() == [{"twice": 4, "name": "b"}]
    assert part.data.to_pylist() == [{"name": "b"}]
    with_query = f"WITH x AS (SELECT id FROM dbo.{name}) SELECT id FROM x"
    (batch,) = source.read(stream(query=with_query), None)
    assert batch.data.num_rows == 2
    with pytest.raises(ConfigurationError, match="WITH"):
        list(source.read(stream(query=with_query, columns=["id"]), None))


@pytest.mark.parametrize(
    ("query", "error", "match"),
    [
        ("SELECT no_such FROM dbo.{}", NotFoundError, "no_such"),
        ("SELECT id FROM dbo.no_such", NotFoundError, "no_such"),
        ("SELECT id, id FROM dbo.{}", ConfigurationError, "more than one column id"),
        ("SELECT id + 1 FROM dbo.{}", ConfigurationError, "without a name"),
        ("SELECT id FROM dbo.{} WHERE (", EngineError, "syntax"),
    ],
)
def test_a_query_that_cannot_be_read_is_refused_before_it_runs(
    server: TdsServer, source: SqlServerSource, query: str, error: type[EtlError], match: str
) -> None:
    name = table(server, "id int")
    with pytest.raises(error, match=match):
        source.read_schema(stream(query=query.format(name)))


def test_names_that_are_not_there_come_with_the_nearest_that_are(server: TdsServer, source: SqlServerSource) -> None:
    server.execute("CREATE TABLE dbo.orders (order_id int, amount int)")
    for options, near in (
        ({"table": "order"}, "orders"),
        ({"table": "dbo.ordres"}, "dbo.orders"),
        ({"table": "orders", "columns": ["order_idd"]}, "order_id"),
        ({"table": "orders", "parallel": 2, "split_by": "orderid"}, "order_id"),
    ):
        with pytest.raises(NotFoundError) as caught:
            list(source.read(stream(**options), None))
        assert near in caught.value.fix


@pytest.mark.parametrize("type_", some(["datetime2(7)", "datetimeoffset(3)", "datetime", "date"], 2))
def test_a_window_is_half_open_and_in_utc(server: TdsServer, source: SqlServerSource, type_: str) -> None:
    name = table(
        server, f"id int, at {type_}", "(1, '2024-01-01')", "(2, '2024-01-02')", "(3, '2024-01-03')", "(4, NULL)"
    )
    for start, end in (
        (datetime(2024, 1, 2), datetime(2024, 1, 3)),
        (datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, 12, tzinfo=UTC)),
    ):
        window = Window("at", start, end)
        how = Stream("s", stream(table=name).options, Incremental(cursor="at"), window)
        for each in (stream(window, table=name), how):
            (batch,) = source.read(each, {"whatever": 1})
            assert batch.data.column("id").to_pylist() == [2]
            assert batch.position is None, "a window neither uses nor moves the position"
    with pytest.raises(ConfigurationError, match="id is of type int"):
        list(source.read(stream(Window("id", start, end), table=name), None))


def test_a_read_sees_one_moment(server: TdsServer, source: SqlServerSource) -> None:
    """Rows that come and go while the table is read are neither missed nor doubled."""
    rows = 40_000
    name = table(server, "id int, filler nvarchar(200)")
    server.load(f"dbo.{name}", pa.table({"id": pa.array(range(rows), pa.int32()), "filler": ["x" * 200] * rows}))
    batches = source.read(stream(table=name, read_ahead=0), None, batch_rows=1000)
    seen = next(iter(batches)).data.column("id").to_pylist()
    server.execute(f"DELETE FROM dbo.{name} WHERE id % 2 = 0", f"INSERT INTO dbo.{name} VALUES (-1, N'new')")
    for batch in batches:
        seen += batch.data.column("id").to_pylist()
    assert sorted(seen) == list(range(rows))


def test_a_database_without_snapshots_is_read_and_the_risk_is_said(
    server: TdsServer, source: SqlServerSource, caplog: pytest.LogCaptureFixture
) -> None:
    name = table(server, "id int", "(1)")
    setting = "UPDATE sys.databases SET snapshot_isolation_state = {}, is_read_committed_snapshot_on = {}"
    try:
        # Where one statement sees one moment by itself, there is nothing to be said.
        for allowed, by_statement, said in ((1, 0, False), (0, 0, True), (0, 1, False)):
            server.execute(setting.format(allowed, by_statement))
            caplog.clear()
            assert [b.data.num_rows for b in source.read(stream(table=name), None)] == [1]
            assert ("does not allow SNAPSHOT isolation" in caplog.text) == said
    finally:
        server.execute(setting.format(1, 0))


def test_an_empty_snapshot_says_that_it_is_empty(server: TdsServer, source: SqlServerSource) -> None:
    (batch,) = source.read(stream(table=table(server, "id int")), None)
    assert (batch.data.num_rows, batch.data.schema.names) == (0, ["id"])
    assert batch.position is not None


def test_a_table_that_changes_between_description_and_read_is_an_error(
    server: TdsServer, source: SqlServerSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = table(server, "id int", "(1)")
    make_plan = sqlserver_plan.make_plan

    def change_afterwards(*args: Any) -> Any:
        planned = make_plan(*args)
        server.execute(f"DROP TABLE dbo.{name}", f"CREATE TABLE dbo.{name} (id nvarchar(20))")
        server.execute(f"INSERT INTO dbo.{name} VALUES (N'x')")
        return planned

    monkeypatch.setattr(sqlserver_plan, "make_plan", change_afterwards)
    with pytest.raises(EtlError, match="id was described as int32 and came as"):
        list(source.read(stream(table=name), None))


def test_an_error_of_the_query_half_way_is_an_error(server: TdsServer, source: SqlServerSource) -> None:
    name = table(server, "n bigint, s nvarchar(20)")
    data = pa.table({"n": pa.array(range(40_000)), "s": ["1"] * 39_999 + ["no number"]})
    server.load(f"dbo.{name}", data)
    with pytest.raises(EngineError, match="Conversion failed"):
        list(source.read(stream(query=f"SELECT CAST(s AS int) AS v FROM dbo.{name}"), None))


def test_a_reader_that_stops_early_leaves_no_thread(server: TdsServer, source: SqlServerSource) -> None:
    name = table(server, "id bigint")
    server.load(f"dbo.{name}", pa.table({"id": pa.array(range(100_000))}))
    for options in ({}, {"parallel": 3, "split_by": "id"}):
        batches: Any = source.read(stream(table=name, **options), None, batch_rows=1000)
        next(batches)
        batches.close()
        assert not [t for t in threading.enumerate() if t.name.startswith(("etl-read-ahead", "etl-sqlserver"))]


@pytest.mark.parametrize(
    "options",
    [{}, {"table": "t", "query": "SELECT 1"}, {"table": "t", "colums": ["a"]}, {"table": "t", "parallel": 2},
     {"table": "t", "split_by": "id"}],
)  # fmt: skip
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"table|colums|split_by"):
        SqlServerStreamOptions(type="sqlserver", **options)
