"""`etl demo events` into Kafka, and the pipeline `events` out of it: every event meets the fate that is known of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl_assets.bronze import Bronze
from etl_assets.cli.demo import app
from etl_assets.demo.events import ORDERS, PAGE_VIEWS, events
from etl_assets.errors import Budget
from etl_assets.gold import Gold, GoldSpec
from etl_assets.references import references_of
from etl_assets.run import Run
from etl_assets.silver import Silver, SilverSpec
from etl_assets.transforms import parse_steps
from etl_checks.contract import load_contract
from etl_checks.lint import lint_contract
from etl_resources.engines.duckdb import DuckDB
from etl_resources.lake import Lake
from etl_resources.source import Stream
from etl_resources.sources.kafka import KafkaSource, KafkaStreamOptions
from tests.servers.kafka import running_kafka

DEFS = Path(__file__).parents[3] / "etl_assets" / "defs" / "events"
BEGAN = datetime(2024, 2, 29, tzinfo=UTC)


def test_events_reach_gold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    connections, pipeline = (d["attributes"] for d in yaml.safe_load_all((DEFS / "defs.yaml").read_text()))
    lake, engine = Lake(uri=str(tmp_path)), DuckDB(memory_limit="500MB", threads=1)
    with running_kafka() as kafka:
        kafka.topic(ORDERS, 2)
        kafka.topic(PAGE_VIEWS, 2)
        monkeypatch.setenv("KAFKA_SERVERS", kafka.servers)
        done = CliRunner().invoke(app, ["events", "--orders", "400", "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        sent = json.loads(done.stdout)
        written = connections["connections"]["shop_events"]
        source = KafkaSource(**{k: v for k, v in written.items() if k != "type"} | {"servers": kafka.servers})
        for name, stream in pipeline["streams"].items():
            planned = Stream(name, KafkaStreamOptions(**stream["source"]))
            account = Bronze(lake, "events", planned).land(source, Run("run")).account
            if name == "orders":
                assert account.rejected == {"unreadable": sent["broken"]} == {"unreadable": 2}
                assert account.inserted == sent["order_events"] + sent["erased"]
            else:
                assert account.inserted == sent["page_views"]
    for name, stream in pipeline["streams"].items():
        contract = load_contract(DEFS / stream["contract"])
        lint_contract(contract)
        steps = parse_steps(stream["steps"], layer="silver", where=name)
        spec = SilverSpec("events", name, stream["key"], steps, [], contract, Budget(), references={})
        assert not Silver(lake, engine, spec).refine(Run("run")).account.rejected
    rows = {name: gold(lake, engine, pipeline, name) for name in pipeline["gold"]}
    assert {r["day"]: (r["orders"], r["paid_orders"], r["revenue"]) for r in rows["revenue_by_day"]} == revenue()
    assert sum(r["views"] for r in rows["views_by_path"]) == sent["page_views"]


def gold(lake: Lake, engine: DuckDB, pipeline: dict[str, Any], name: str) -> list[dict[str, Any]]:
    settings = pipeline["gold"][name]
    sql = (DEFS / settings["sql"]).read_text(encoding="utf-8")
    contract = load_contract(DEFS / settings["contract"])
    spec = GoldSpec("events", name, lambda _: sql, references_of(sql, "events", where=name), contract)
    Gold(lake, engine, spec).build(Run("run"))
    handle = lake.table("gold", "events", name).open()
    assert handle is not None
    return handle.delta.to_pyarrow_table().to_pylist()


def revenue() -> dict[Any, tuple[int, int, Decimal]]:
    """Work out from the events themselves what gold has to say."""
    newest: dict[str, dict[str, Any]] = {}
    for topic, key, body in events(400, seed=7, began=BEGAN):
        if topic == ORDERS and body is None:
            newest.pop(key)
        elif topic == ORDERS and body.endswith(b"}"):  # type: ignore[union-attr]
            newest[key] = json.loads(body)  # type: ignore[arg-type]
    days: dict[Any, tuple[int, int, Decimal]] = {}
    for order in newest.values():
        day, paid = datetime.fromisoformat(order["at"]).date(), order["status"] != "placed"
        orders, paid_orders, sold = days.get(day, (0, 0, Decimal(0)))
        days[day] = (orders + 1, paid_orders + paid, sold + paid * Decimal(order["amount"]))
    return days
