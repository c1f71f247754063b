"""docs/sources/snowflake.md: a table that matches the code, and examples that run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from etl_resources.source import Incremental, Snapshot, Stream
from etl_resources.sources.snowflake import SnowflakeSource, SnowflakeStreamOptions
from tests.servers.snowflake import shared_snowflake

PAGE = (Path(__file__).parents[2] / "docs" / "sources" / "snowflake.md").read_text(encoding="utf-8")


def test_the_table_of_options_is_the_model() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \|([^|]*)\|", PAGE.split("| option of")[1].split("\n\n")[0], flags=re.MULTILINE)
    )
    fields = SnowflakeStreamOptions.model_fields
    assert list(rows) == [name for name in fields if name not in {"type", "connection"}]
    for name, written in rows.items():
        if written.strip().startswith("`"):
            assert written.strip().strip("`") == str(fields[name].default)


def test_the_examples_run() -> None:
    pages = [yaml.safe_load(b) for b in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)]
    streams: dict[str, Any] = {}
    for page in pages:
        streams |= page.get("streams", {})
        if "attributes" in page:
            written: dict[str, Any] = page["attributes"]["connections"]["warehouse"]
            assert written.pop("type") == "snowflake"
            last = SnowflakeSource(**written)
    server = shared_snowflake()
    assert last.storage_integration == server.settings()["storage_integration"]
    server.execute(
        "CREATE OR REPLACE TABLE sales (id INT, region VARCHAR, amount NUMBER(12, 2), updated_at TIMESTAMP_NTZ)",
        "INSERT INTO sales VALUES (1, 'north', 12.50, '2024-01-01'), (2, 'north', 0.01, '2024-01-02')",
    )
    rows = {}
    for name, stream in streams.items():
        ((kind, capture),) = stream["capture"].items()
        how = Incremental(**capture) if kind == "incremental" else Snapshot(**capture)
        here = SnowflakeSource(**server.settings())
        batches = here.read(Stream(name, SnowflakeStreamOptions(**stream["source"]), how), None)
        rows[name] = sum(batch.data.num_rows for batch in batches)
    assert rows == {"sales": 2, "totals": 1, "history": 2}
