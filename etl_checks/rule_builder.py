"""Makes rules and keeps their common parts right: severity, on_fail, threshold, description, unique names."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from typing import Any, cast

from etl_checks.columns import Column, custom_properties, typed_value
from etl_checks.mistakes import Mistakes, Place, did_you_mean, listed
from etl_checks.rules import (
    NONE_BAD,
    ON_FAIL,
    OPERATORS,
    SEVERITIES,
    TABLE_KINDS,
    UPPER_LIMITS,
    Kind,
    OnFail,
    Rule,
    Severity,
    Threshold,
)

RESERVED_CHECKS = {"contract_rules", "contract_warnings", "rows_are_conserved"}
_CUSTOM = ("on_fail", "severity", "privacy")


def check_name(rule_id: str) -> str:
    """Return the name of a rule's asset check: Dagster allows letters, digits and underscores."""
    name = re.sub(r"[.\-+]", "_", rule_id)
    if re.fullmatch(r"[A-Za-z0-9_]+", name):
        return name
    return f"{re.sub(r'[^A-Za-z0-9_]', '_', name)}_{zlib.crc32(rule_id.encode()):08x}"


@dataclass
class RuleBuilder:
    """Collects the rules of one contract."""

    columns: dict[str, Column]
    mistakes: Mistakes
    rules: list[Rule] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        kind: Kind,
        columns: tuple[str, ...],
        place: Place,
        settings: Any,
        *,
        params: dict[str, Any] | None = None,
        threshold: Threshold = NONE_BAD,
        own: bool = True,
    ) -> None:
        """Add a rule.

        `settings` is the element whose `id`, `severity`, `description` and customProperties apply; with `own` false it
        is the column's, of which a rule takes what fits it (a rule about the table cannot reject rows).
        """
        named = settings.get("id") if own else None
        rule_id = named or ".".join([kind, *(["+".join(columns)] if columns else [])])
        severity, on_fail = self._handling(kind, place, settings, threshold, own=own)
        params = params or {}
        self._check_name(rule_id, place, named is not None)
        self.rules.append(
            Rule(
                id=rule_id,
                kind=kind,
                columns=columns,
                scope="table" if kind in TABLE_KINDS else "row",
                severity=severity,
                on_fail=on_fail,
                description=(own and settings.get("description")) or describe(kind, columns, params, threshold),
                params=params,
                threshold=threshold,
                origin=place,
            )
        )

    def threshold(self, entry: dict[str, Any], place: Place, *, counts_bad_rows: bool) -> Threshold:
        """Return the threshold of a quality entry, after noting what is not sane about it."""
        operator = next((name for name in OPERATORS if name in entry), "mustBe")
        raw = entry.get(operator, 0)
        values = raw if isinstance(raw, list) else [raw]
        unit = entry.get("unit", "rows")
        if unit not in ("rows", "percent"):
            self.mistakes.add(
                (*place, "unit"), f"{unit!r} is not rows or percent{did_you_mean(unit, ('rows', 'percent'))}"
            )
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            self.mistakes.add((*place, operator), f"takes a number, not {raw!r}")
            return NONE_BAD
        threshold = Threshold(operator, tuple(values) if len(values) == 2 else values[0], unit == "percent")
        problem = _senseless(threshold, values, counts_bad_rows=counts_bad_rows)
        if problem:
            self.mistakes.add((*place, operator), problem)
        return threshold

    def add_allowed(
        self,
        values: list[Any],
        name: str,
        place: Place,
        settings: Any,
        *,
        threshold: Threshold = NONE_BAD,
        own: bool = True,
    ) -> None:
        """Add a rule of allowed values, unless some are not of the column's type."""
        if self.typed(values, name, place):
            params = {"values": tuple(values), "type": self.columns[name].duckdb_type}
            self.add("allowed", (name,), place, settings, params=params, own=own, threshold=threshold)

    def typed(self, values: list[Any], name: str, place: Place) -> bool:
        """Whether all values are of the column's type; notes those that are not."""
        kind = self.columns[name].logical_type
        wrong = [value for value in values if not typed_value(value, kind)]
        for value in wrong:
            why = "; YAML reads it so unless it is quoted" if kind == "string" else ""
            self.mistakes.add(place, f"the value {value!r} is no {kind}{why}")
        return not wrong

    def check_custom(self, element: Any, place: Place) -> None:
        """Note customProperties that look like ours and are not; others belong to other tools."""
        for index, entry in enumerate(element.get("customProperties") or ()):
            name = entry.get("property") if isinstance(entry, dict) else None
            flat = str(name).lower().replace("-", "_")
            near = next((known for known in _CUSTOM if flat.replace("_", "") == known.replace("_", "")), None)
            if near and name != near:
                self.mistakes.add((*place, "customProperties", index, "property"), f"{name!r}; did you mean {near!r}?")

    def _handling(
        self, kind: Kind, place: Place, settings: Any, threshold: Threshold, *, own: bool
    ) -> tuple[Severity, OnFail]:
        custom = custom_properties(settings)
        on_fail = self._choice(custom.get("on_fail"), ON_FAIL, "on_fail", place)
        severity = self._choice(settings.get("severity") or custom.get("severity"), SEVERITIES, "severity", place)
        table = kind in TABLE_KINDS
        if on_fail == "reject" and (table or threshold.tolerates):
            if own:
                why = "judges the whole table" if table else "has a threshold, and rows are rejected one by one"
                self.mistakes.add(place, f"on_fail reject is not possible: the rule {why}; take fail or warn")
            on_fail = None
        if on_fail is None:
            on_fail = _default(kind, severity, table=table, threshold=threshold)
        if severity is None:
            severity = "warning" if on_fail == "warn" and kind != "freshness" else "error"
        if on_fail == "fail" and severity != "error":
            self.mistakes.add(place, f"on_fail fail contradicts severity {severity}: what stops a load is an error")
        return cast("Severity", severity), cast("OnFail", on_fail)

    def _choice(self, value: Any, allowed: tuple[str, ...], name: str, place: Place) -> str | None:
        if value is None or value in allowed:
            return value
        self.mistakes.add(place, f"{name} {value!r} is not {listed(allowed)}{did_you_mean(value, allowed)}")
        return None

    def _check_name(self, rule_id: str, place: Place, named: bool) -> None:  # noqa: FBT001
        name = check_name(rule_id)
        if name in RESERVED_CHECKS:
            self.mistakes.add(place, f"the id {rule_id!r} is taken by the platform's own checks")
        if rule_id.lower() in (column.lower() for column in self.columns):
            self.mistakes.add((*place, "id"), f"{rule_id!r} is the name of a column: give the rule another id")
        # SQL takes upper and lower case for one.
        other = self._names.setdefault(name.lower(), rule_id)
        if other is rule_id:
            return
        twice = (
            f"the rule {rule_id!r} is there twice" if other == rule_id else f"{rule_id!r} and {other!r} are too alike"
        )
        self.mistakes.add((*place, "id") if named else place, f"{twice}: give one of them another id")


