"""Reading Redshift over the wire: exact values, increments without gaps, and names that are not there."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl_assets.bronze import Bronze
from etl_resources.exceptions import ConfigurationError, EngineError, NotFoundError, UnavailableError
from etl_resources.lake import Lake
from etl_resources.redshift_sql import literal, quote
from etl_resources.source import Batch, Incremental, Position, Stream, Window
from etl_resources.sources.redshift import RedshiftSource, RedshiftStreamOptions
from tests.assets.doubles import new_run
from tests.servers.proxy import wire_to
from tests.servers.redshift import Redshift, shared_redshift
from tests.soaking import some

QUICK = {"attempts": 2, "first_wait": 0.01, "longest_wait": 0.05}


@pytest.fixture
def server() -> Redshift:
    return shared_redshift()


@pytest.fixture(scope="module")
def database() -> str:
    return shared_redshift().database()


def source(database: str, **settings: Any) -> RedshiftSource:
    return RedshiftSource(**shared_redshift().settings(database, **{"resilience": QUICK, **settings}))


def stream(window: Window | None = None, cursor: str | None = None, **options: Any) -> Stream:
    capture = Incremental(cursor=cursor) if cursor else None
    return Stream("s", RedshiftStreamOptions(**options), capture, window)


def read(database: str, wanted: Stream, since: Position | None = None, **options: Any) -> list[Batch]:
    return list(source(database).read(wanted, since, **options))


def ids(batches: list[Batch]) -> list[int]:
    return sorted(int(i) for b in batches for i in b.data.column("id").to_pylist())


VALUES = [
    ("0.1::float8 + 0.2::float8", pa.float64(), 0.1 + 0.2),
    ("(16777217::real / 3)::real", pa.float32(), 5592405.5),
    ("1e-45::real", pa.float32(), 1.401298464324817e-45),
    ("'NaN'::float8", pa.float64(), float("nan")),
    ("'-Infinity'::float8", pa.float64(), float("-inf")),
    ("1234567890.12::numeric(12, 2)", pa.decimal128(12, 2), Decimal("1234567890.12")),
    ("1::numeric(38, 37) / 3", pa.string(), None),
    ("32767::smallint", pa.int16(), 32767),
    ("'9999-12-31 23:59:59.999999'::timestamp", pa.timestamp("us"), datetime(9999, 12, 31, 23, 59, 59, 999999)),
    ("'0001-01-01'::date", pa.date32(), date(1, 1, 1)),
    ("'2024-07-01 12:00:00+02'::timestamptz", pa.timestamp("us", "UTC"), datetime(2024, 7, 1, 10, tzinfo=UTC)),
    ("'12:30:00.000001'::time", pa.string(), "12:30:00.000001"),
    ("'{\"b\": [1.5, null]}'::json", pa.string(), '{"b": [1.5, null]}'),
    ("decode('00ff', 'hex')", pa.binary(), b"\x00\xff"),
    ("decode('', 'hex')", pa.binary(), b""),
    ("NULL::bytea", pa.binary(), None),
    ("'a'::char(3)", pa.string(), "a  "),
    ("NULL::boolean", pa.bool_(), None),
]  # fmt: skip


@pytest.mark.parametrize("unload", [None, {"to": "s3://lake/values"}])
def test_values_arrive_exactly(database: str, unload: dict[str, str] | None) -> None:
    query = "SELECT " + ", ".join(f"{expression} AS v{n}" for n, (expression, _, _) in enumerate(VALUES))
    (batch,) = read(database, stream(query=query, unload=unload))
    assert batch.data.schema.types == [type_ for _, type_, _ in VALUES]
    for (expression, _, expected), got in zip(VALUES, batch.data.to_pylist()[0].values(), strict=True):
        if expected is not None or "NULL" in expression:
            assert (type(got), str(got)) == (type(expected), str(expected)), expression


@pytest.mark.parametrize("unload", [None, {"to": "s3://lake/odd"}])
def test_what_no_column_of_a_lake_can_hold_is_set_apart(
    server: Redshift, database: str, unload: dict[str, str] | None
) -> None:
    server.execute(database, "DROP TABLE IF EXISTS odd", "CREATE TABLE odd (id int, day date, moment timestamp)")
    server.execute(
        database, "INSERT INTO odd VALUES (1, '2024-01-01', '2024-01-01'), (2, '0044-03-15 BC', '2024-01-01'),"
        " (3, '2024-01-01', '10000-01-01'), (4, NULL, NULL)",
    )  # fmt: skip
    batches = read(database, stream(table="odd", unload=unload))
    assert (ids(batches), batches[-1].rows_read) == ([1, 4], 4)
    odd = {r["raw"]: r["reason"] for b in batches if b.unreadable for r in b.unreadable.to_pylist()}
    (second,) = [reason for raw, reason in odd.items() if b'"id": 2' in raw]
    (third,) = [reason for raw, reason in odd.items() if b'"id": 3' in raw]
    assert ("0044-03-15 BC" in second, "10000-01-01" in third) == (True, True)


def test_names_that_need_quotes_are_quoted(server: Redshift, database: str) -> None:
    server.execute(database, 'CREATE TABLE "a.b ""{c}" ("x y" int, "from" text)')
    server.execute(database, """INSERT INTO "a.b ""{c}" VALUES (1, 'it''s \\ back')""")
    for unload in (None, {"to": "s3://lake/names"}):
        wanted = stream(table='public."a.b ""{c}"', columns=["FROM", "x y"], unload=unload)
        assert read(database, wanted)[0].data.to_pylist() == [{"from": "it's \\ back", "x y": 1}]


def test_a_literal_ends_where_it_ends() -> None:
    assert literal("it's \\' OR 1=1") == "'it''s \\\\'' OR 1=1'"
    assert quote("s", 'a"b') == '"s"."a""b"'


def test_an_empty_snapshot_says_that_it_is_empty(server: Redshift, database: str) -> None:
    server.execute(database, "CREATE TABLE nothing (id int)")
    for unload in (None, {"to": "s3://lake/nothing"}):
        (batch,) = read(database, stream(table="nothing", unload=unload))
        assert (batch.data.num_rows, batch.data.schema.names) == (0, ["id"])
        assert batch.position is not None
        assert read(database, stream(table="nothing", cursor="id", late_by=0, unload=unload)) == []


@pytest.mark.parametrize("type_", some(["timestamptz", "date", "timestamp"], 2))
def test_a_window_is_half_open_and_in_utc(server: Redshift, database: str, type_: str) -> None:
    server.execute(
        database, "DROP TABLE IF EXISTS days", f"CREATE TABLE days (id int, moment {type_})", "SET timezone TO 'UTC'",
        "INSERT INTO days VALUES (1, '2024-01-01'), (2, '2024-01-02'), (3, '2024-01-03'), (4, NULL)",
    )  # fmt: skip
    for start, end in (
        (datetime(2024, 1, 2), datetime(2024, 1, 3)),
        (datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, 12, tzinfo=UTC)),
    ):
        (batch,) = read(database, stream(Window("moment", start, end), table="days"), {"whatever": 1})
        assert batch.data.column("id").to_pylist() == [2]
        assert batch.position is None


@pytest.mark.parametrize("type_", ["timestamptz", "timestamp"])
def test_rows_that_are_young_wait_so_that_one_committed_late_is_not_lost(
    server: Redshift, database: str, type_: str
) -> None:
    """A transaction writes its row first, and commits when the next one has been written and read."""
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    ago = {seconds: f"'{now - timedelta(seconds=seconds)}+00'" for seconds in (9000, 60, 30, -3600)}
    server.execute(database, "DROP TABLE IF EXISTS late", f"CREATE TABLE late (id int, moment {type_})")
    with server.connect(database) as slow, slow.transaction():
        slow.execute(f"INSERT INTO late VALUES (4, {ago[60]})")
        server.execute(database, f"INSERT INTO late VALUES (1, {ago[9000]}), (2, {ago[30]}), (3, {ago[-3600]})")
        wanted = stream(table="late", cursor="moment", late_by=600)
        first = read(database, wanted)
        assert ids(first) == [1], "the others may be overtaken"
    hasty = stream(table="late", cursor="moment", late_by=0)
    second = read(database, hasty, first[-1].position)
    assert ids(second) == [2, 4], "and never one from the future"
    assert read(database, hasty, second[-1].position) == []
    assert source(database).latest(hasty) != first[-1].position


def test_rows_of_the_last_microsecond_are_read_once(server: Redshift, database: str) -> None:
    server.execute(
        database, "CREATE TABLE ties (id int, moment timestamp)",
        "INSERT INTO ties VALUES (1, '2024-01-01 00:00:00.123456'), (2, '2024-01-01 00:00:00.123456')",
    )  # fmt: skip
    wanted = stream(table="ties", cursor="MOMENT", late_by=1)
    first = read(database, wanted)
    assert ids(first) == [1, 2]
    assert source(database).estimate(wanted, first[-1].position).rows == 0
    server.execute(database, "INSERT INTO ties VALUES (3, '2024-01-01 00:00:00.123457')")
    assert ids(read(database, wanted, first[-1].position)) == [3]
    assert (source(database).estimate(wanted, first[-1].position).rows or 0) > 0


def test_what_an_increment_cannot_promise_it_refuses(server: Redshift, database: str) -> None:
    server.execute(
        database, "CREATE TABLE refused (id int, name text, moment timestamp)",
        "INSERT INTO refused VALUES (1, 'a', '2024-01-01'), (2, 'b', NULL)",
    )  # fmt: skip
    for options, said in (
        ({"cursor": "moment"}, "how late a row may be committed"),
        ({"cursor": "moment", "late_by": 1}, "empty in 1 rows"),
        ({"cursor": "name", "late_by": 1}, "name is of type text"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            read(database, stream(table="refused", **options))
    position = read(database, stream(table="refused", cursor="id", late_by=0))[-1].position
    with pytest.raises(ConfigurationError, match="the last read was by id"):
        read(database, stream(query="SELECT id, current_date AS d FROM refused", cursor="d", late_by=0), position)


def test_names_that_are_not_there_come_with_the_nearest_that_are(server: Redshift, database: str) -> None:
    server.execute(database, "CREATE TABLE orders (order_id int, amount int)")
    for options, near in (
        ({"table": "ordes"}, "orders"),
        ({"table": "public.ordres"}, "public.orders"),
        ({"table": "orders", "columns": ["order_idd"]}, "order_id"),
    ):
        with pytest.raises(NotFoundError) as caught:
            read(database, stream(**options))
        assert near in caught.value.fix
    with pytest.raises(NotFoundError, match="no_such"):
        read(database, stream(query="SELECT no_such FROM orders"))


def test_a_query_that_cannot_be_run_is_no_outage(database: str) -> None:
    with pytest.raises(EngineError):
        read(database, stream(query="SELEC 1"))
    with pytest.raises(ConfigurationError, match="more than one column a"):
        read(database, stream(query="SELECT 1 AS a, 2 AS a"))


def test_two_runs_with_an_outage_between_hold_every_row_once(server: Redshift, database: str, tmp_path: Path) -> None:
    server.execute(
        database, "CREATE TABLE landed AS SELECT g AS id, md5(g::text) AS filler FROM generate_series(1, 60000) g"
    )
    bronze = Bronze(Lake(uri=str(tmp_path)), "test", stream(table="landed", cursor="id", late_by=0))
    with wire_to(server.port, cut_after=1_500_000) as wire, pytest.raises(UnavailableError):
        bronze.land(source(database, port=wire.port), new_run())
    bronze.land(source(database), new_run())
    server.execute(database, "INSERT INTO landed VALUES (60001, 'later')")
    bronze.land(source(database), new_run())
    handle = bronze.table.open()
    assert handle is not None
    found = handle.delta.to_pyarrow_table(columns=["id"]).column("id").to_pylist()
    assert sorted(found) == list(range(1, 60_002))


@pytest.mark.parametrize(
    "options", [{}, {"table": "t", "query": "SELECT 1"}, {"table": "t", "colums": ["a"]},
                {"table": "t", "unload": {"to": "/tmp/here"}}, {"table": "t", "unload": {"to": "s3://b/*"}}],
)  # fmt: skip
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"table|colums|unload"):
        RedshiftStreamOptions(**options)
