"""The demo pipelines run over their files, and every record meets the fate that is known of it."""

from __future__ import annotations

import csv
import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from adbc_driver_postgresql import dbapi

from etl_assets.demo import flights
from etl_assets.demo.retail import generate
from etl_assets.demo.retail.truth import Truth
from etl_resources.source import Incremental, Stream
from etl_resources.sources.file import SOURCE
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from tests.assets.demo.running import Ran, run
from tests.servers.postgres import PostgresServer

DEFS = Path(__file__).parents[3] / "etl_assets" / "defs"
STREAMS = ("customers", "products", "sales")
OTHERS = {
    "airlines": {"kept": 16},
    "airports": {"kept": 1_455, "rejected:in_the_united_states": 3},
    "planes": {"kept": 3_322},
    "weather": {"kept": 26_114, "rejected:range.wind_speed": 1},
}
"""What becomes of the tables beside the flights."""
GOLD = ("customer_360", "product_performance", "revenue_by_segment_and_month")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Truth, Ran]:
    folder = tmp_path_factory.mktemp("shop")
    truth = generate(folder / "data", rows=1_000, seed=11)
    return truth, run(DEFS / "retail", folder / "data", folder / "lake")


@pytest.mark.parametrize("stream", STREAMS)
def test_the_accounts_of_the_shop_are_the_truth(shop: tuple[Truth, Ran], stream: str) -> None:
    truth, ran = shop
    assert ran.fates(stream) == truth.fates[stream]
    assert ran.unlisted[stream] == (), "everything that arrives is in silver"


@pytest.mark.parametrize(("layer", "table"), [("silver", name) for name in STREAMS] + [("gold", name) for name in GOLD])
def test_every_value_of_the_shop_is_the_truth(shop: tuple[Truth, Ran], layer: str, table: str) -> None:
    truth, ran = shop
    told = f"'{truth.path(layer, table)}'"
    columns = ", ".join(f'"{name}"' for name in pq.read_schema(truth.path(layer, table)).names)
    with ran.tables() as (session, relation):
        made = f"(SELECT {columns} FROM {relation(layer, table)})"
        assert session.execute(f"SELECT count(*) FROM {made}")[0][0] > 0
        assert session.execute(f"FROM {made} EXCEPT ALL FROM {told}") == []
        assert session.execute(f"FROM {told} EXCEPT ALL FROM {made}") == []


@pytest.mark.parametrize("stream", ["customers", "sales"])
def test_unreadable_lines_are_kept_with_their_number(shop: tuple[Truth, Ran], stream: str) -> None:
    truth, ran = shop
    told = f"SELECT line FROM '{truth.path('fates', stream)}' WHERE fate = 'unreadable' ORDER BY line"
    with ran.tables() as (session, relation):
        found = session.execute(
            f"SELECT line FROM {relation('ops', 'errors')} WHERE asset = 'bronze/retail/{stream}' ORDER BY line"
        )
        assert found == session.execute(told)
        assert found


