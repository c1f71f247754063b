"""The retail generator: repeatable, and its truth is what a careful reader of its files would find."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl_assets.demo.retail import generate
from etl_assets.demo.retail.truth import Truth
from etl_resources.exceptions import ConfigurationError
from tests.assets.demo import reading

ROWS, SEED = 4_000, 20
FILES = ("customers.csv", "products.json", "sales.csv")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    folder = tmp_path_factory.mktemp("shop")
    return folder, generate(folder, rows=ROWS, seed=SEED)


def test_the_same_seed_gives_the_same_bytes_and_the_same_truth(shop: tuple[Path, Truth], tmp_path: Path) -> None:
    folder, truth = shop
    again = generate(tmp_path, rows=ROWS, seed=SEED)
    assert (again.fates, again.warnings) == (truth.fates, truth.warnings)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    written = sorted(path.relative_to(truth.directory) for path in truth.directory.rglob("*.parquet"))
    assert len(written) == 9
    for path in written:
        assert pq.read_table(again.directory / path).equals(pq.read_table(truth.directory / path)), path


def test_another_seed_gives_other_data(shop: tuple[Path, Truth], tmp_path: Path) -> None:
    folder, _ = shop
    generate(tmp_path, rows=ROWS, seed=SEED + 1)
    for name in FILES:
        assert (tmp_path / name).read_bytes() != (folder / name).read_bytes()


@pytest.mark.parametrize("rows", [-1, 0, 999, 20_000_000])
def test_a_number_of_rows_that_cannot_be_made_is_refused(rows: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="1,000 to 19,000,000"):
        generate(tmp_path / "shop", rows=rows, seed=1)
    assert not (tmp_path / "shop").exists()


def test_without_numpy_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"etl-platform\[demo\]"):
        generate(tmp_path / "shop", rows=ROWS, seed=1)
    assert not (tmp_path / "shop").exists()


@pytest.mark.parametrize("stream", ["customers", "products", "sales"])
def test_every_record_of_a_file_has_one_fate(shop: tuple[Path, Truth], stream: str) -> None:
    _, truth = shop
    fates = pq.read_table(truth.path("fates", stream))
    assert fates["record"].to_pylist() == list(range(1, fates.num_rows + 1))
    assert Counter(fates["fate"].to_pylist()) == truth.fates[stream]
    kept = fates.filter(pa.compute.equal(fates["fate"], "kept"))
    silver = pq.read_table(truth.path("silver", stream))
    assert kept["key"].to_pylist() == silver.column(0).to_pylist()
    assert len(set(kept["key"].to_pylist())) == kept.num_rows > 0


def test_sales_has_as_many_records_as_were_asked_for(shop: tuple[Path, Truth]) -> None:
    assert sum(shop[1].fates["sales"].values()) == ROWS


@pytest.mark.parametrize("rows", [1_000, 1_237])
def test_every_kind_of_dirt_occurs_in_the_smallest_data_set(rows: int, tmp_path: Path) -> None:
    from etl_assets.demo.retail import customers, products, sales
    from etl_assets.demo.retail.records import BAD_VERSION, COPY, VERSION

    truth = generate(tmp_path, rows=rows, seed=3)
    for stream, module in (("customers", customers), ("products", products), ("sales", sales)):
        kinds = set(pq.read_table(truth.path("fates", stream))["kind"].to_pylist())
        assert kinds >= {*module.KINDS, VERSION, COPY, BAD_VERSION, "kept"}, stream


def test_a_careful_reader_of_the_raw_files_finds_the_same_fates(shop: tuple[Path, Truth]) -> None:
    """Fate and line of each of the records, derived from their text alone."""
    folder, truth = shop
    found = {"customers": reading.customers(folder / FILES[0]), "products": reading.products(folder / FILES[1])}
    kept = {stream: {record.key for record in records if record.fate == "kept"} for stream, records in found.items()}
    found["sales"] = reading.sales(folder / FILES[2], kept["customers"], kept["products"])
    for stream, records in found.items():
        fates = pq.read_table(truth.path("fates", stream), columns=["line", "fate"]).to_pylist()
        told = [(row["line"], row["fate"]) for row in fates]
        assert told == [(record.line, record.fate) for record in records], stream


def test_a_record_may_take_two_lines_of_its_file(shop: tuple[Path, Truth]) -> None:
    """Otherwise the test above would not notice a line number that only counts records."""
    lines = pq.read_table(shop[1].path("fates", "customers"))["line"].to_pylist()
    assert any(line != number for number, line in enumerate(lines, start=2))


def test_the_segments_come_in_nineteen_spellings_and_blank(shop: tuple[Path, Truth]) -> None:
    from etl_assets.demo.retail.vocabulary import UNDECLARED_SEGMENT

    folder, _ = shop
    records = reading.csv_records(folder / "customers.csv")
    _, header = next(records)
    at = header.index("segment")
    spellings = {fields[at] for _, fields in records if len(fields) == len(header)}
    assert len(spellings - {"", UNDECLARED_SEGMENT}) == 19
    assert spellings >= {"", UNDECLARED_SEGMENT}


def test_silver_holds_the_line_totals_and_the_reported_totals_within_the_tolerance(shop: tuple[Path, Truth]) -> None:
    rows = pq.read_table(shop[1].path("silver", "sales")).to_pylist()
    for row in rows:
        assert row["line_total"] == row["quantity"] * row["unit_price"] - row["discount_amount"]
        assert abs(row["total_amount"] - row["line_total"]) <= Decimal("0.05")
        assert (row["status"] == "returned") == (row["quantity"] < 0)
    assert {abs(row["total_amount"] - row["line_total"]) for row in rows} >= {Decimal("0.00"), Decimal("0.05")}


def test_the_figures_of_gold_add_up_from_silver_in_another_way(shop: tuple[Path, Truth]) -> None:
    """Revenue by segment and month, by customer and by product: one decimal after the other."""
    _, truth = shop
    silver = {
        name: pq.read_table(truth.path("silver", name)).to_pylist() for name in ("customers", "products", "sales")
    }
    segments = {row["customer_id"]: row["segment"] for row in silver["customers"]}
    costs = {row["product_id"]: row["cost"] for row in silver["products"]}
    net: dict[tuple[str, Any], Decimal] = {}
    margin: Counter[str] = Counter()
    for row in silver["sales"]:
        if row["status"] == "cancelled":
            continue
        month = row["sold_at"].date().replace(day=1)
        groups = [("month", (segments[row["customer_id"]], month))]
        groups += [(column, row[column]) for column in ("customer_id", "product_id")]
        for group in groups:
            net[group] = net.get(group, Decimal(0)) + row["line_total"]
        margin[row["product_id"]] += row["line_total"] - row["quantity"] * (costs[row["product_id"]] or 0)
    by_month = pq.read_table(truth.path("gold", "revenue_by_segment_and_month")).to_pylist()
    by_customer = pq.read_table(truth.path("gold", "customer_360")).to_pylist()
    by_product = pq.read_table(truth.path("gold", "product_performance")).to_pylist()
    told = {("month", (row["segment"], row["month"])): row["net_revenue"] for row in by_month}
    told |= {("customer_id", row["customer_id"]): row["net_revenue"] for row in by_customer if _traded(row)}
    told |= {("product_id", row["product_id"]): row["net_revenue"] for row in by_product if _traded(row)}
    assert told == net
    for row in by_product:
        unknown = costs[row["product_id"]] is None
        assert row["margin"] == (None if unknown else margin[row["product_id"]])


def _traded(row: dict[str, Any]) -> bool:
    return row["orders"] + row["returns"] > 0


def test_customers_without_a_sale_are_in_gold_with_nothing(shop: tuple[Path, Truth]) -> None:
    rows = pq.read_table(shop[1].path("gold", "customer_360")).to_pylist()
    assert len(rows) == shop[1].fates["customers"]["kept"]
    idle = [row for row in rows if not _traded(row)]
    assert idle
    for row in idle:
        assert (row["net_revenue"], row["first_order_on"], row["favourite_category"]) == (Decimal(0), None, None)
        assert row["value_tier"] == "None"


def test_the_warnings_count_kept_rows_only(shop: tuple[Path, Truth]) -> None:
    _, truth = shop
    emails = pq.read_table(truth.path("silver", "customers"))["email"].drop_null().to_pylist()
    stock = pq.read_table(truth.path("silver", "products"))["stock_quantity"].to_pylist()
    assert truth.warnings["customers"]["email_format"] == sum(1 for email in emails if "@" not in email) > 0
    assert truth.warnings["products"]["stock_not_negative"] == sum(1 for number in stock if number < 0) > 0
