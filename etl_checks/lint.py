"""What only an SQL engine can tell about a contract: whether patterns compile and expressions make sense."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from etl_checks.columns import Column
from etl_checks.expressions import row_condition
from etl_checks.mistakes import Place, did_you_mean
from etl_checks.odcs import parse_yaml
from etl_checks.rules import Rule
from etl_resources.engines.duckdb import literal, quote
from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    import duckdb

    from etl_checks.contract import Contract


def lint_contract(contract: Contract) -> None:
    """Compile every pattern with RE2 and bind every expression to the columns' types, in an empty DuckDB.

    Raises:
        ConfigurationError: with all mistakes at once.
    """
    problems = rule_problems(contract.columns, contract.rules)
    if problems:
        _, mistakes = parse_yaml(contract.path.read_text(encoding="utf-8"), contract.path)
        for place, problem in problems:
            mistakes.add(place, problem)
        mistakes.report()


def rule_problems(columns: tuple[Column, ...], rules: tuple[Rule, ...]) -> list[tuple[Place, str]]:
    """Return what is wrong with patterns and expressions, each with its place in the YAML."""
    checked = [rule for rule in rules if rule.kind in ("pattern", "expression")]
    if not checked:
        return []
    import duckdb

    problems = []
    with duckdb.connect(config={"enable_external_access": "false"}) as connection:
        for rule in checked:
            if rule.kind == "pattern":
                problem = _pattern_problem(connection, rule.params["pattern"])
            else:
                problem = _expression_problem(connection, rule.params["sql"], columns)
            if problem:
                problems.append((rule.origin, problem))
    return problems


def _pattern_problem(connection: duckdb.DuckDBPyConnection, pattern: str) -> str | None:
    import duckdb

    try:
        connection.execute(f"SELECT regexp_matches('', {literal(pattern)})").fetchall()
    except duckdb.Error as error:
        return f"the pattern {pattern!r} is not RE2 (no lookaround, no back-references): {_first_line(error)}"
    return None


def _expression_problem(connection: duckdb.DuckDBPyConnection, sql: str, columns: tuple[Column, ...]) -> str | None:
    import duckdb

    try:
        condition = row_condition(sql)
    except ConfigurationError as error:
        return error.what
    empty = ", ".join(f"CAST(NULL AS {column.duckdb_type}) AS {quote(column.name)}" for column in columns)
    try:
        described = connection.execute(f"DESCRIBE SELECT {condition} FROM (SELECT {empty}) AS t").fetchall()  # noqa: S608
    except duckdb.Error as error:
        unknown = _unknown_column(sql, columns)
        return unknown or f"the expression {sql!r} cannot be run: {_first_line(error)}"
    if described[0][1] != "BOOLEAN":
        return f"the expression {sql!r} gives {described[0][1]}, not true or false"
    return _volatile(connection, condition)


def _unknown_column(sql: str, columns: tuple[Column, ...]) -> str | None:
    import sqlglot
    from sqlglot import exp

    known = {column.name.lower(): column.name for column in columns}
    for node in sqlglot.parse_one(sql, dialect="duckdb").find_all(exp.Column):
        name = node.parts[0].name
        if name.lower() not in known:
            return f"the expression {sql!r} names {name!r}, which is no column{did_you_mean(name, known.values())}"
    return None


def _volatile(connection: duckdb.DuckDBPyConnection, condition: str) -> str | None:
    """A rule that gives another answer for the same row cannot be replayed."""
    from sqlglot.dialects.duckdb import DuckDB
    from sqlglot.tokens import TokenType

    tokens = DuckDB().tokenize(condition)
    called = [a.text.lower() for a, b in pairwise(tokens) if b.token_type == TokenType.L_PAREN]
    found = connection.execute(
        "SELECT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE' AND list_contains(?, function_name)",
        [called],
    ).fetchall()
    return f"the function {found[0][0]} gives another answer for the same row every time" if found else None


def _first_line(error: duckdb.Error) -> str:
    return str(error).split("\n", maxsplit=1)[0]
