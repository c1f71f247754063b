"""The lake tables and the pipeline that tasks (b) and (c) measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from etl_assets.silver import Silver, SilverSpec
from etl_assets.transforms import parse_steps
from etl_checks.contract import load_contract
from etl_resources.engines.duckdb import DuckDB
from etl_resources.lake import Lake

STEPS: list[Any] = [
    {"trim": ["product", "reference"]},
    {"lower": ["status"]},
    {"cast": {"quantity": "int64", "amount": "decimal(12,2)"}},
    {"synonyms": {"column": "status", "values": {"new": ["fresh"], "done": ["closed"]}}},
    {"add": {"total": "CAST(amount * quantity AS DECIMAL(18, 2))"}},
    {"filter": {"rule": "not_a_test", "where": "status <> 'test'"}},
]
"""Six steps; the contract beside this file has eight rules."""


def silver(folder: str) -> Silver:
    """Return the silver table of the bench in the lake at `folder`."""
    contract = load_contract(Path(__file__).parent / "orders.odcs.yaml")
    spec = SilverSpec("bench", "orders", ["id"], parse_steps(STEPS, layer="silver", where="bench"), contract=contract)
    return Silver(Lake(uri=folder), DuckDB(memory_limit="4GB"), spec)
