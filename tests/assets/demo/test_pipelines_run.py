"""The demo pipelines run over their files, and every record meets the fate that is known of it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from etl_assets.demo import flights
from etl_assets.demo.retail import generate
from etl_assets.demo.retail.truth import Truth
from tests.assets.demo.running import Ran, run

DEFS = Path(__file__).parents[3] / "etl_assets" / "defs"
STREAMS = ("customers", "products", "sales")
GOLD = ("customer_360", "product_performance", "revenue_by_segment_and_month")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Truth, Ran]:
    folder = tmp_path_factory.mktemp("shop")
    truth = generate(folder / "data", rows=3_000, seed=11)
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


@pytest.mark.slow
def test_the_flights_are_all_there_and_four_impossible_records_are_not(tmp_path: Path) -> None:
    flights.prepare(tmp_path / "data")
    ran = run(DEFS / "flights", tmp_path / "data", tmp_path / "lake")
    assert {stream: ran.fates(stream) for stream in ran.silver} == {
        "airlines": {"kept": 16},
        "airports": {"kept": 1_455, "rejected:in_the_united_states": 3},
        "planes": {"kept": 3_322},
        "weather": {"kept": 26_114, "rejected:range.wind_speed": 1},
        "flights": {"kept": 336_776},
    }
    assert ran.warnings["flights"] == {"foreign_key.dest": 7_602, "foreign_key.tailnum": 50_094}
    with ran.tables() as (session, relation):
        worst = f"SELECT origin, dest, mean_arrival_delay FROM {relation('gold', 'worst_routes')} WHERE rank = 1"
        assert session.execute(worst) == [("EWR", "TYS", 41.2)]
        assert session.execute(f"SELECT sum(flights) FROM {relation('gold', 'on_time_performance')}") == [(336_776,)]
