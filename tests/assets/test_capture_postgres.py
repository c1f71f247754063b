"""A pipeline over PostgreSQL's change log, all the way: etl, Dagster, lake."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

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


class Case:
    """A database, and a project with a pipeline that follows its log."""

    def __init__(self, folder: Path, log: str = "{}") -> None:
        self.server: PostgresServer = shared_postgres()
        self.database = self.server.database()
        # The slots of a server share their names, whatever the database.
        self.name = name = f"sales_{self.database}"
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
        self.shop.write(f"defs/{name}/defs.yaml", PIPELINE.format(name=name, log=log))

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
        assert self.lake("silver", "orders", "id, customer, amount, note") == self.table("orders", "*")
        assert self.lake("silver", "customers", "id, name") == self.table("customers", "*")


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    made = Case(tmp_path)
    yield made
    drop_slots(made.client)


def drop_slots(client: psycopg.Connection[Any]) -> None:
    client.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
    )


def test_first_load_changes_deletes_and_a_new_run_that_has_nothing_to_do(case: Case) -> None:
    case.run()
    case.agree()
    case.client.execute("UPDATE orders SET amount = amount + 1 WHERE id <= 10")
    with case.client.transaction():
        case.client.execute("DELETE FROM orders WHERE id > 45")
        case.client.execute("INSERT INTO customers VALUES (9, 'Zoe')")
    tables = case.run()
    case.agree()
    assert tables["bronze/orders"]["inserted"] == 15
    assert tables["silver/orders"]["updated"] == 10
    assert tables["silver/orders"]["deleted"] == 5
    before = len(case.lake("bronze", "orders", "id"))
    case.run()
    case.agree()
    assert len(case.lake("bronze", "orders", "id")) == before


def test_status_preflight_pause_resume_and_resnapshot(case: Case) -> None:
    etl = case.shop.etl
    before = etl("capture", "status", case.name, "--json").data
    assert [one["state"] for one in before] == ["none"]
    assert etl("capture", "preflight", case.name).code == 0
    case.run()
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
    assert tables["bronze/orders"]["inserted"] == 51
    case.agree()


def test_a_slot_that_was_dropped_is_said_loudly_and_repaired_with_the_deletes_of_the_gap(case: Case) -> None:
    case.run()
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


def test_a_table_without_identity_is_refused_before_the_application_suffers(case: Case) -> None:
    case.client.execute("ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    told = case.shop.etl("capture", "preflight", case.name)
    assert told.code == 1
    assert "orders" in told.out
    assert case.shop.etl("run", case.name).code == 1
    case.client.execute("UPDATE orders SET amount = 0 WHERE id = 1")


def test_a_continuous_run_takes_silver_along(tmp_path: Path) -> None:
    made = Case(tmp_path, "{mode: continuous, lasts: 9, every: 0.1}")
    done: list[Any] = []
    run = threading.Thread(target=lambda: done.append(made.shop.etl("run", made.name, "--json")))
    run.start()
    try:
        seen, deadline = False, time.monotonic() + 60
        while run.is_alive() and time.monotonic() < deadline:
            made.client.execute("UPDATE orders SET amount = amount + 1 WHERE id <= 10")
            time.sleep(0.2)
            seen = seen or any(row[0] > 1 for row in made.lake("silver", "orders", "_batch"))
        run.join(30)
        (ended,) = done
        assert ended.code == 0, ended.out + ended.err
        assert seen
        assert made.shop.etl("run", made.name).code == 0
        made.agree()
    finally:
        drop_slots(made.client)
