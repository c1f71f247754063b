"""docs/sources/redshift.md: a table that matches the code, and examples that run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from etl_resources.redshift_login import Iam
from etl_resources.source import Incremental, Snapshot, Stream
from etl_resources.sources.redshift import RedshiftSource, RedshiftStreamOptions
from tests.servers.redshift import shared_redshift
from tests.servers.redshift_logins import running_logins

PAGE = (Path(__file__).parents[2] / "docs" / "sources" / "redshift.md").read_text(encoding="utf-8")


def test_the_table_of_options_is_the_model() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \|([^|]*)\|", PAGE.split("| option of")[1].split("\n\n")[0], flags=re.MULTILINE)
    )
    fields = RedshiftStreamOptions.model_fields
    assert list(rows) == [name for name in fields if name not in {"type", "connection"}]
    for name, written in rows.items():
        if written.strip().startswith("`"):
            assert written.strip().strip("`") == str(fields[name].default)


def examples() -> list[Any]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)]


def test_the_examples_run() -> None:
    connection, pipeline, _ = examples()
    written: dict[str, Any] = connection["attributes"]["connections"]["warehouse"]
    assert written.pop("type") == "redshift"
    server = shared_redshift()
    database = server.database()
    server.execute(
        database, "CREATE TABLE sales (id int, region text, amount numeric(12, 2), updated_at timestamp)",
        "INSERT INTO sales VALUES (1, 'north', 12.50, '2024-01-01'), (2, 'north', 0.01, '2024-01-02')",
    )  # fmt: skip
    here = server.settings(database)
    assert written["iam_role"] == here["iam_role"]
    there = {"host", "port", "database", "user", "password", "store", "sslmode"}
    source = RedshiftSource(**written | {name: here[name] for name in there})
    rows: dict[str, int] = {}
    for name, stream in pipeline["streams"].items():
        ((kind, capture),) = stream["capture"].items()
        how = Incremental(**capture) if kind == "incremental" else Snapshot(**capture)
        batches = source.read(Stream(name, RedshiftStreamOptions(**stream["source"]), how), None)
        rows[name] = sum(batch.data.num_rows for batch in batches)
    assert rows == {"sales": 2, "totals": 1, "history": 2}


def test_the_logins_by_iam_run() -> None:
    connections: dict[str, Any] = examples()[2]["attributes"]["connections"]
    server = shared_redshift()
    here = server.settings(server.database())
    with running_logins(server) as logins:
        for written in connections.values():
            assert written.pop("type") == "redshift"
            iam = written["iam"] | logins.settings()
            there = {name: here[name] for name in ("host", "port", "database", "sslmode")}
            assert RedshiftSource(**written | there | {"iam": iam}).ping()
        asked = [operation for operation, _ in logins.asked]
    assert asked == ["GetClusterCredentials", "GetCredentials"]
    assert connections["serverless"]["iam"].keys() <= Iam.model_fields.keys()