def _default(kind: Kind, severity: str | None, *, table: bool, threshold: Threshold) -> OnFail:
    if severity in ("warning", "info") or kind == "freshness":
        # Stale data are not mended by holding the load back.
        return "warn"
    return "fail" if table or threshold.tolerates else "reject"


def _senseless(threshold: Threshold, values: list[float], *, counts_bad_rows: bool) -> str | None:
    operator = threshold.operator
    if any(not 0 <= value < float("inf") for value in values):
        return "a number of rows is 0 or more"
    if threshold.percent and (max(values) > 100 or not counts_bad_rows):
        return "percent is 0 to 100, and of bad rows"
    if len(values) == 2 and values[0] > values[1]:
        return "the lower number comes first"
    if operator == "mustBeLessThan" and values[0] == 0:
        return "nothing is less than 0 rows"
    if counts_bad_rows and (operator not in UPPER_LIMITS or (operator == "mustBe" and values[0] != 0)):
        return "this counts bad rows: write mustBe: 0, mustBeLessThan or mustBeLessOrEqualTo"
    return None


def describe(kind: Kind, columns: tuple[str, ...], params: dict[str, Any], threshold: Threshold) -> str:
    """Return the rule in words, for people."""
    name = ", ".join(columns)
    limits = [
        f"{words} {params[key]}"
        for key, words in {
            "minimum": "at least",
            "exclusive_minimum": "more than",
            "maximum": "at most",
            "exclusive_maximum": "less than",
        }.items()
        if key in params
    ]
    text = {
        "required": f"{name} is there",
        "unique": f"{name} is unique" if len(columns) == 1 else f"{name} are unique together",
        "range": f"{name} is {' and '.join(limits)}",
        "length": f"the length of {name} is {' and '.join(limits)}",
        "pattern": f"{name} matches {params.get('pattern')}",
        "format": f"{name} has the format {params.get('format')}",
        "allowed": f"{name} is one of {len(params.get('values', ()))} allowed values",
        "foreign_key": f"{name} is found in {params.get('table')} ({', '.join(params.get('columns', ()))})",
        "expression": str(params.get("sql")),
        "row_count": f"the number of rows is {threshold}",
        "freshness": f"the newest {name} is at most {params.get('seconds', 0) / 3600:g} hours old",
    }[kind]
    return text if kind in ("row_count", "freshness") or not threshold.tolerates else f"{text} (bad rows: {threshold})"
