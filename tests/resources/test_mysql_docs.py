"""The examples of docs/sources/mysql.md are read, and run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from etl_resources.source import Incremental, Snapshot, Stream
from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions
from etl_resources.sources.mysql_seen import MOST
from tests.servers.mysql import shared_mysql

PAGE = (Path(__file__).parents[2] / "docs" / "sources" / "mysql.md").read_text(encoding="utf-8")


def test_the_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "not asked for")
    connection, pipeline = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL))
    written = connection["attributes"]["connections"]["shop"]
    assert written.pop("type") == "mysql"
    MysqlSource(**written)
    server = shared_mysql()
    database = server.database()
    server.execute(
        database,
        "CREATE TABLE sales (id int PRIMARY KEY, region text, amount decimal(12, 2), updated_at timestamp NULL)",
        "INSERT INTO sales VALUES (1, 'north', 12.50, NOW()), (2, 'north', 0.01, NULL)",
    )
    rows = {}
    for name, stream in pipeline["streams"].items():
        ((kind, capture),) = stream["capture"].items()
        options = MysqlStreamOptions(**stream["source"])
        how = Incremental(**capture) if kind == "incremental" else Snapshot(**capture)
        here = {**written, **server.settings(database), "ssl_ca": None, "password": None}
        batches = list(MysqlSource(**here).read(Stream(name, options, how), None))
        rows[name] = sum(batch.data.num_rows for batch in batches)
    assert rows == {"sales": 2, "history": 2, "totals": 1}


def test_the_page_names_every_option_and_the_limits() -> None:
    for name in MysqlStreamOptions.model_fields.keys() - {"type", "connection"}:
        assert f"`{name}`" in PAGE, name
    assert f"{MOST:,}" in PAGE
