"""`etl query`: tables of a pipeline by SQL, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.assets.cli.conftest import Shop

COUNT = "SELECT (SELECT count(*) FROM silver.orders) AS silver, (SELECT count(*) FROM bronze.orders) AS bronze"


def test_a_query_reads_all_layers(orders: Shop) -> None:
    (row,) = orders.etl("query", "orders", COUNT, "--json").data
    assert 0 < row["silver"] < row["bronze"]
    gold = orders.etl("query", "orders", "SELECT * FROM gold.revenue ORDER BY 1 -- all of it", "--json")
    assert gold.code == 0
    assert len(gold.data) > 0


def test_rows_beyond_the_limit_are_announced_and_not_shown(orders: Shop) -> None:
    ended = orders.etl("query", "orders", "SELECT * FROM bronze.orders", "--limit", "2")
    assert ended.code == 0
    assert "2 rows" in ended.out
    assert "There are more rows" in ended.err
    (row,) = orders.etl("query", "orders", COUNT, "--json").data
    whole = orders.etl("query", "orders", "SELECT * FROM bronze.orders", "--limit", "0", "--json")
    assert len(whole.data) == row["bronze"]
    assert whole.err == ""
    exact = orders.etl("query", "orders", "SELECT * FROM bronze.orders LIMIT 2", "--limit", "2")
    assert exact.err == ""


def test_long_text_fits_the_terminal(orders: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = orders.etl("query", "orders", "SELECT repeat('x', 500) AS long, * FROM silver.orders")
    assert ended.code == 0
    assert max(map(len, ended.out.splitlines())) <= 80


def test_columns_of_one_name_are_both_shown(orders: Shop) -> None:
    shown = orders.etl("query", "orders", "SELECT 1 AS a, 2 AS a FROM silver.orders LIMIT 1").out
    assert ["1", "2"] in [line.split() for line in shown.splitlines()]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM silver.orders", "one SELECT"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("COPY (SELECT 1) TO '/tmp/never.csv'", "one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "no table of the lake"),
        ("SELECT * FROM '/etc/passwd'", "no table of the lake"),
        ("SELECT * FROM silver.ordes", "silver.orders"),
        ("SELECT nothing FROM silver.orders", "nothing"),
        ("SELEC", ""),
    ],
)
def test_what_is_no_query_of_the_tables_is_refused(orders: Shop, sql: str, said: str) -> None:
    ended = orders.etl("query", "orders", sql)
    assert ended.code == 1
    assert ended.out == ""
    assert said in ended.err


def test_an_unknown_pipeline_is_wrong_usage(orders: Shop) -> None:
    assert orders.etl("query", "ordres", "SELECT 1").code == 2


def test_live_shows_what_is_pending(copied: Callable[[Path], Shop], tmp_path: Path) -> None:
    shop = copied(tmp_path)
    data = shop.root / "data" / "orders" / "orders.csv"
    data.write_text(data.read_text() + "10,Rosa,2024-01-10,1,5.00,open\n")
    assert shop.etl("run", "orders", "--select", "bronze").code == 0
    (before,) = shop.etl("query", "orders", COUNT, "--json").data
    (live,) = shop.etl("query", "orders", COUNT, "--live", "--json").data
    assert live["silver"] == before["silver"] + 1
    assert live["bronze"] == before["bronze"]
