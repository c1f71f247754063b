"""Row rules as SQL: for each kind the condition under which the row `t` is bad. A condition that is NULL is not bad."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etl_checks import formats
from etl_checks.expressions import ROW, row_condition
from etl_checks.rules import Rule
from etl_resources.engines.duckdb import literal, quote
from etl_resources.exceptions import ConfigurationError


def column(name: str) -> str:
    """Return a column of the judged row, quoted."""
    return f"{ROW}.{quote(name)}"


def bad_if(rule: Rule, reference: str | None) -> str:
    """Return the condition under which a row is bad; `reference` is the alias of a foreign key's joined table."""
    if rule.kind == "foreign_key":
        present = [f"{column(name)} IS NOT NULL" for name in rule.columns]
        return " AND ".join([f"{reference}.{_key(0, reference)} IS NULL", *present])
    return _CONDITIONS[rule.kind](rule)


class Joins:
    """The joins that the foreign keys among some rules need; equal ones are made once."""

    def __init__(self, rules: Sequence[Rule], references: Mapping[str, str]) -> None:
        """Take SQL relations by table name.

        Raises:
            ConfigurationError: a foreign key names a table that `references` does not have.
        """
        self._aliases: dict[tuple[Any, ...], str] = {}
        parts = []
        for rule in rules:
            key = _join_key(rule)
            if key is None or key in self._aliases:
                continue
            table = rule.params["table"]
            if table not in references:
                raise ConfigurationError(
                    f"the rule {rule.id} refers to {table}, which is not there",
                    fix="name a table of this pipeline, or pipeline.table of another",
                )
            alias = self._aliases[key] = f"_ref{len(self._aliases)}"
            parts.append(_join(rule, alias, references[table]))
        self.sql = "\n".join(parts)

    def alias(self, rule: Rule) -> str | None:
        """Return the alias of the table that a rule refers to; None for other kinds."""
        return self._aliases.get(_join_key(rule) or ())


def _join_key(rule: Rule) -> tuple[Any, ...] | None:
    return (rule.params["table"], rule.params["columns"], rule.columns) if rule.kind == "foreign_key" else None


def _key(index: int, alias: str | None) -> str:
    return quote(f"{alias}_k{index}")


def _join(rule: Rule, alias: str, relation: str) -> str:
    keys = [(quote(theirs), _key(index, alias)) for index, theirs in enumerate(rule.params["columns"])]
    # DISTINCT: a parent key that comes twice must not double the rows of the child.
    distinct = ", ".join(f"{theirs} AS {key}" for theirs, key in keys)
    on = " AND ".join(f"{column(ours)} = {alias}.{key}" for ours, (_, key) in zip(rule.columns, keys, strict=True))
    return f"LEFT JOIN (SELECT DISTINCT {distinct} FROM {relation}) AS {alias} ON {on}"  # noqa: S608


def constant(value: Any, duckdb_type: str) -> str:
    """Return a value of a contract as an SQL constant that compares with a column of that type."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        # Not cast to the column's type, which could round the limit away.
        return repr(value)
    return literal(value) if duckdb_type == "VARCHAR" else f"CAST({literal(str(value))} AS {duckdb_type})"


def _required(rule: Rule) -> str:
    name = column(rule.columns[0])
    missing = rule.params.get("missing")
    return f"{name} IS NULL" + (f" OR {name} IN ({_constants(missing, rule)})" if missing else "")


def _range(rule: Rule) -> str:
    name, duckdb_type = column(rule.columns[0]), rule.params["type"]
    outside = {"minimum": "<", "exclusive_minimum": "<=", "maximum": ">", "exclusive_maximum": ">="}
    parts = [
        f"{name} {operator} {constant(rule.params[key], duckdb_type)}"
        for key, operator in outside.items()
        if key in rule.params
    ]
    if duckdb_type in ("DOUBLE", "FLOAT"):
        # DuckDB sorts NaN above every number, so a minimum alone would let it through.
        parts.append(f"isnan({name})")
    return " OR ".join(parts)


def _length(rule: Rule) -> str:
    name = column(rule.columns[0])
    outside = {"minimum": "<", "maximum": ">"}
    return " OR ".join(
        f"len({name}) {sign} {int(rule.params[key])}" for key, sign in outside.items() if key in rule.params
    )


def _pattern(rule: Rule) -> str:
    return f"NOT regexp_matches({column(rule.columns[0])}, {literal(rule.params['pattern'])})"


def _format(rule: Rule) -> str:
    return f"NOT regexp_matches({column(rule.columns[0])}, {literal(formats.pattern(rule.params['format']))})"


def _allowed(rule: Rule) -> str:
    return f"{column(rule.columns[0])} NOT IN ({_constants(rule.params['values'], rule)})"


def _expression(rule: Rule) -> str:
    return f"NOT ({row_condition(rule.params['sql'])})"


def _constants(values: Sequence[Any], rule: Rule) -> str:
    return ", ".join(constant(value, rule.params["type"]) for value in values)


_CONDITIONS: dict[str, Callable[[Rule], str]] = {
    "required": _required,
    "range": _range,
    "length": _length,
    "pattern": _pattern,
    "format": _format,
    "allowed": _allowed,
    "expression": _expression,
}
