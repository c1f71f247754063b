"""Turns the entries of `quality:` into rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from etl_checks.mistakes import Place, did_you_mean, listed
from etl_checks.rule_builder import RuleBuilder
from etl_checks.rules import Threshold

_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "nullValues": (),
    "missingValues": ("missingValues",),
    "invalidValues": ("validValues", "pattern"),
    "duplicateValues": ("properties",),
    "rowCount": (),
}
_OF_COLUMNS = ("nullValues", "missingValues", "invalidValues")


def read_quality(entry: dict[str, Any], place: Place, builder: RuleBuilder, column: str | None) -> None:
    """Add the rule of one quality entry, of a column or (None) of the table."""
    if builder.mistakes.touch(place):
        return
    builder.check_custom(entry, place)
    kind = entry.get("type", "library")
    if kind == "text":
        return  # the standard's way to write down what no machine checks
    if kind == "custom":
        builder.mistakes.add((*place, "type"), "rules for another engine are not run here: write library or sql")
        return
    for key in ("schedule", "scheduler", "rule"):
        if key in entry:
            builder.mistakes.add((*place, key), "has no meaning here: rules run with every load; 'metric' names them")
    if kind == "sql":
        threshold = builder.threshold(entry, place, counts_bad_rows=True)
        columns = (column,) if column else ()
        builder.add("expression", columns, place, entry, params={"sql": entry["query"]}, threshold=threshold)
    elif "metric" not in entry:
        builder.mistakes.add((*place, "metric"), f"is missing: {listed(_ARGUMENTS)}")
    else:
        _LibraryRule(entry, entry["metric"], entry.get("arguments") or {}, place, builder, column).read()


@dataclass(frozen=True)
class _LibraryRule:
    entry: dict[str, Any]
    metric: str
    arguments: dict[str, Any]
    place: Place
    builder: RuleBuilder
    column: str | None

    def read(self) -> None:
        if not self._arguments_known() or not self._placed():
            return
        if self.metric == "rowCount":
            self._add("row_count", ())
        elif self.metric == "duplicateValues":
            self._read_unique()
        elif self.column not in self.builder.columns:
            return  # its type could not be read, which has been reported
        elif self.metric == "nullValues":
            self._add("required", (self.column,))
        elif self.metric == "missingValues":
            self._read_missing(self.column)
        else:
            self._read_invalid(self.column)

    def _add(self, kind: Any, columns: tuple[str, ...], params: dict[str, Any] | None = None) -> None:
        self.builder.add(kind, columns, self.place, self.entry, params=params, threshold=self._threshold())

    def _threshold(self) -> Threshold:
        return self.builder.threshold(self.entry, self.place, counts_bad_rows=self.metric != "rowCount")

    def _mistake(self, message: str, *steps: str) -> None:
        self.builder.mistakes.add((*self.place, *steps), message)

    def _arguments_known(self) -> bool:
        known = _ARGUMENTS[self.metric]
        unknown = [key for key in self.arguments if key not in known]
        for key in unknown:
            hint = did_you_mean(key, known) or (f"; it takes {listed(known)}" if known else "; it takes none")
            self._mistake(f"{self.metric} has no argument {key!r}{hint}", "arguments", key)
        return not unknown

    def _placed(self) -> bool:
        if self.metric == "rowCount" and self.column:
            self._mistake("rowCount is a rule of the table: write it under the table's quality", "metric")
        elif self.metric in _OF_COLUMNS and not self.column:
            self._mistake(f"{self.metric} is a rule of a column: write it under the column's quality", "metric")
        else:
            return True
        return False

    def _listed(self, key: str) -> list[Any]:
        values = self.arguments.get(key)
        if not isinstance(values, list) or not values:
            self._mistake(f"needs {key}: a list of values", "arguments")
            return []
        return values

    def _read_unique(self) -> None:
        if self.column and "properties" in self.arguments:
            self._mistake("several columns are a rule of the table", "arguments", "properties")
            return
        names = [self.column] if self.column else self._listed("properties")
        for name in names:
            if name not in self.builder.columns:
                hint = did_you_mean(name, self.builder.columns)
                self._mistake(f"there is no column {name!r}{hint}", "arguments", "properties")
        if names and not self.builder.mistakes.touch(self.place):
            self._add("unique", tuple(names))

    def _read_missing(self, column: str) -> None:
        values = [value for value in self._listed("missingValues") if value is not None]
        if self.builder.typed(values, column, (*self.place, "arguments")):
            params = {"missing": tuple(values), "type": self.builder.columns[column].duckdb_type}
            self._add("required", (column,), params)

    def _read_invalid(self, column: str) -> None:
        if len(self.arguments) != 1:
            self._mistake("invalidValues needs validValues or pattern, one of them", "arguments")
        elif "pattern" in self.arguments:
            pattern = self.arguments["pattern"]
            if isinstance(pattern, str) and self.builder.columns[column].duckdb_type == "VARCHAR":
                self._add("pattern", (column,), {"pattern": pattern})
            else:
                self._mistake("a pattern is a string, and for a column of strings", "arguments", "pattern")
        elif values := self._listed("validValues"):
            self.builder.add_allowed(values, column, self.place, self.entry, threshold=self._threshold())
