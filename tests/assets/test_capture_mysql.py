"""A pipeline over MariaDB's binlog, all the way: etl, Dagster, lake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from etl_resources.engines.duckdb import DuckDB
from etl_resources.lake import Lake
from tests.assets.cli.conftest import Shop
from tests.resources.test_mysql_log_servers import purge
from tests.servers.mysql import MysqlServer, shared_mysql

CONNECTIONS = """
type: etl_assets.components.Connections
attributes:
  connections:
    shop: {settings}
"""
PIPELINE = """
type: etl_assets.components.Pipeline
attributes:
  name: sales
  streams:
    orders:
      source: {type: mysql, connection: shop, table: orders}
      capture: {log: {}}
      key: [id]
"""


@pytest.fixture
def server() -> MysqlServer:
    return shared_mysql()


def rows(shop: Shop, layer: str, columns: str) -> list[tuple[Any, ...]]:
    handle = Lake(uri=str(shop.root / ".lake")).table(layer, "sales", "orders").open()
    assert handle is not None
    with DuckDB().session() as session:
        return sorted(session.execute(f"SELECT {columns} FROM {session.lake_relation(handle)}"))


def test_first_load_changes_deletes_and_a_log_that_was_purged(server: MysqlServer, tmp_path: Path) -> None:
    database = server.database()
    server.execute(
        database,
        "CREATE TABLE orders (id int PRIMARY KEY, amount decimal(12, 2), note text)",
        "INSERT INTO orders SELECT seq, seq, repeat('x', seq) FROM seq_1_to_50",
    )
    shop = Shop(tmp_path)
    settings = json.dumps({"type": "mysql", **server.settings(database)}, default=str)
    shop.write("defs/connections/defs.yaml", CONNECTIONS.format(settings=settings))
    shop.write("defs/sales/defs.yaml", PIPELINE)

    def run_and_agree() -> None:
        ended = shop.etl("run", "sales")
        assert ended.code == 0, ended.out + ended.err
        truth = server.execute(database, "SELECT * FROM orders ORDER BY id")
        assert rows(shop, "silver", "id, amount, note") == truth

    run_and_agree()
    server.execute(
        database,
        "UPDATE orders SET amount = amount + 1 WHERE id <= 10",
        "DELETE FROM orders WHERE id > 45",
        "UPDATE orders SET id = 100 WHERE id = 20",
    )
    run_and_agree()
    assert len(rows(shop, "bronze", "id")) == 50 + 10 + 5 + 2

    server.execute(database, "DELETE FROM orders WHERE id = 1", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
    purge(server)
    failed = shop.etl("run", "sales")
    assert failed.code == 1
    assert "etl capture resnapshot" in " ".join(failed.out.split())
    assert shop.etl("capture", "resnapshot", "sales").code == 0
    run_and_agree()
    assert [row for row in rows(shop, "bronze", "id, _op, _origin") if row[2] == "resnapshot"] == [
        (1, "delete", "resnapshot")
    ]
