"""One query that judges all rules of a table in one scan, and the same conditions for use inside other queries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from etl_checks.expressions import ROW
from etl_checks.predicates import Joins, bad_if, column
from etl_checks.rules import Rule, RuleResult
from etl_resources.engines.duckdb import quote
from etl_resources.exceptions import EngineError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Violations:
    """Row rules as SQL over a relation with the alias `t`.

    `joins_sql` comes after `FROM <relation> AS t`; `conditions` maps a rule's id to a boolean that is TRUE when the row
    is bad and never NULL; `sql` is the whole: all columns of the relation and one boolean column per rule.
    """

    joins_sql: str
    conditions: Mapping[str, str]
    sql: str


def row_violations(rules: Sequence[Rule], relation: str, *, references: Mapping[str, str]) -> Violations:
    """Return the row rules among `rules` as SQL; rules about the whole table are left out.

    `relation` and the values of `references` (by table name as in the contract) are what may stand after FROM.
    The number of rows is never changed by the joins.

    Raises:
        ConfigurationError: a foreign key names a table that is not in `references`, or an expression is not allowed.
    """
    of_rows = [rule for rule in rules if rule.scope == "row"]
    joins = Joins(of_rows, references)
    conditions = {rule.id: f"coalesce({bad_if(rule, joins.alias(rule))}, FALSE)" for rule in of_rows}
    flags = "".join(f",\n  {condition} AS {quote(rule_id)}" for rule_id, condition in conditions.items())
    sql = f"SELECT {ROW}.*{flags}\nFROM {relation} AS {ROW}\n{joins.sql}"
    return Violations(joins.sql, conditions, sql)


def evaluate(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    rules: Sequence[Rule],
    *,
    references: Mapping[str, str],
    now: datetime,
) -> list[RuleResult]:
    """Return one result per rule, in order, from one query over the relation (which must be readable more than once).

    `now` (with time zone) is what freshness is measured against; timestamps without a zone are UTC. When the query
    fails, each rule runs by itself: a rule that cannot run has `error` and no verdict, the others have theirs.

    Raises:
        EngineError: the relation itself cannot be read.
        ConfigurationError: as for `row_violations`.
    """
    import duckdb

    if not rules:
        return []
    try:
        return _judged(connection, relation, rules, references, now)
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        _check_readable(connection, relation, error)
    return [_alone(connection, relation, rule, references, now) for rule in rules]


def bad_rows(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    rules: Sequence[Rule],
    *,
    references: Mapping[str, str],
    limit: int = 20,
    hidden: Sequence[str] = (),
) -> dict[str, pa.Table]:
    """Return up to `limit` rows per rule that break it (uniqueness: rows that share a key), for people to look at.

    Rules about a number of rows or freshness have none and are left out, as are the columns in `hidden`.

    Raises:
        EngineError: a query could not be run.
    """
    import duckdb

    shown = f"{ROW}.*" + (f" EXCLUDE ({', '.join(map(quote, hidden))})" if hidden else "")
    samples = {}
    for rule in rules:
        if rule.kind in ("row_count", "freshness"):
            continue
        joins = Joins([rule], references)
        where = _shared_key(rule, relation) if rule.kind == "unique" else bad_if(rule, joins.alias(rule))
        sql = f"SELECT {shown} FROM {relation} AS {ROW} {joins.sql} WHERE {where} LIMIT {int(limit)}"  # noqa: S608
        try:
            samples[rule.id] = connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise EngineError(f"no sample of bad rows: {_reason(error)}", where=f"the rule {rule.id}") from error
    return samples


def _judged(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    rules: Sequence[Rule],
    references: Mapping[str, str],
    now: datetime,
) -> list[RuleResult]:
    cursor = connection.execute(_fused_sql(relation, rules, references))
    names = [entry[0] for entry in cursor.description]
    numbers = dict(zip(names, cursor.fetchall()[0], strict=True))
    return [_result(rule, index, numbers, now) for index, rule in enumerate(rules)]


def _fused_sql(relation: str, rules: Sequence[Rule], references: Mapping[str, str]) -> str:
    joins = Joins(rules, references)
    aggregates, parts = ["count(*) AS n"], []
    for index, rule in enumerate(rules):
        if rule.scope == "row":
            # Half the cost of count(*) FILTER (WHERE …) at 100 rules.
            aggregates.append(f"count_if({bad_if(rule, joins.alias(rule))}) AS r{index}")
        elif rule.kind == "freshness":
            aggregates.append(f"epoch_us(max({column(rule.columns[0])})) AS r{index}")
        elif rule.kind == "unique":
            parts.append(_unique_sql(rule, index, relation))
    main = f"(SELECT {', '.join(aggregates)} FROM {relation} AS {ROW} {joins.sql})"  # noqa: S608
    return f"SELECT * FROM {', '.join([main, *parts])}"  # noqa: S608


def _unique_sql(rule: Rule, index: int, relation: str) -> str:
    """Grouping spills to disk where count(DISTINCT) would not, and knows the rows that share a key as well."""
    keys = ", ".join(column(name) for name in rule.columns)
    return (
        f"(SELECT coalesce(sum(c), 0) AS n{index}, coalesce(sum(c - 1), 0) AS r{index},"  # noqa: S608
        f" coalesce(sum(c) FILTER (WHERE c > 1), 0) AS d{index}"
        f" FROM (SELECT count(*) AS c FROM {relation} AS {ROW} WHERE {_complete(rule)} GROUP BY {keys}))"
    )


def _complete(rule: Rule) -> str:
    return " AND ".join(f"{column(name)} IS NOT NULL" for name in rule.columns)


def _shared_key(rule: Rule, relation: str) -> str:
    keys = ", ".join(column(name) for name in rule.columns)
    return (
        f"({keys}) IN (SELECT ({keys}) FROM {relation} AS {ROW}"  # noqa: S608
        f" WHERE {_complete(rule)} GROUP BY {keys} HAVING count(*) > 1)"
    )


def _result(rule: Rule, index: int, numbers: Mapping[str, Any], now: datetime) -> RuleResult:
    rows = int(numbers["n"])
    if rule.kind == "row_count":
        passed = rule.threshold.holds(rows, rows)
        return RuleResult(rule, checked=rows, failed=int(not passed), observed=rows, passed=passed)
    found = numbers[f"r{index}"]
    if rule.kind == "freshness":
        newest = None if found is None else _EPOCH + timedelta(microseconds=found)
        # No newest row is not a fresh one.
        passed = newest is not None and now - newest <= timedelta(seconds=rule.params["seconds"])
        return RuleResult(rule, checked=rows, failed=int(not passed), observed=newest, passed=passed)
    failed = int(found or 0)  # count_if over no rows is NULL
    if rule.kind == "unique":
        checked = int(numbers[f"n{index}"])
        passed = rule.threshold.holds(failed, checked)
        return RuleResult(rule, checked, failed, rows=int(numbers[f"d{index}"]), observed=failed, passed=passed)
    return RuleResult(rule, checked=rows, failed=failed, observed=failed, passed=rule.threshold.holds(failed, rows))


def _alone(
    connection: duckdb.DuckDBPyConnection, relation: str, rule: Rule, references: Mapping[str, str], now: datetime
) -> RuleResult:
    import duckdb

    try:
        return _judged(connection, relation, [rule], references, now)[0]
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        return RuleResult(rule, error=_reason(error))


def _check_readable(connection: duckdb.DuckDBPyConnection, relation: str, cause: duckdb.Error) -> None:
    import duckdb

    try:
        connection.execute(f"SELECT count(*) FROM {relation} AS {ROW}").fetchall()  # noqa: S608
    except duckdb.Error as error:
        raise EngineError(f"the table cannot be read, no rule was evaluated: {_reason(error)}") from cause


def _reason(error: duckdb.Error) -> str:
    """Return the engine's words without quoted values, which may be personal data, and without the query."""
    return re.sub(r"'.*'", "'…'", str(error).split("\n\n", maxsplit=1)[0].split("\nLINE ")[0], flags=re.DOTALL)
