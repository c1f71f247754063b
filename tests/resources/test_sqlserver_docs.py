"""The examples of docs/sources/sqlserver.md are read, and run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl_resources.source import Incremental, Snapshot, Stream
from etl_resources.sources.sqlserver import SqlServerSource, SqlServerStreamOptions
from tests.servers.tds import shared_tds

PAGE = Path(__file__).parents[2] / "docs" / "sources" / "sqlserver.md"


def examples() -> list[Any]:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


def test_the_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_PASSWORD", "not the one of the test")
    connection, pipeline = examples()
    written = connection["attributes"]["connections"]["erp"]
    assert written.pop("type") == "sqlserver"
    SqlServerSource(**written)
    server = shared_tds()
    tables = ("orders", "visits", "ledger")
    server.execute(*(f"DROP TABLE IF EXISTS dbo.{name}" for name in tables))
    try:
        server.execute(
            "CREATE TABLE dbo.orders (id int, region nvarchar(20), amount decimal(12, 2), version rowversion)",
            "INSERT INTO dbo.orders (id, region, amount) VALUES (1, N'north', 12.5), (2, N'north', 0.01)",
            "CREATE TABLE dbo.visits (id int, changed_at datetime2(7))",
            "INSERT INTO dbo.visits VALUES (1, '2024-01-01'), (2, NULL)",
            "CREATE TABLE dbo.ledger (entry_id bigint)",
            "INSERT INTO dbo.ledger VALUES (1), (2), (3), (4), (5)",
        )
        here = {**written, **server.settings()}
        rows = {}
        for name, stream in pipeline["streams"].items():
            ((kind, capture),) = stream["capture"].items()
            options = SqlServerStreamOptions(**stream["source"])
            how = Incremental(**capture) if kind == "incremental" else Snapshot(**capture)
            batches = list(SqlServerSource(**here).read(Stream(name, options, how), None))
            rows[name] = sum(batch.data.num_rows for batch in batches)
    finally:
        server.execute(*(f"DROP TABLE IF EXISTS dbo.{name}" for name in tables))
    assert rows == {"orders": 2, "visits": 2, "ledger": 5, "totals": 1}


def test_every_option_has_its_row() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in set(SqlServerStreamOptions.model_fields) - {"type", "connection"}:
        assert f"`{name}`" in text
