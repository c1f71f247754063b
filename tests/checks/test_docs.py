from __future__ import annotations

import re
from pathlib import Path

import yaml

from etl_checks import formats
from etl_checks.contract import load_contract
from etl_checks.fused import evaluate
from etl_checks.lint import lint_contract
from tests.checks.engine import NOW, connected, table

DOCS = Path(__file__).parents[2] / "docs" / "contracts.md"


def test_the_contract_in_the_docs_loads_and_means_what_they_say(tmp_path: Path) -> None:
    text = DOCS.read_text(encoding="utf-8")
    file = tmp_path / "orders.odcs.yaml"
    file.write_text(re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[0])
    contract = load_contract(file)
    lint_contract(contract)
    assert contract.owners == ("team:sales-data", "ada@example.org")
    assert contract.personal_columns == ("email",)
    on_fail = {rule.id: rule.on_fail for rule in contract.rules}
    assert on_fail["foreign_key.customer_id"] == "reject"
    assert on_fail["range.amount"] == "fail"
    assert on_fail["most_have_an_email"] == "warn"
    assert on_fail["freshness.ordered_at"] == "warn"
    with connected() as connection:
        table(connection, "customers", {"customer_id": "BIGINT"}, [[1]])
        rows = [
            [1, 1, "a@b.co", "open", 1, "2024-06-01 10:00:00+00", None],
            [2, 7, None, "lost", -1, "2024-06-01 11:00:00+00", "2024-01-01"],
        ]
        table(connection, "orders", contract.duckdb_types(), rows)
        results = evaluate(connection, "orders", contract.rules, references={"customers": "customers"}, now=NOW)
    assert {r.rule.id for r in results if not r.passed} == {
        "foreign_key.customer_id",
        "most_have_an_email",
        "allowed.status",
        "range.amount",
        "shipped_after_ordered",
    }


def test_the_docs_name_every_format_and_every_kind_of_rule() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in formats.NAMES if name not in text] == []
    cases = yaml.safe_load((Path(__file__).parent / "contracts" / "truth.yaml").read_text())
    tested = {case["column"].get("logicalTypeOptions", {}).get("format") for case in cases}
    assert set(formats.NAMES) - tested == {"url"}, "every format has its case of good and bad values"
