"""`etl status`, `history`, `stats`, `check` and `plan`: what they say is what Dagster and the lake have recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import chdir
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from etl_assets.cli.history import percentile, summary
from etl_assets.cli.records import PastRun
from tests.assets.cli.conftest import Shop


@pytest.fixture(scope="module")
def shop_with_history(copied: Callable[[Path], Shop], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Two good runs and, in between, one that failed."""
    made = copied(tmp_path_factory.mktemp("history"))
    data = made.root / "data" / "orders" / "orders.csv"
    content = data.read_text()
    data.unlink()
    assert made.etl("run", "orders", "--select", "bronze").code == 1
    data.write_text(content + "10,Rosa,2024-01-10,1,5.00,open\n")
    assert made.etl("run", "orders").code == 0
    return made


def test_status_has_rows_errors_and_the_last_run(shop_with_history: Shop) -> None:
    (one,) = shop_with_history.etl("status", "--json").data
    assert one["pipeline"] == "orders"
    assert one["last_run"]["status"] == "success"
    assert one["silver_rows"] == 7
    assert one["failed_checks"] == 0
    shown = shop_with_history.etl("status").out
    assert "success, just now" in shown or "min ago" in shown
    detail = shop_with_history.etl("status", "orders").out
    assert "silver/orders" in detail


def test_history_has_every_run_newest_first_with_its_rows(shop_with_history: Shop) -> None:
    runs = shop_with_history.etl("history", "orders", "--json").data
    assert [run["status"] for run in runs] == ["success", "failed", "success"]
    assert [run["read"] for run in runs] == [10, 0, 9]
    assert runs[1]["what"] == "bronze"
    assert len(shop_with_history.etl("history", "--limit", "1", "--json").data) == 1
    assert "failed" in shop_with_history.etl("history").out


def test_runs_that_failed_count(shop_with_history: Shop) -> None:
    (one,) = shop_with_history.etl("stats", "--json").data
    assert (one["runs"], one["succeeded"], one["failed"]) == (3, 2, 1)
    assert one["success_rate"] == pytest.approx(2 / 3)
    assert one["read"] == 19
    runs = shop_with_history.etl("history", "--json").data
    assert one["p99"] == pytest.approx(max(run["seconds"] for run in runs), abs=0.01)
    assert "67%" in shop_with_history.etl("stats").out


@pytest.mark.parametrize(
    ("values", "rank", "expected"),
    [([], 50, None), ([3.0], 99, 3.0), ([1.0, 2.0], 50, 1.0), ([1.0, 2.0, 3.0], 50, 2.0), ([*range(1, 101)], 95, 95)],
)
def test_a_percentile_is_a_value_that_occurred(values: list[float], rank: int, expected: float | None) -> None:
    assert percentile(values, rank) == expected


def test_runs_that_have_not_ended_are_in_no_rate_and_no_duration() -> None:
    def run(status: str, seconds: float | None) -> PastRun:
        return PastRun("r", {"p"}, status, datetime.now(UTC), seconds, {}, checks_only=False)

    found = summary("p", [run("success", 2.0), run("running", None), run("failed", 8.0), run("canceled", 1.0)])
    assert (found["runs"], found["failed"], found["canceled"], found["not_ended"]) == (4, 1, 1, 1)
    assert found["success_rate"] == pytest.approx(1 / 3)
    assert (found["p50"], found["p99"]) == (2.0, 8.0)


def test_a_check_that_fails_ends_with_1_and_is_recorded(shop_with_history: Shop) -> None:
    good = shop_with_history.etl("check", "orders", "--json")
    assert good.code == 0
    assert all(check["passed"] for check in good.data["checks"])

    contract = shop_with_history.root / shop_with_history.package / "defs" / "orders" / "orders.odcs.yaml"
    before = contract.read_text()
    contract.write_text(before.replace("minimum: 1", "minimum: 2"))
    try:
        bad = shop_with_history.etl("check", "orders")
        assert bad.code == 1
        assert "range_quantity" in bad.out
        assert "dagster" not in bad.out.lower()
        assert shop_with_history.etl("status", "--json").data[0]["failed_checks"] == 1
    finally:
        contract.write_text(before)
    root = shop_with_history.root
    with chdir(root), dg.DagsterInstance.from_config(str(root)) as instance:
        key = dg.AssetCheckKey(dg.AssetKey(["silver", "orders", "orders"]), "range_quantity")
        found = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
        assert [record.status.value for record in found][:2] == ["FAILED", "SUCCEEDED"]
    (one,) = shop_with_history.etl("stats", "--json").data
    assert one["runs"] == 3, "an evaluation of checks alone is no run of the pipeline"


def test_a_pipeline_without_checks_of_its_own_says_so(shop_with_history: Shop) -> None:
    ended = shop_with_history.etl("check", "orders", "--select", "gold")
    assert ended.code == 2
    assert "no checks" in ended.err


def test_tables_that_were_never_loaded_are_not_said_to_pass(shop: Shop) -> None:
    assert shop.etl("new", "orders").code == 0
    ended = shop.etl("check", "orders")
    assert ended.code == 1
    assert "silver/orders/orders: not loaded yet" in ended.err


def test_a_plan_tells_what_is_new_and_writes_nothing(shop: Shop) -> None:
    assert shop.etl("new", "orders").code == 0
    plan = shop.etl("plan", "orders", "--json").data
    bronze, silver, gold, publish = plan["steps"]
    assert bronze["items"] == [str(shop.root / "data" / "orders" / "orders.csv")]
    assert bronze["rows"] == 9
    assert bronze["bytes"] == (shop.root / "data" / "orders" / "orders.csv").stat().st_size
    assert bronze["changes"] == silver["changes"] == ["new table with 6 columns"]
    assert gold["does"] == "build from silver.orders"
    assert publish["changes"] == ["first load"]
    assert plan["rows_to_read"] == 9
    assert not (shop.root / ".lake").exists()


def test_a_plan_after_a_run_finds_what_has_changed_since(shop_with_history: Shop) -> None:
    plan = shop_with_history.etl("plan", "orders", "--json").data
    assert plan["steps"][0]["does"] == "nothing new"
    assert plan["bytes_to_read"] == 0

    folder = shop_with_history.root / "data" / "orders"
    (folder / "more.csv").write_text(
        "order_id,customer,ordered_on,quantity,unit_price,status,coupon\n11,Ada,2024-01-11,1,1.00,open,X\n"
    )
    try:
        plan = shop_with_history.etl("plan", "orders", "--json").data
        assert plan["steps"][0]["items"] == [str(folder / "more.csv")]
        assert "adds column coupon (string)" in plan["steps"][0]["changes"]
        assert plan["steps"][1]["rows"] == 1
        refresh = shop_with_history.etl("plan", "orders", "--full-refresh", "--json").data
        assert len(refresh["steps"][0]["items"]) == 2
    finally:
        (folder / "more.csv").unlink()


def test_a_plan_of_what_would_fail_says_why_and_ends_with_1(shop: Shop) -> None:
    assert shop.etl("new", "orders").code == 0
    (shop.root / "data" / "orders" / "orders.csv").unlink()
    ended = shop.etl("plan", "orders")
    assert ended.code == 1
    assert "would fail" in ended.out
    assert "no file" in ended.out
