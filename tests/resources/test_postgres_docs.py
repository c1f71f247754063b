"""The examples of docs/sources/postgres.md and docs/targets.md are read, and run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from etl_resources.change_log import Changes, LogTable
from etl_resources.changes.postgres_settings import PostgresLogCapture
from etl_resources.source import Incremental, Snapshot, Stream
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from etl_resources.target import CommitToken, Load
from etl_resources.targets.postgres import PostgresTarget, PostgresTargetOptions
from tests.servers.postgres import PostgresServer

DOCS = Path(__file__).parents[2] / "docs"


def examples(page: str) -> list[Any]:
    text = (DOCS / page).read_text(encoding="utf-8")
    section = text if page == "sources/postgres.md" else text.split("\n## postgres\n")[1].split("\n## ")[0]
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", section, flags=re.DOTALL)]


def test_the_examples_of_source_and_target_run(
    postgres_server: PostgresServer, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "not asked for")
    connection, pipeline, followed = examples("sources/postgres.md")
    written = connection["attributes"]["connections"]["shop"]
    assert written.pop("type") == "postgres"
    PostgresSource(**written)
    here = {**written, **postgres_server.settings(postgres_database), "sslrootcert": None}
    with postgres_server.connect(postgres_database) as client:
        client.execute("CREATE TABLE sales (id int, region text, amount numeric(12, 2), updated_at timestamptz)")
        client.execute("INSERT INTO sales VALUES (1, 'north', 12.50, now()), (2, 'north', 0.01, NULL)")
        client.execute("CREATE SCHEMA reports")
    rows = {}
    for name, stream in pipeline["streams"].items():
        ((kind, capture),) = stream["capture"].items()
        options = PostgresStreamOptions(**stream["source"])
        how = Incremental(**capture) if kind == "incremental" else Snapshot(**capture)
        (batch,) = PostgresSource(**here).read(Stream(name, options, how), None)
        rows[name] = batch.data.num_rows
    assert rows == {"sales": 2, "totals": 1}
    check_log(PostgresSource(**here), followed["streams"]["orders"], postgres_server, postgres_database)

    (publish,) = examples("targets.md")[0]["publish"]
    data = pa.table({"segment": ["a"], "month": ["2024-01"], "revenue": [1]})
    load = Load(
        PostgresTargetOptions(**publish["target"]), data.schema, publish["mode"], CommitToken("docs", 1, "run"),
        tuple(publish["key"]),
    )  # fmt: skip
    assert PostgresTarget(**here).write(load, data.to_batches()).inserted == 1


def check_log(source: PostgresSource, stream: Any, server: PostgresServer, database: str) -> None:
    """Follow the log as the page says."""
    capture = PostgresSource.log_type(**stream["capture"]["log"])
    assert isinstance(capture, PostgresLogCapture)
    table = LogTable(Stream("orders", PostgresStreamOptions(**stream["source"]), capture), tuple(stream["key"]))
    log = source.change_log("docs", [table], capture)
    with server.connect(database) as client:
        client.execute("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1), (2)")
    try:
        found = [item.batch.data["_op"].to_pylist() for item in log.read({"orders": None}) if isinstance(item, Changes)]
        assert found == [["read", "read"]]
    finally:
        log.remove()
