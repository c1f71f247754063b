"""`etl errors`: what was rejected can be looked at, tried again and given up, and each leaves its trace."""

from __future__ import annotations

from contextlib import chdir

import dagster as dg
import pytest

from tests.assets.cli.conftest import Shop

ERROR = "silver/orders/orders:1:5"  # the sixth order, whose quantity is "many"
UNREADABLE = "9,Rosa,2024-01-09\n"


@pytest.fixture(scope="module")
def rejected(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("rejected"))
    assert made.etl("new", "orders").code == 0
    with (made.root / "data" / "orders" / "orders.csv").open("a") as file:
        file.write(UNREADABLE)
    assert made.etl("run", "orders", "--select", "bronze", "--select", "silver", "--select", "gold").code == 0
    return made


def test_errors_are_listed_by_table_and_rule_and_one_by_one(rejected: Shop) -> None:
    found = rejected.etl("errors", "list", "--json").data
    assert {(group["table"], group["rule"], group["errors"]) for group in found["groups"]} == {
        ("silver/orders/orders", "type.quantity", 1),
        ("bronze/orders/orders", "unreadable", 1),
    }
    assert {error["error"] for error in found["errors"]} >= {ERROR}

    shown = rejected.etl("errors", "list", "orders").out
    assert "type.quantity" in shown
    assert ERROR in shown, "ids are not broken, so that they can be copied"


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["orders"], 2),
        (["--table", "silver/orders"], 1),
        (["--table", "silver/orders/orders"], 1),
        (["--rule", "type.quantity"], 1),
        (["--rule", "unreadable"], 1),
        (["--rule", "it's"], 0),
        (["--state", "discarded"], 0),
        (["--limit", "0"], 2),
    ],
)
def test_the_list_is_restricted_by_what_is_asked_for(rejected: Shop, words: list[str], count: int) -> None:
    found = rejected.etl("errors", "list", *words, "--json").data
    assert sum(group["errors"] for group in found["groups"]) == count
    assert len(found["errors"]) == (0 if "--limit" in words else count)


def test_an_error_is_shown_with_its_record_and_where_it_came_from(rejected: Shop) -> None:
    error = rejected.etl("errors", "show", ERROR, "--json").data
    assert error["record"]["quantity"] == "many"
    assert error["origin"].endswith("orders.csv")
    assert [event["status"] for event in error["events"]] == ["open"]
    shown = rejected.etl("errors", "show", ERROR).out
    assert '"quantity": "many"' in shown
    assert "type.quantity" in shown

    unreadable = rejected.etl("errors", "list", "--rule", "unreadable", "--json").data["errors"][0]
    assert unreadable["raw"].strip() == UNREADABLE.strip()
    assert unreadable["line"] == 11


def test_an_error_that_is_not_there_is_wrong_usage(rejected: Shop) -> None:
    assert rejected.etl("errors", "show", "silver/orders/orders:1:99").code == 2
    ended = rejected.etl("errors", "list", "--state", "closed")
    assert ended.code == 2
    assert "known: open" in ended.err


def test_replay_lets_in_what_todays_steps_can_read_and_tells_dagster(rejected: Shop) -> None:
    again = rejected.etl("errors", "replay", "orders", "--json").data
    assert [(table["read"], table["rejected"]) for table in again["tables"]] == [(1, 1)], "nothing was mended yet"
    assert again["not_replayable"] == 1

    defs = rejected.root / rejected.package / "defs" / "orders" / "defs.yaml"
    mended = '- trim: [customer]\n        - synonyms: {column: quantity, values: {"12": [many]}}'
    defs.write_text(defs.read_text().replace("- trim: [customer]", mended))
    shown = rejected.etl("errors", "replay", "orders")
    assert shown.code == 0
    assert "1 row entered." in shown.out
    assert "etl run orders --select gold" in shown.out

    events = rejected.etl("errors", "show", ERROR, "--json").data["events"]
    assert [event["status"] for event in events] == ["open", "replayed"]
    with chdir(rejected.root), dg.DagsterInstance.from_config(str(rejected.root)) as instance:
        newest = instance.get_latest_materialization_event(dg.AssetKey(["silver", "orders", "orders"]))
        assert newest is not None
        assert newest.asset_materialization is not None
        assert newest.asset_materialization.metadata["rows/inserted"].value == 1
        assert newest.asset_materialization.metadata["dagster/row_count"].value == 7

    assert rejected.etl("errors", "replay", "orders", "--json").data["tables"] == [], "there is nothing left to replay"


def test_discard_wants_a_reason_and_keeps_it(rejected: Shop) -> None:
    assert rejected.etl("errors", "discard", "--rule", "unreadable").code == 2
    assert rejected.etl("errors", "discard", "--reason", "all of them").code == 2

    ended = rejected.etl("errors", "discard", "--rule", "unreadable", "--reason", "came again whole", "--json")
    assert ended.data == {"discarded": 1}
    gone = rejected.etl("errors", "list", "--state", "discarded", "--json").data["errors"]
    assert [error["note"] for error in gone] == ["came again whole"]
    left = rejected.etl("errors", "list", "--rule", "unreadable")
    assert left.out.strip() == "There is no open error."
    assert rejected.etl("errors", "discard", "--error", "no/such/one:1:1", "--reason", "x").code == 1
