"""The YAML, SQL and contracts of the demo pipelines fit each other, and the truth of the generator fits them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from etl_assets.demo.retail import customers, generate, products, sales
from etl_assets.transforms.step import parse_steps
from etl_checks.contract import load_contract
from etl_checks.lint import lint_contract

DEFS = Path(__file__).parents[3] / "etl_assets" / "defs"
CONTRACTS = sorted(path for name in ("flights", "retail") for path in (DEFS / name).glob("*.odcs.yaml"))


def pipeline(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEFS / name / "defs.yaml").read_text(encoding="utf-8"))["attributes"]


@pytest.mark.parametrize("path", CONTRACTS, ids=lambda path: path.stem)
def test_contracts_are_valid(path: Path) -> None:
    lint_contract(load_contract(path))


@pytest.mark.parametrize("name", ["flights", "retail"])
def test_every_file_belongs_to_a_table_and_every_table_has_a_contract(name: str) -> None:
    attributes = pipeline(name)
    tables = {**attributes["streams"], **attributes["gold"]}
    named = {table["contract"] for table in tables.values()} | {table["sql"] for table in attributes["gold"].values()}
    assert named == {path.name for path in (DEFS / name).iterdir() if path.name != "defs.yaml"}
    for table, settings in tables.items():
        contract = load_contract(DEFS / name / settings["contract"])
        assert contract.name == table
        assert contract.owners == tuple(attributes["owners"])
        assert tuple(settings.get("key", contract.key)) == contract.key
        for reference in contract.foreign_keys:
            target = load_contract(DEFS / name / attributes["streams"][reference.table]["contract"])
            assert set(reference.to_columns) <= {column.name for column in target.columns}


@pytest.mark.parametrize("name", ["flights", "retail"])
def test_steps_are_valid(name: str) -> None:
    for stream, settings in pipeline(name)["streams"].items():
        parse_steps(settings.get("steps", []), layer="silver", where=f"{name}/{stream}")


def test_the_true_silver_has_the_columns_and_types_of_the_contracts(tmp_path: Path) -> None:
    truth = generate(tmp_path, rows=1_000, seed=1)
    for layer, tables in (("silver", pipeline("retail")["streams"]), ("gold", pipeline("retail")["gold"])):
        for table, settings in tables.items():
            wanted = load_contract(DEFS / "retail" / settings["contract"]).arrow_schema()
            assert pq.read_schema(truth.path(layer, table)).equals(wanted, check_metadata=False), table


@pytest.mark.parametrize("module", [customers, products, sales], ids=lambda module: module.__name__.rsplit(".")[-1])
def test_every_fate_of_the_truth_is_a_rule_of_the_pipeline(module: Any) -> None:
    stream = module.__name__.rsplit(".")[-1]
    settings = pipeline("retail")["streams"][stream]
    contract = load_contract(DEFS / "retail" / settings["contract"])
    rules = {f"rejected:{rule.id}" for rule in contract.rules if rule.on_fail == "reject"}
    rules |= {f"rejected:key.{column}" for column in settings["key"]}
    steps = [next(iter(step.items())) for step in settings["steps"]]
    rules |= {f"filtered:{value['rule']}" for name, value in steps if name == "filter"}
    for name, value in steps:
        columns = value.get("columns", [value.get("column")]) if isinstance(value, dict) else value
        columns = value if name == "cast" else columns
        rules |= {f"rejected:{name}.{column}" for column in columns} if name in ("cast", "date", "number") else set()
    assert {fate for _, fate in module.KINDS.values()} <= {*rules, "unreadable"}
