"""The examples of docs/sources/mongodb.md are read, and run."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from bson import Decimal128

from etl_resources.change_log import Boundary, Changes, LogTable
from etl_resources.changes.mongodb_settings import MongoLogCapture
from etl_resources.source import Incremental, LogCapture, Snapshot, Stream
from etl_resources.sources.mongodb import MongoSource, MongoStreamOptions
from tests.servers.mongo import shared_mongo

PAGE = Path(__file__).parents[2] / "docs" / "sources" / "mongodb.md"


def test_the_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "not asked for")
    text = PAGE.read_text(encoding="utf-8")
    connection, pipeline, log = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    ]
    written = connection["attributes"]["connections"]["shop"]
    assert written.pop("type") == "mongodb"
    MongoSource(**written)
    server = shared_mongo()
    now = datetime.now(UTC).replace(microsecond=0)
    with server.client() as client:
        database = client[server.database()]
        common = {"total": Decimal128("12.50"), "customer": {"name": "Ann"}, "lines": [{"sku": "a", "n": 1}]}
        database.orders.insert_many([
            {**common, "status": "paid", "updated_at": now - timedelta(days=n)} for n in range(3)
        ] + [{**common, "status": "open", "updated_at": now}])  # fmt: skip
        database.products.insert_one({"_id": "p1", "name": "Pen"})
    rows = {}
    for name, stream in pipeline["streams"].items():
        ((kind, capture),) = stream["capture"].items()
        how = Incremental(**capture) if kind == "incremental" else Snapshot(**capture)
        source = MongoSource(**server.settings(database=database.name))
        options = {k: v for k, v in stream["source"].items() if k != "connection"}
        (batch,) = source.read(Stream(name, MongoStreamOptions(**options), how), None)
        rows[name] = batch.data.num_rows
    assert rows == {"orders": 3, "products": 1}

    (followed,) = log["log"].values()
    with server.client() as client:
        client[database.name].command("collMod", "orders", changeStreamPreAndPostImages={"enabled": True})
    options = MongoStreamOptions(**{k: v for k, v in followed["source"].items() if k != "connection"})
    source = MongoSource(**server.settings(database=database.name))
    table = LogTable(Stream("orders", options), tuple(followed["key"]))
    changes = source.change_log("p", [table], source.log_type(**followed["capture"]["log"]))
    *loaded, boundary = changes.read({"orders": None})
    assert isinstance(boundary, Boundary)
    assert [c.batch.data.num_rows for c in loaded if isinstance(c, Changes)] == [4]


def test_every_option_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    settings = {*MongoStreamOptions.model_fields, *MongoSource.model_fields, *MongoLogCapture.model_fields}
    for name in settings - set(LogCapture.model_fields) - {"type", "connection"}:
        assert f"`{name}`" in text or f"{name}:" in text, name
