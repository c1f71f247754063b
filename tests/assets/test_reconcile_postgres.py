"""A captured table held against PostgreSQL: whatever is wrong in the lake is found, and a busy writer is no reason."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from etl_assets import reconcile_lake
from etl_assets.cli.location import Location, load_location
from etl_assets.cli.running import Request, execute
from etl_assets.components.reconcile_checks import compared
from etl_assets.reconcile import Reconciled
from etl_resources.changes import postgres_compared
from etl_resources.lake import Lake
from tests.assets.doubles import new_run
from tests.assets.test_capture_postgres import Case, drop_slots

ALL_TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE odd (id bigint, part text, small smallint, yes boolean, real4 real, real8 double precision, exact numeric,
  money2 numeric(12, 2), day date, moment timestamp, instant timestamptz, bytes bytea, code char(6), word varchar,
  tag uuid, feeling mood, doc json, docb jsonb, span interval, list int[], PRIMARY KEY (id, part));
INSERT INTO odd VALUES
  (1, 'a', -3, true, 1.1, 1e300, 1.500, 1.50, '0044-03-15', '1969-12-31 23:59:59.999999', '2024-02-29 12:00+02',
   '\\x00ff', 'ab', '', '00000000-0000-0000-0000-000000000001', 'ok', '{"a": 1.0}', '{"b": [1, 2]}', '1 day', '{1,2}'),
  (1, 'ü:1', 32767, false, 'NaN', '-Infinity', 'NaN', -0.00, '9999-12-31', '0001-01-01', '1970-01-01 00:00+00', '', '',
   'tab\tnewline\n', NULL, NULL, 'null', '"x"', '-3 hours', '{}'),
  (2, '', NULL, NULL, -0.0, 0.1, 1234567890123456789012345690.123, 9999999999.99, NULL, NULL, NULL, NULL, NULL, '日本',
   NULL, NULL, NULL, NULL, NULL, NULL);
"""
ODD_COLUMNS = (
    "id, part, small, yes, real4, real8, exact, money2, day, moment, instant, bytes, code, word, tag, feeling, doc,"
    " docb, span, list"
)
ODD = """
    odd:
      source: {{type: postgres, connection: shop, table: odd}}
      capture: {{log: {{}}}}
      key: [id, part]
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """A pipeline that has run; tests may change the source, and restore what they break in the lake."""
    made = Case(tmp_path_factory.mktemp("reconcile"))
    made.run()
    yield made
    drop_slots(made.client)


@cache
def loaded(root: Path) -> Location:
    return load_location(root)


def look(case: Case, stream: str = "orders") -> Reconciled:
    """Compare a table, in this process."""
    location = loaded(case.shop.root)
    for log in location.logs(case.name):
        for one in log.streams:
            if one.name == stream:
                source = location.resource(log.connection)
                lake = Lake(uri=str(case.shop.root / ".lake"))
                return compared(log, one, source, lake, location.engine, new_run())
    raise AssertionError(stream)


def handle(case: Case, layer: str = "bronze", table: str = "orders") -> Any:
    opened = Lake(uri=str(case.shop.root / ".lake")).table(layer, case.name, table).open()
    assert opened is not None
    return opened


def said(found: Reconciled) -> list[tuple[str, str]]:
    return [(str(one.key[0]), one.what) for one in found.differences]


def append_again(case: Case, layer: str, where: str) -> None:
    """Write rows of a table into it once more."""
    from deltalake import write_deltalake

    opened = handle(case, layer)
    rows = opened.delta.to_pyarrow_table()
    import pyarrow.compute as pc

    write_deltalake(opened.delta, rows.filter(pc.equal(rows["id"], int(where))), mode="append")


def test_what_is_wrong_in_the_lake_is_found_and_nothing_else(case: Case) -> None:
    case.client.execute("UPDATE orders SET amount = -1 WHERE id = 7; DELETE FROM orders WHERE id = 48")
    case.client.execute("INSERT INTO orders VALUES (99, 1, 1, 'new')")
    found = look(case)
    assert found.agrees, found
    assert found.rows == 50
    version = handle(case).version
    for change, expected in {
        "DELETE FROM b WHERE id = 5": ("5", "missing in the lake"),
        "UPDATE note = 'other' WHERE id = 6": ("6", "other values in the lake"),
        "UPDATE id = 10000 WHERE id = 6": ("10000", "not in the source"),
    }.items():
        opened = handle(case)
        verb, _, condition = change.partition(" WHERE ")
        if verb.startswith("DELETE"):
            opened.delta.delete(condition)
        else:
            column, _, value = verb.removeprefix("UPDATE ").partition(" = ")
            opened.delta.update({column: value}, predicate=condition)
        assert expected in said(look(case)), change
        handle(case).delta.restore(version)
    append_again(case, "bronze", "9")
    assert said(look(case)) == [("9", "the same change more than once")]
    handle(case).delta.restore(version)


def test_what_is_wrong_in_silver_alone_is_found(case: Case) -> None:
    case.run()
    version = handle(case, "silver").version
    handle(case, "silver").delta.delete("id = 5")
    assert said(look(case)) == [("5", "missing in silver")]
    handle(case, "silver").delta.restore(version)
    handle(case, "silver").delta.update({"note": "'other'"}, predicate="id = 6")
    assert said(look(case)) == [("6", "other values in silver")]
    handle(case, "silver").delta.restore(version)
    append_again(case, "silver", "7")
    assert said(look(case)) == [("7", "more than once in silver")]
    handle(case, "silver").delta.restore(version)


@pytest.mark.soak
def test_every_type_is_compared_or_named(tmp_path: Path) -> None:
    case = Case(tmp_path)
    try:
        case.client.execute(ALL_TYPES)
        path = case.shop.root / case.shop.package / f"defs/{case.name}/defs.yaml"
        path.write_text(path.read_text() + ODD.replace("{{", "{").replace("}}", "}"))
        case.run()
        # All of it a second time, out of the log.
        others = ODD_COLUMNS.removeprefix("id, ")
        case.client.execute(f"INSERT INTO odd SELECT id + 10, {others} FROM odd")
        case.run()
        found = look(case, "odd")
        assert found.rows == 6
        assert (found.left_out, said(found)) == ({"list": "its type is not compared"}, [])
        for name in ("real4", "moment", "docb"):
            version = handle(case, "bronze", "odd").version
            handle(case, "bronze", "odd").delta.update({name: "NULL"}, predicate="id = 11 AND part = 'a'")
            assert ("11", "other values in the lake") in said(look(case, "odd")), name
            handle(case, "bronze", "odd").delta.restore(version)
    finally:
        drop_slots(case.client)


def test_a_busy_writer_gives_no_false_alarm(case: Case) -> None:
    stop, errors = threading.Event(), []

    def write(number: int) -> None:
        try:
            with case.server.connect(case.database) as client:
                turn = 0
                while not stop.wait(0.01):
                    turn += 1
                    at = (number + 1) * 1000 + turn % 40
                    with client.transaction():
                        client.execute("DELETE FROM orders WHERE id = %s", [at])
                        client.execute("INSERT INTO orders VALUES (%s, 1, %s, 'busy')", [at, turn])
                        row = 1 + turn % 20 + 20 * number
                        client.execute("UPDATE orders SET amount = amount + 1 WHERE id = %s", [row])
        except BaseException as error:
            errors.append(error)
            raise

    writers = [threading.Thread(target=write, args=[number]) for number in (0, 1)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(2):
            found = look(case)
            assert found.agrees, found.differences
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert errors == []


def test_a_transaction_that_is_under_way_is_no_difference(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """It commits after the snapshot and is landed before the comparison."""
    segments = postgres_compared.PostgresCompared.segments

    def meanwhile(self: Any, *given: Any) -> Any:
        done = segments(self, *given)
        case.client.execute("UPDATE orders SET amount = amount + 1; DELETE FROM orders WHERE id = 3")
        return done

    monkeypatch.setattr(postgres_compared.PostgresCompared, "segments", meanwhile)
    assert look(case).agrees
    monkeypatch.setattr(postgres_compared, "_seen", lambda *_: "true")
    assert not look(case).agrees


def test_the_command_names_the_keys_and_a_new_snapshot_repairs_them(case: Case) -> None:
    handle(case).delta.update({"note": "'other'"}, predicate="id IN (6, 7, 8)")
    ended = case.shop.etl("capture", "reconcile", case.name, "orders", "--limit", "2")
    assert ended.code == 1
    assert "other values in the lake" in ended.out
    assert "etl capture resnapshot" in ended.out
    (one,) = case.shop.etl("capture", "reconcile", case.name, "orders", "--json").data
    assert {each["key"][0] for each in one["differences"]} == {"6", "7", "8"}
    assert case.shop.etl("capture", "reconcile", case.name, "nothing").code == 2
    assert case.shop.etl("capture", "resnapshot", case.name).code == 0
    case.run()
    assert case.shop.etl("capture", "reconcile", case.name).code == 0


def test_the_check_runs_when_it_is_asked_for_and_only_then(case: Case) -> None:
    from etl_assets.cli.project import entered

    version = handle(case).version
    handle(case).delta.update({"note": "'other'"}, predicate="id = 6")
    import os

    os.environ["ETL_PROJECT"] = str(case.shop.root)
    try:
        with entered(None) as project:
            key = dg.AssetKey(["silver", case.name, "orders"])
            asked = execute(project, Request(case.name, checks=[dg.AssetCheckKey(key, "agrees_with_source")]))
            (check,) = asked.checks
            assert (check.name, check.passed) == ("agrees_with_source", False)
            handle(case).delta.restore(version)
            plain = execute(project, Request(case.name, keys=[key]))
            assert "agrees_with_source" not in [one.name for one in plain.checks]
    finally:
        del os.environ["ETL_PROJECT"]


def test_a_comparison_that_is_broken_on_purpose_is_found(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(case).agrees
    monkeypatch.setattr(reconcile_lake, "_hash", lambda texts: "0::BIGINT" if len(texts) > 1 else "1::BIGINT")
    assert not look(case).agrees
