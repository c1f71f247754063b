"""What a rule is: the same object whether it came out of a contract file or was made in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal[
    "required",
    "unique",
    "range",
    "length",
    "pattern",
    "format",
    "allowed",
    "foreign_key",
    "expression",
    "row_count",
    "freshness",
]
Scope = Literal["row", "table"]
Severity = Literal["error", "warning", "info"]
OnFail = Literal["reject", "fail", "warn"]

SEVERITIES: tuple[str, ...] = get_args(Severity)
ON_FAIL: tuple[str, ...] = get_args(OnFail)
TABLE_KINDS = frozenset({"unique", "row_count", "freshness"})
UPPER_LIMITS = ("mustBe", "mustBeLessThan", "mustBeLessOrEqualTo")
"""Operators that make sense for a number of bad rows; `mustBe` only with 0."""
OPERATORS = (
    *UPPER_LIMITS,
    "mustNotBe",
    "mustBeGreaterThan",
    "mustBeGreaterOrEqualTo",
    "mustBeBetween",
    "mustNotBeBetween",
)


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a rule's number must be; `percent` compares the share of the checked rows, 0 to 100."""

    operator: str = "mustBe"
    value: float | tuple[float, float] = 0
    percent: bool = False

    @property
    def tolerates(self) -> bool:
        """Whether a table with a bad row can pass."""
        if self.operator == "mustBeLessThan":
            return self.percent or self.value != 1
        return not (self.value == 0 and self.operator in ("mustBe", "mustBeLessOrEqualTo"))

    def holds(self, number: int, checked: int) -> bool:
        """Whether `number`, or its share of `checked` rows (0 of 0 rows is 0 %), is as it must be."""
        if self.percent and checked:
            # Compared as number * 100 <=> limit * checked: a division would move the boundary.
            return _compare(self.operator, number * 100, _scaled(self.value, checked))
        return _compare(self.operator, number, self.value)

    def __str__(self) -> str:
        words = {
            "mustBe": "exactly {}",
            "mustNotBe": "anything but {}",
            "mustBeGreaterThan": "more than {}",
            "mustBeGreaterOrEqualTo": "at least {}",
            "mustBeLessThan": "less than {}",
            "mustBeLessOrEqualTo": "at most {}",
            "mustBeBetween": "between {} and {}",
            "mustNotBeBetween": "not between {} and {}",
        }[self.operator]
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        return words.format(*values) + (" %" if self.percent else "")


def _scaled(value: float | tuple[float, float], by: int) -> float | tuple[float, float]:
    return (value[0] * by, value[1] * by) if isinstance(value, tuple) else value * by


def _compare(operator: str, number: float, value: float | tuple[float, float]) -> bool:
    if isinstance(value, tuple):
        within = value[0] <= number <= value[1]
        return within if operator == "mustBeBetween" else not within
    return {
        "mustBe": number == value,
        "mustNotBe": number != value,
        "mustBeGreaterThan": number > value,
        "mustBeGreaterOrEqualTo": number >= value,
        "mustBeLessThan": number < value,
        "mustBeLessOrEqualTo": number <= value,
    }[operator]


NONE_BAD = Threshold()


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that must hold.

    A rule of scope `row` judges each row by that row alone (and by the table a foreign key names); a rule of scope
    `table` judges all rows together. NULL passes every rule except `required`. What `params` holds, by kind:

    - required: `missing` (values that also count as absent)
    - range: `minimum`, `maximum`, `exclusive_minimum`, `exclusive_maximum`, `type` (DuckDB type of the column)
    - length: `minimum`, `maximum` (characters of a string, elements of a list)
    - pattern: `pattern` (RE2, found anywhere in the value)
    - format: `format` (a name in `etl_checks.formats`)
    - allowed: `values`, `type`
    - foreign_key: `table`, `columns` (of that table, in the order of the rule's columns)
    - expression: `sql` (a condition over the row)
    - row_count: nothing
    - freshness: `seconds` (greatest age of the newest value)
    """

    id: str
    kind: Kind
    columns: tuple[str, ...]
    scope: Scope
    severity: Severity
    on_fail: OnFail
    description: str
    params: Mapping[str, Any] = field(default_factory=dict)
    threshold: Threshold = NONE_BAD
    origin: tuple[str | int, ...] = field(default=(), compare=False, repr=False)
    """Where it is written in the contract's YAML."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Values of `columns` must be found in `to_columns` of `table`, which is named as in gold SQL."""

    columns: tuple[str, ...]
    table: str
    to_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Freshness:
    """The newest value of `column` may be `seconds` old."""

    column: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What became of one rule over one table.

    `checked` is the number of rows looked at (uniqueness: rows whose key has no NULL), `failed` how many were bad
    (uniqueness: surplus rows; row count and freshness: 1 or 0). `rows` is, for uniqueness, how many rows share their
    key with another. `observed` is the number or the timestamp that was judged. `passed` is None exactly when `error`
    says why the rule could not be evaluated: neither passed nor bad data. `rejected` is for the caller, who knows how
    many rows the rule kept out of the table.
    """

    rule: Rule
    checked: int = 0
    failed: int = 0
    rows: int | None = None
    observed: Any = None
    passed: bool | None = None
    error: str | None = None
    rejected: int = 0

    @property
    def share(self) -> float:
        """Failed rows as a share of the checked ones, 0 to 1."""
        return self.failed / self.checked if self.checked else 0.0