def sales_table(database: str, server: PostgresServer, data: Path) -> None:
    """Load what a reader can read of `sales.csv` into a table of text columns."""
    files = SOURCE().read(Stream("sales", SOURCE.options_type(path=str(data / "sales.csv"))), None)
    records = pa.Table.from_batches([batch.data for batch in files]).drop_columns(["_origin"])
    address = f"postgresql://postgres@127.0.0.1:{server.port}/{database}?sslmode=disable"
    with dbapi.connect(address, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("sales", records)


def sales_of_the_page() -> Stream:
    """Return the stream that docs/demo.md shows."""
    page = (DEFS.parents[1] / "docs" / "demo.md").read_text("utf-8")
    written = yaml.safe_load(page.split("### Sales from Postgres")[1].split("```yaml\n")[1].split("```")[0])["sales"]
    return Stream("sales", PostgresStreamOptions(**written["source"]), Incremental(**written["capture"]["incremental"]))


def test_the_sales_of_the_page_follow_a_column_that_sales_have(shop: tuple[Truth, Ran]) -> None:
    truth, _ = shop
    capture = sales_of_the_page().capture
    assert isinstance(capture, Incremental)
    assert capture.cursor in (truth.directory.parent / "sales.csv").read_text("utf-8").partition("\n")[0].split(",")


@pytest.mark.soak
def test_the_sales_may_come_from_postgres(
    shop: tuple[Truth, Ran], postgres_server: PostgresServer, postgres_database: str, tmp_path: Path
) -> None:
    """As docs/demo.md has it: another source, and the same truth, but for lines that no database takes."""
    truth, from_files = shop
    data = truth.directory.parent
    sales_table(postgres_database, postgres_server, data)
    # The other tables are there already.
    lake = Path(shutil.copytree(from_files.lake.uri, tmp_path / "lake"))
    for folder in ("bronze/retail/sales", "silver/retail/sales", "gold"):
        shutil.rmtree(lake / folder)
    stream = sales_of_the_page()
    source = PostgresSource(**postgres_server.settings(postgres_database))
    ran = run(DEFS / "retail", data, lake, {"sales": (source, stream)}, only={"sales"})
    told = {fate: rows for fate, rows in truth.fates["sales"].items() if fate != "unreadable"}
    assert ran.fates("sales") == told
    with ran.tables() as (session, relation):
        for table in GOLD:
            path = truth.path("gold", table)
            columns = ", ".join(f'"{name}"' for name in pq.read_schema(path).names)
            made = f"(SELECT {columns} FROM {relation('gold', table)})"
            assert session.execute(f"FROM {made} EXCEPT ALL FROM '{path}'") == []
            assert session.execute(f"FROM '{path}' EXCEPT ALL FROM {made}") == []


def flown(data: Path, rows: int) -> dict[str, int]:
    """Leave only the first flights, and return how many of them have an airport or aircraft that is not listed."""
    path = data / "flights.csv.zip"
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("flights.csv").decode().splitlines(keepends=True)[: rows + 1]
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flights.csv", "".join(lines))

    def listed(table: str, key: str) -> set[str]:
        with (data / f"{table}.csv").open(encoding="utf-8", newline="") as file:
            return {row[key] for row in csv.DictReader(file) if not -60 <= float(row.get("lon", -75)) <= 170}

    flights, airports, planes = (
        list(csv.DictReader(lines)),
        listed("airports", "faa"),
        {"NA", *listed("planes", "tailnum")},
    )
    assert len(flights) == rows
    return {
        "foreign_key.dest": sum(row["dest"] not in airports for row in flights),
        "foreign_key.tailnum": sum(row["tailnum"] not in planes for row in flights),
    }


def test_flights_are_all_there_and_four_impossible_records_are_not(tmp_path: Path) -> None:
    flights.prepare(tmp_path / "data")
    odd = flown(tmp_path / "data", 5_000)
    ran = run(DEFS / "flights", tmp_path / "data", tmp_path / "lake")
    assert {stream: ran.fates(stream) for stream in ran.silver} == {**OTHERS, "flights": {"kept": 5_000}}
    assert ran.warnings["flights"] == odd
    with ran.tables() as (session, relation):
        assert session.execute(f"SELECT sum(flights) FROM {relation('gold', 'on_time_performance')}") == [(5_000,)]


@pytest.mark.soak
def test_the_flights_of_the_year_are_all_there_and_four_impossible_records_are_not(tmp_path: Path) -> None:
    flights.prepare(tmp_path / "data")
    ran = run(DEFS / "flights", tmp_path / "data", tmp_path / "lake")
    assert {stream: ran.fates(stream) for stream in ran.silver} == {**OTHERS, "flights": {"kept": 336_776}}
    assert ran.warnings["flights"] == {"foreign_key.dest": 7_602, "foreign_key.tailnum": 50_094}
    with ran.tables() as (session, relation):
        worst = f"SELECT origin, dest, mean_arrival_delay FROM {relation('gold', 'worst_routes')} WHERE rank = 1"
        assert session.execute(worst) == [("EWR", "TYS", 41.2)]
        assert session.execute(f"SELECT sum(flights) FROM {relation('gold', 'on_time_performance')}") == [(336_776,)]
