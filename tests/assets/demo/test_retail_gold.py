"""The SQL of the retail pipeline's gold tables gives the truth, and notices a single lost row."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from etl_assets.demo.retail import generate
from etl_assets.demo.retail.truth import Truth

DEFS = Path(__file__).parents[3] / "etl_assets" / "defs" / "retail"
GOLD = sorted(path.stem for path in DEFS.glob("*.sql"))


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return generate(tmp_path_factory.mktemp("shop"), rows=5_000, seed=1)


def differences(truth: Truth, table: str, lost: str = "") -> tuple[int, int]:
    """Return how many rows only the SQL has, and how many only the truth has; `lost` is a sale to leave out."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA silver")
        for stream in ("customers", "products", "sales"):
            where = f"WHERE transaction_id <> '{lost}'" if stream == "sales" else ""
            connection.execute(f"CREATE VIEW silver.{stream} AS SELECT * FROM '{truth.path('silver', stream)}' {where}")
        connection.execute(f"CREATE TABLE made AS {(DEFS / f'{table}.sql').read_text()}")
        connection.execute(f"CREATE VIEW told AS SELECT * FROM '{truth.path('gold', table)}'")
        columns = [connection.execute(f"DESCRIBE {name}").fetchall() for name in ("made", "told")]
        assert [row[:2] for row in columns[0]] == [row[:2] for row in columns[1]]
        extra = connection.execute("SELECT count(*) FROM (FROM made EXCEPT ALL FROM told)").fetchall()
        missing = connection.execute("SELECT count(*) FROM (FROM told EXCEPT ALL FROM made)").fetchall()
        return extra[0][0], missing[0][0]


def test_the_three_gold_tables_are_there() -> None:
    assert GOLD == ["customer_360", "product_performance", "revenue_by_segment_and_month"]


@pytest.mark.parametrize("table", GOLD)
def test_gold_over_true_silver_is_the_truth_to_the_cent(truth: Truth, table: str) -> None:
    assert differences(truth, table) == (0, 0)


@pytest.mark.parametrize("table", GOLD)
def test_a_single_sale_that_is_lost_shows_in_gold(truth: Truth, table: str) -> None:
    query = f"SELECT transaction_id FROM '{truth.path('silver', 'sales')}' WHERE status = 'completed' LIMIT 1"
    lost = duckdb.sql(query).fetchall()[0][0]
    extra, missing = differences(truth, table, lost)
    assert extra > 0
    assert missing > 0
