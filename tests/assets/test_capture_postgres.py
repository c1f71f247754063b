"""A pipeline over PostgreSQL's change log, all the way: etl, Dagster, lake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from etl_assets.capture import _Following
from etl_resources.change_log import Boundary, Changes
from etl_resources.engines.duckdb import DuckDB
from etl_resources.lake import Lake
from tests.assets.cli.conftest import Shop
from tests.servers.postgres import PostgresServer, shared_postgres

CONNECTIONS = """
type: etl_assets.components.Connections
attributes:
  connections:
    shop: {{type: postgres, host: 127.0.0.1, port: {port}, database: {database}, user: postgres, sslmode: disable}}
"""
PIPELINE = """
type: etl_assets.components.Pipeline
attributes:
  name: {name}
  streams:
    orders:
      source: {{type: postgres, connection: shop, table: orders}}
      capture: {{log: {log}}}
      key: [id]
    customers:
      source: {{type: postgres, connection: shop, table: customers}}
      capture: {{log: {log}}}
      key: [id]
"""
COLUMNS = "id, customer, amount, note"


class Case:
    """A database, and a project with a pipeline that follows its log."""

    def __init__(self, folder: Path, log: str = "{}") -> None:
        self.server: PostgresServer = shared_postgres()
        self.database = self.server.database()
        # The slots of a server share their names, whatever the database.
        self.name = f"sales_{self.database}"
        server = self.server
        self.client = server.connect(self.database)
        self.client.execute(
            "CREATE TABLE orders (id int PRIMARY KEY, customer int, amount numeric(12, 2), note text);"
            "CREATE TABLE customers (id int PRIMARY KEY, name text);"
            "INSERT INTO customers VALUES (1, 'Ada'), (2, 'Bob'), (3, 'Cy');"
            "INSERT INTO orders SELECT n, n % 3 + 1, n, repeat('x', n) FROM generate_series(1, 50) n"
        )
        self.shop = Shop(folder)
        connections = CONNECTIONS.format(port=server.port, database=self.database)
        self.shop.write("defs/connections/defs.yaml", connections)
        self.define(log)

    def define(self, log: str = "{}") -> None:
        """Follow the log with these settings from now on."""
        self.shop.write(f"defs/{self.name}/defs.yaml", PIPELINE.format(name=self.name, log=log))

    def run(self, *arguments: str) -> Any:
        """Run the pipeline; it has to succeed."""
        ended = self.shop.etl("run", self.name, "--json", *arguments)
        assert ended.code == 0, ended.out + ended.err
        return {
            table["table"].split("/", 1)[0] + "/" + table["table"].rsplit("/", 1)[1]: table
            for table in ended.data["tables"]
        }

    def lake(self, layer: str, table: str, columns: str) -> list[tuple[Any, ...]]:
        handle = Lake(uri=str(self.shop.root / ".lake")).table(layer, self.name, table).open()
        if handle is None:
            return []
        with DuckDB().session() as session:
            return sorted(session.execute(f"SELECT {columns} FROM {session.lake_relation(handle)}"))

    def table(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        return sorted(self.client.execute(f"SELECT {columns} FROM {table}").fetchall())

    def agree(self) -> None:
        """Fail unless silver is what the database has."""
        assert self.lake("silver", "orders", COLUMNS) == self.table("orders", "*")
        assert self.lake("silver", "customers", "id, name") == self.table("customers", "*")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """A pipeline that has run once; every test leaves silver as the database is."""
    made = Case(tmp_path_factory.mktemp("case"))
    made.run()
    yield made
    drop_slots(made.client)


def drop_slots(client: psycopg.Connection[Any]) -> None:
    client.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
    )


def test_first_load_changes_and_deletes(case: Case) -> None:
    case.agree()
    case.client.execute("UPDATE orders SET amount = amount + 1 WHERE id > 10 AND id <= 20")
    with case.client.transaction():
        case.client.execute("DELETE FROM orders WHERE id > 45")
        case.client.execute("INSERT INTO customers VALUES (9, 'Zoe')")
    tables = case.run()
    case.agree()
    assert tables["bronze/orders"]["inserted"] == 15
    assert tables["silver/orders"]["updated"] == 10
    assert tables["silver/orders"]["deleted"] == 5


def test_status_pause_resume_and_resnapshot(case: Case) -> None:
    etl, rows = case.shop.etl, len(case.table("orders", "id"))
    case.client.execute("UPDATE orders SET amount = 0 WHERE id = 1")
    (status,) = etl("capture", "status", case.name, "--json").data
    assert (status["state"], status["paused"]) == ("ok", False)
    assert status["lag_bytes"] > 0
    etl("capture", "pause", case.name, "--reason", "moving house")
    failed = etl("run", case.name)
    assert failed.code == 1
    assert "is paused: moving house" in " ".join(failed.out.split())
    etl("capture", "resume", case.name)
    assert etl("capture", "resnapshot", case.name, "orders").code == 0
    assert etl("capture", "resnapshot", case.name, "nothing").code == 2
    tables = case.run()
    assert tables["bronze/orders"]["inserted"] == rows + 1
    case.agree()


def test_a_slot_that_was_dropped_is_said_loudly_and_repaired_with_the_deletes_of_the_gap(case: Case) -> None:
    drop_slots(case.client)
    case.client.execute("DELETE FROM orders WHERE id = 7; UPDATE orders SET amount = 1000 WHERE id = 8")
    assert case.shop.etl("capture", "status", case.name).code == 1
    failed = case.shop.etl("run", case.name)
    assert failed.code == 1
    assert "etl capture resnapshot" in " ".join(failed.out.split())
    assert case.shop.etl("capture", "resnapshot", case.name).code == 0
    case.run()
    case.agree()
    swept = [row for row in case.lake("bronze", "orders", "id, _op, _origin") if row[2] == "resnapshot"]
    assert swept == [(7, "delete", "resnapshot")]


def test_a_continuous_run_takes_silver_along(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended as soon as silver has followed two changes; its own time would be up long after."""
    heard, changes = _Following._heard, 0
    in_time: list[bool] = []

    def change(self: _Following, items: Iterator[Changes | Boundary]) -> Iterator[Changes | Boundary]:
        nonlocal changes
        for item in heard(self, items):
            yield item
            if isinstance(item, Boundary) and case.lake("silver", "orders", COLUMNS) == case.table("orders", "*"):
                if changes == 2:
                    in_time.append(True)
                    return
                changes += 1
                case.client.execute("UPDATE orders SET amount = amount + %s WHERE id <= 5", [changes])

    monkeypatch.setattr(_Following, "_heard", change)
    case.define("{mode: continuous, lasts: 90, every: 0.1}")
    case.run()
    case.define()
    assert in_time
    case.agree()


def test_a_table_without_identity_is_refused_before_the_application_suffers(tmp_path: Path) -> None:
    case = Case(tmp_path)
    before = case.shop.etl("capture", "status", case.name, "--json").data
    assert [one["state"] for one in before] == ["none"]
    assert case.shop.etl("capture", "preflight", case.name).code == 0
    case.client.execute("ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    told = case.shop.etl("capture", "preflight", case.name)
    assert told.code == 1
    assert "orders" in told.out
    assert case.shop.etl("run", case.name).code == 1
    case.client.execute("UPDATE orders SET amount = 0 WHERE id = 1")
