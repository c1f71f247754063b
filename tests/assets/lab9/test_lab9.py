"""The course data: what must become of each of its records, and the pipeline that has to do it.

`expected.json` is what `derive.py` finds in the raw files record by record. The arithmetic behind it:

- customers: 2,500 records, 109 ids in another form (66 `CUST0003`, 43 `C-00017`); written in one form all 2,500
  differ, so all are kept: blank or broken e-mails, blank names and phones that reach nobody are no reason to lose a
  customer. 57 addresses are broken; the README counts 91 that are not valid, 34 of them blank.
- products: 600 records, 11 ids in another form; two have a blank id (they are the "duplicate"): rejected, as are four
  with a negative price; 594 stay.
- sales: 10,000 records; 67 lack the customer, 67 lack the product, 194 name a product that is not kept (35 of them one
  with a blank id, the others one with a negative price). 223 have a total off by more than 0.05: 82 of these have a
  quantity below 0, 75 a negative total, 66 a price of 0. The 310 rows whose customer seemed unknown find it, since
  `CUST0003` is `C000003`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl_assets.transforms.step import parse_steps
from etl_checks.contract import load_contract
from etl_checks.lint import lint_contract
from tests.assets.demo.running import Ran, run
from tests.assets.lab9 import derive

HERE = Path(__file__).parent
PIPELINE = HERE / "pipeline"
EXPECTED = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def ran(lab9_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(PIPELINE, lab9_folder, tmp_path_factory.mktemp("lake"))


def rows_by_fate(stream: str) -> dict[str, int]:
    """Return what silver's account must say: the fate of a record is the first rule of the contract that it breaks."""
    contract = load_contract(PIPELINE / f"{stream}.odcs.yaml")
    order = [f"required.{contract.key[0]}", *(rule.id for rule in contract.rules)]
    fates: dict[str, int] = {}
    for broken, rows in EXPECTED["fates"][stream].items():
        first = "kept" if broken == "kept" else min(broken.split("+"), key=order.index)
        name = f"key.{contract.key[0]}" if first == f"required.{contract.key[0]}" else first
        fates[name] = fates.get(name, 0) + rows
    return fates


def test_the_expected_fates_are_those_that_the_raw_files_show(lab9_folder: Path) -> None:
    assert derive.everything(lab9_folder) == EXPECTED


def test_every_record_has_a_fate() -> None:
    read = {stream: sum(rows_by_fate(stream).values()) for stream in EXPECTED["fates"]}
    assert read == {"customers": 2_500, "products": 600, "sales": 10_000}


def test_the_fates_by_the_first_rule_that_is_broken() -> None:
    assert rows_by_fate("customers") == {"kept": 2_500}
    assert rows_by_fate("products") == {"kept": 594, "range.price": 4, "key.product_id": 2}
    assert rows_by_fate("sales") == {
        "kept": 9_456,
        "foreign_key.product_id": 192,
        "total_agrees": 139,
        "quantity_sign": 79,
        "required.customer_id": 67,
        "required.product_id": 67,
    }


def test_no_segment_is_lost() -> None:
    assert sum(EXPECTED["segments"].values()) == 2_500
    assert EXPECTED["segments"]["VIP"] == 120


def test_the_pipeline_gives_every_record_its_fate(ran: Ran) -> None:
    for stream in EXPECTED["fates"]:
        told = {fate if fate == "kept" else f"rejected:{fate}": rows for fate, rows in rows_by_fate(stream).items()}
        assert ran.fates(stream) == told
        assert ran.unlisted[stream] == (), "everything that arrives is in silver"
        assert dict(ran.warnings[stream]) == EXPECTED["warnings"].get(stream, {})
    with ran.tables() as (session, relation):
        customers, sales = relation("silver", "customers"), relation("silver", "sales")
        segments = session.execute(f"SELECT segment, count(*) FROM {customers} GROUP BY segment")
        assert dict(segments) == EXPECTED["segments"]
        lost = f"SELECT count(*) FROM {sales} WHERE line_total IS NULL OR sold_at IS NULL"
        assert session.execute(lost) == [(0,)]
        revenue = session.execute(f"SELECT sum(revenue) FROM {relation('gold', 'revenue_by_segment_and_month')}")
        assert revenue == session.execute(f"SELECT sum(line_total) FROM {sales}")


def test_no_digit_of_a_phone_number_is_lost(ran: Ran, lab9_folder: Path) -> None:
    raw = {key: row["phone"] for key, row, _ in derive.customers(lab9_folder)}
    with ran.tables() as (session, relation):
        phones = dict(session.execute(f"SELECT customer_id, phone FROM {relation('silver', 'customers')}"))
    for key, written in raw.items():
        digits, kept = (re.sub(r"[^0-9]", "", text or "") for text in (written, phones[key]))
        assert kept.endswith(digits), (written, phones[key])
        assert bool(written) == bool(phones[key])


@pytest.mark.parametrize("stream", ["customers", "products", "sales"])
def test_the_pipeline_is_valid(stream: str) -> None:
    attributes: dict[str, Any] = yaml.safe_load((PIPELINE / "defs.yaml").read_text(encoding="utf-8"))["attributes"]
    settings = attributes["streams"][stream]
    parse_steps(settings["steps"], layer="silver", where=stream)
    contract = load_contract(PIPELINE / settings["contract"])
    lint_contract(contract)
    assert tuple(settings["key"]) == contract.key
    rules = {rule.id for rule in contract.rules}
    assert {rule for broken in EXPECTED["fates"][stream] for rule in broken.split("+")} <= {*rules, "kept"}
    warned = {rule.id for rule in contract.rules if rule.on_fail == "warn"}
    assert set(EXPECTED["warnings"].get(stream, {})) == warned
