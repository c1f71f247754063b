from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from etl_checks.asset_checks import check_results, check_specs
from etl_checks.contract import Contract, load_contract
from etl_checks.rule_builder import check_name
from etl_checks.rules import RuleResult

HERE = Path(__file__).parent / "contracts"
ORDERS = load_contract(HERE / "orders.odcs.yaml")
PEOPLE = yaml.safe_load((HERE / "people.odcs.yaml").read_text())
KEY = dg.AssetKey(["silver", "orders"])


def judged(contract: Contract, **different: dict[str, Any]) -> list[RuleResult]:
    """Results of a sound table, but for the rules (ids with _ for .) that are said to differ."""
    results = []
    for rule in contract.rules:
        values = {"checked": 10, "failed": 0, "passed": True, **different.get(check_name(rule.id), {})}
        results.append(RuleResult(rule, **values))
    return results


def run(contract: Contract, results: list[RuleResult]) -> tuple[dg.ExecuteInProcessResult, bool]:
    """Materialise a table with these results and say whether what is downstream was built."""
    built = []

    @dg.asset(key=KEY, check_specs=check_specs(contract, KEY))
    def orders() -> Any:
        yield dg.MaterializeResult(check_results=list(check_results(results, KEY)))

    @dg.asset(deps=[KEY])
    def gold() -> None:
        built.append(True)

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize([orders, gold], instance=instance, raise_on_error=False), bool(built)


def evaluations(done: dg.ExecuteInProcessResult) -> dict[str, Any]:
    return {found.check_name: found for found in done.get_asset_check_evaluations()}


def test_each_error_rule_is_a_check_and_the_warnings_are_one() -> None:
    names = [spec.name for spec in check_specs(ORDERS, KEY)]
    errors = [rule for rule in ORDERS.rules if rule.severity == "error"]
    assert names == [*(check_name(rule.id) for rule in errors), "contract_warnings"]
    assert names == [result.check_name for result in check_results(judged(ORDERS), KEY)]
    assert "foreign_key_customer_id" in names
    assert "email_present" not in names


def test_a_contract_without_warnings_has_no_check_for_them() -> None:
    people = load_contract(HERE / "people.odcs.yaml")
    assert "contract_warnings" not in [spec.name for spec in check_specs(people, KEY)]
    assert "contract_warnings" not in [result.check_name for result in check_results(judged(people), KEY)]


def test_rules_that_hold_pass_with_their_numbers() -> None:
    done, built = run(ORDERS, judged(ORDERS, pattern_code={"rejected": 4}))
    assert done.success
    assert built
    found = evaluations(done)
    assert all(evaluation.passed for evaluation in found.values())
    numbers = {name: value.value for name, value in found["pattern_code"].metadata.items()}
    assert numbers == {"failed": 0, "checked": 10, "share": 0.0, "rejected": 4}


def test_an_error_rule_that_is_broken_stops_what_is_downstream() -> None:
    done, built = run(ORDERS, judged(ORDERS, unique_code={"failed": 3, "rows": 5, "passed": False}))
    assert not done.success
    assert not built
    broken = evaluations(done)["unique_code"]
    assert not broken.passed
    assert broken.severity == dg.AssetCheckSeverity.ERROR
    numbers = {name: value.value for name, value in broken.metadata.items()}
    assert numbers == {"failed": 3, "checked": 10, "share": 0.3, "rows": 5}
    assert "3 of 10 rows" in str(broken.description)


def test_a_rule_that_only_warns_stops_nothing() -> None:
    results = judged(
        ORDERS, freshness_ordered_at={"passed": False, "failed": 1}, email_present={"passed": False, "failed": 7}
    )
    done, built = run(ORDERS, results)
    assert done.success
    assert built
    found = evaluations(done)
    assert not found["freshness_ordered_at"].passed
    assert not found["contract_warnings"].passed
    assert found["contract_warnings"].severity == dg.AssetCheckSeverity.WARN
    first = found["contract_warnings"].metadata["rules"].records[0].data
    assert (first["rule"], first["failed"], first["share"]) == ("email_present", 7, 0.7)


def test_a_rule_that_could_not_run_has_not_passed_and_says_nothing_about_the_data() -> None:
    broken = {"passed": None, "error": "Conversion Error", "checked": 0}
    done, built = run(ORDERS, judged(ORDERS, pattern_code=broken, email_present=broken))
    assert not done.success
    assert not built
    found = evaluations(done)
    single = found["pattern_code"]
    assert not single.passed
    assert single.severity == dg.AssetCheckSeverity.ERROR
    assert "could not be evaluated" in str(single.description)
    assert set(single.metadata) == {"error"}
    rolled_up = found["contract_warnings"]
    assert not rolled_up.passed
    assert rolled_up.severity == dg.AssetCheckSeverity.ERROR
    assert rolled_up.metadata["unknown"].value == 1


def wide(rules: int, folder: Path) -> Contract:
    document = copy.deepcopy(PEOPLE)
    document["schema"][0]["quality"] = [
        {"id": f"rule_{n}", "type": "sql", "query": f"id > {n}", "mustBe": 0} for n in range(rules)
    ]
    del document["slaProperties"]
    del document["schema"][0]["properties"][0]["primaryKey"]
    file = folder / "wide.odcs.yaml"
    file.write_text(yaml.safe_dump(document))
    return load_contract(file)


def test_more_than_fifty_error_rules_are_one_check(tmp_path: Path) -> None:
    assert len(check_specs(wide(50, tmp_path), KEY)) == 50
    contract = wide(51, tmp_path)
    (spec,) = check_specs(contract, KEY)
    assert (spec.name, spec.blocking) == ("contract_rules", True)
    done, built = run(contract, judged(contract, rule_7={"passed": False, "failed": 2}))
    assert not built
    (found,) = evaluations(done).values()
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR
    assert found.description == "1 of 51 rules do not hold"
    assert found.metadata["rules"].records[0].data["rule"] == "rule_7"
    assert len(found.metadata["rules"].records) == 51


def test_names_that_dagster_refuses_are_made_fit_and_stay_apart(tmp_path: Path) -> None:
    document = copy.deepcopy(PEOPLE)
    for name in ("日本", "中国", "a b", 'x"y', "été"):
        document["schema"][0]["properties"].append({"name": name, "logicalType": "string", "required": True})
    file = tmp_path / "names.odcs.yaml"
    file.write_text(yaml.safe_dump(document, allow_unicode=True))
    specs = check_specs(load_contract(file), KEY)
    assert len({spec.name for spec in specs}) == len(specs) == 9
    assert next(spec for spec in specs if spec.metadata["rule"] == "required.日本").name.startswith("required_")
