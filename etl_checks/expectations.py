"""Export of a contract to a Great Expectations suite, for those who have their reports there (extra `expectations`).

Great Expectations takes 6 to 17 seconds to import, so nothing here is imported while definitions load.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from etl_checks import formats
from etl_checks.rules import Rule
from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

    from etl_checks.contract import Contract

_SEVERITY = {"error": "critical", "warning": "warning", "info": "info"}


def expectation_suite(contract: Contract) -> ExpectationSuite:
    """Return the contract's rules as expectations; each has its rule's id in `meta["rule"]`.

    Rules that have no expectation (foreign keys, expressions, freshness, limits that a share cannot say) are listed in
    the suite's `meta["not_exported"]`.

    Raises:
        ConfigurationError: Great Expectations is not installed.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    try:
        import great_expectations as gx
        from great_expectations import expectations as gxe
    except ImportError as error:
        raise ConfigurationError(
            "Great Expectations is not installed", fix="pip install 'etl-platform[expectations]'"
        ) from error
    expectations, left_out = [], []
    for rule in contract.rules:
        translated = _translated(rule)
        if translated is None:
            left_out.append(rule.id)
            continue
        name, arguments = translated
        expectation = getattr(gxe, name)
        expectations.append(expectation(**arguments, meta={"rule": rule.id}, severity=_SEVERITY[rule.severity]))
    meta = {"contract": contract.id, "version": contract.version, "not_exported": left_out}
    return gx.ExpectationSuite(name=contract.name, expectations=expectations, meta=meta)


def _translated(rule: Rule) -> tuple[str, dict[str, Any]] | None:
    """Return the expectation's class and arguments, or None if there is none that means the same."""
    if rule.kind == "row_count":
        return _row_count(rule)
    if rule.kind not in _TRANSLATIONS or rule.params.get("missing"):
        return None
    share = _mostly(rule)
    if share is None:
        return None
    name, arguments = _TRANSLATIONS[rule.kind](rule)
    return name, {**arguments, **share}


def _mostly(rule: Rule) -> dict[str, float] | None:
    if not rule.threshold.tolerates:
        return {}
    if rule.threshold.percent and rule.threshold.operator == "mustBeLessOrEqualTo" and rule.kind != "unique":
        return {"mostly": 1 - float(rule.threshold.value) / 100}  # type: ignore[arg-type] # one limit, not two
    return None


def _row_count(rule: Rule) -> tuple[str, dict[str, Any]] | None:
    operator, value = rule.threshold.operator, rule.threshold.value
    if isinstance(value, tuple):
        limits: dict[str, Any] = {"min_value": value[0], "max_value": value[1]} if operator == "mustBeBetween" else {}
    else:
        limits = {
            "mustBe": {"min_value": value, "max_value": value},
            "mustBeGreaterThan": {"min_value": value, "strict_min": True},
            "mustBeGreaterOrEqualTo": {"min_value": value},
            "mustBeLessThan": {"max_value": value, "strict_max": True},
            "mustBeLessOrEqualTo": {"max_value": value},
        }.get(operator, {})
    return ("ExpectTableRowCountToBeBetween", limits) if limits else None


def _range(rule: Rule) -> tuple[str, dict[str, Any]]:
    params = rule.params
    arguments = {
        "min_value": _limit(params, "minimum"),
        "max_value": _limit(params, "maximum"),
        "strict_min": "exclusive_minimum" in params,
        "strict_max": "exclusive_maximum" in params,
    }
    return "ExpectColumnValuesToBeBetween", {"column": rule.columns[0], **arguments}


def _limit(params: Mapping[str, Any], name: str) -> Any:
    value = params.get(name, params.get(f"exclusive_{name}"))
    if isinstance(value, str):
        return (date if params["type"] == "DATE" else datetime).fromisoformat(value)
    return value


def _unique(rule: Rule) -> tuple[str, dict[str, Any]]:
    if len(rule.columns) == 1:
        return "ExpectColumnValuesToBeUnique", {"column": rule.columns[0]}
    return "ExpectCompoundColumnsToBeUnique", {
        "column_list": list(rule.columns),
        "ignore_row_if": "any_value_is_missing",
    }


def _length(rule: Rule) -> tuple[str, dict[str, Any]]:
    limits = {"min_value": rule.params.get("minimum"), "max_value": rule.params.get("maximum")}
    return "ExpectColumnValueLengthsToBeBetween", {"column": rule.columns[0], **limits}


def _regex(rule: Rule) -> tuple[str, dict[str, Any]]:
    pattern = rule.params["pattern"] if rule.kind == "pattern" else formats.pattern(rule.params["format"])
    return "ExpectColumnValuesToMatchRegex", {"column": rule.columns[0], "regex": pattern}


_TRANSLATIONS: dict[str, Callable[[Rule], tuple[str, dict[str, Any]]]] = {
    "required": lambda rule: ("ExpectColumnValuesToNotBeNull", {"column": rule.columns[0]}),
    "unique": _unique,
    "range": _range,
    "length": _length,
    "pattern": _regex,
    "format": _regex,
    "allowed": lambda rule: (
        "ExpectColumnValuesToBeInSet",
        {"column": rule.columns[0], "value_set": list(rule.params["values"])},
    ),
}
