"""Rules as Dagster asset checks: one per error rule, one for all warnings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_checks.rule_builder import check_name
from etl_checks.rules import Rule, RuleResult

if TYPE_CHECKING:
    from etl_checks.contract import Contract

MOST_CHECKS = 50
"""More error rules than this become one check: every check of a run costs about 60 ms in the event log at 200."""
ALL_RULES = "contract_rules"
WARNINGS = "contract_warnings"


def check_specs(contract: Contract, asset_key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Return a check per rule of severity error, and `contract_warnings` for the others if there are any.

    A check blocks what is downstream unless its rule's `on_fail` is warn. More than 50 error rules are one check,
    `contract_rules`.
    """
    errors, others = _split(contract.rules)
    specs = [
        dg.AssetCheckSpec(
            check_name(rule.id),
            asset=asset_key,
            description=rule.description,
            blocking=rule.on_fail != "warn",
            metadata={"rule": rule.id, "kind": rule.kind, "on_fail": rule.on_fail, "columns": ", ".join(rule.columns)},
        )
        for rule in errors
    ]
    if len(errors) > MOST_CHECKS:
        blocking = any(rule.on_fail != "warn" for rule in errors)
        text = f"all {len(errors)} error rules of the contract"
        specs = [dg.AssetCheckSpec(ALL_RULES, asset=asset_key, description=text, blocking=blocking)]
    if others:
        text = f"{len(others)} rules of severity warning or info"
        specs.append(dg.AssetCheckSpec(WARNINGS, asset=asset_key, description=text, blocking=False))
    return specs


def check_results(results: Sequence[RuleResult], asset_key: dg.AssetKey) -> Iterator[dg.AssetCheckResult]:
    """Yield the results for the checks of `check_specs`; `results` are those of all rules of the contract.

    A rule that could not be evaluated has not passed; its check says so, and that nothing is known about the data.
    """
    by_rule = {result.rule.id: result for result in results}
    errors, others = _split([result.rule for result in results])
    if len(errors) > MOST_CHECKS:
        yield _rolled_up(ALL_RULES, [by_rule[rule.id] for rule in errors], asset_key, dg.AssetCheckSeverity.ERROR)
    else:
        for rule in errors:
            yield _single(by_rule[rule.id], asset_key)
    if others:
        yield _rolled_up(WARNINGS, [by_rule[rule.id] for rule in others], asset_key, dg.AssetCheckSeverity.WARN)


def _split(rules: Iterable[Rule]) -> tuple[list[Rule], list[Rule]]:
    rules = list(rules)
    return [r for r in rules if r.severity == "error"], [r for r in rules if r.severity != "error"]


def _single(result: RuleResult, asset_key: dg.AssetKey) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {} if result.error else _numbers(result)
    if result.error:
        metadata["error"] = result.error
    return dg.AssetCheckResult(
        asset_key=asset_key,
        check_name=check_name(result.rule.id),
        passed=result.passed is True,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_verdict(result),
        metadata=metadata,
    )


def _numbers(result: RuleResult) -> dict[str, Any]:
    numbers: dict[str, Any] = {"failed": result.failed, "checked": result.checked, "share": result.share}
    if result.rule.on_fail == "reject":
        numbers["rejected"] = result.rejected
    if result.rows is not None:
        numbers["rows"] = result.rows
    if result.rule.kind == "freshness" and result.observed is not None:
        numbers["newest"] = dg.MetadataValue.timestamp(result.observed)
    return numbers


def _rolled_up(
    name: str, results: Sequence[RuleResult], asset_key: dg.AssetKey, severity: dg.AssetCheckSeverity
) -> dg.AssetCheckResult:
    broken = [result for result in results if result.passed is not True]
    unknown = [result for result in results if result.error]
    rows: list[dict[str, str | int | float | bool | None]] = [
        {
            "rule": result.rule.id,
            "verdict": _verdict(result),
            "failed": result.failed,
            "checked": result.checked,
            "share": result.share,
        }
        for result in sorted(results, key=lambda result: (result.passed is True, result.rule.id))
    ]
    # A rule that cannot run is a fault of the platform or the contract, whatever the rule's own severity is.
    return dg.AssetCheckResult(
        asset_key=asset_key,
        check_name=name,
        passed=not broken,
        severity=dg.AssetCheckSeverity.ERROR if unknown else severity,
        description=f"{len(broken)} of {len(results)} rules do not hold"
        if broken
        else f"all {len(results)} rules hold",
        metadata={
            "failed": len(broken),
            "checked": len(results),
            "share": len(broken) / len(results),
            "unknown": len(unknown),
            "rules": dg.MetadataValue.table([dg.TableRecord(row) for row in rows], schema=_ROLLED_UP),
        },
    )


_ROLLED_UP = dg.TableSchema(
    [
        dg.TableColumn("rule", "string"),
        dg.TableColumn("verdict", "string"),
        dg.TableColumn("failed", "int"),
        dg.TableColumn("checked", "int"),
        dg.TableColumn("share", "float"),
    ]
)


def _verdict(result: RuleResult) -> str:
    if result.error:
        return f"could not be evaluated, nothing is known about the data: {result.error}"
    if result.passed:
        return f"holds: {result.rule.description}"
    if result.rule.kind == "freshness":
        return f"does not hold: {result.rule.description}; it is {result.observed or 'not there'}"
    if result.rule.kind == "row_count":
        return f"does not hold: {result.rule.description}; there are {result.observed}"
    return f"does not hold: {result.rule.description}; {result.failed} of {result.checked} rows"
