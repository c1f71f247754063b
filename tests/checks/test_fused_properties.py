"""One fused query = one query per rule = the conditions used row by row = plain Python, for any table and rules."""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl_checks.fused import bad_rows, evaluate, row_violations
from etl_checks.rules import Rule, Threshold
from tests.checks.engine import NOW, connected, rule
from tests.soaking import examples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import duckdb

SCHEMA = pa.schema([("i", pa.int64()), ("d", pa.float64()), ("s", pa.string()), ("at", pa.timestamp("us"))])
# In RE2 `$` is the end of the text, in Python it also stands before a last line end.
PATTERNS = {"^[ab]+$": r"\A[ab]+\Z", "a": "a", "": "", r"^\d$": r"\A[0-9]\Z", "'": "'", "ß|日": "ß|日"}
PARENTS = [1, 1, 2, None, -3]

small = st.one_of(st.none(), st.integers(-4, 4))
doubles = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 0.5, -1.5, 3.0, math.nan, math.inf, -math.inf]))
texts = st.one_of(st.none(), st.text(alphabet="ab7'ß日\n ", max_size=3))
times = st.one_of(st.none(), st.sampled_from([NOW.replace(tzinfo=None) - timedelta(hours=h) for h in (0, 1, 2, 50)]))
rows = st.lists(st.tuples(small, doubles, texts, times), max_size=12)
thresholds = st.builds(
    Threshold,
    st.sampled_from(["mustBeLessThan", "mustBeLessOrEqualTo"]),
    st.integers(1, 60),
    st.booleans(),
) | st.just(Threshold())


@st.composite
def some_rule(draw: st.DrawFn) -> Rule:
    name = f"r{draw(st.integers(0, 10**9))}"
    kind: Any = draw(
        st.sampled_from(
            [
                "required",
                "unique",
                "range",
                "length",
                "pattern",
                "allowed",
                "foreign_key",
                "expression",
                "row_count",
                "freshness",
            ]
        )
    )
    columns, params = draw(_shape(kind))
    return rule(kind, *columns, named=name, threshold=draw(thresholds), **params)


def _shape(kind: str) -> st.SearchStrategy[tuple[tuple[str, ...], dict[str, Any]]]:
    limit = st.sampled_from([-2, 0, 0.5, 3])
    limits = st.dictionaries(
        st.sampled_from(["minimum", "exclusive_minimum", "maximum", "exclusive_maximum"]), limit, min_size=1, max_size=2
    )
    shapes: dict[str, Any] = {
        "required": st.sampled_from([(("i",), {}), (("d",), {}), (("s",), {"missing": ("", "a"), "type": "VARCHAR"})]),
        "unique": st.sampled_from([(("i",), {}), (("s",), {}), (("d",), {}), (("i", "s"), {})]),
        "range": limits.flatmap(
            lambda given: st.sampled_from(
                [(("i",), {**given, "type": "BIGINT"}), (("d",), {**given, "type": "DOUBLE"})]
            )
        ),
        "length": st.builds(
            lambda low, more: (("s",), {"minimum": low, "maximum": low + more}), st.integers(0, 2), st.integers(0, 2)
        ),
        "pattern": st.builds(lambda pattern: (("s",), {"pattern": pattern}), st.sampled_from(sorted(PATTERNS))),
        "allowed": st.sampled_from(
            [
                (("s",), {"values": ("a", "'", ""), "type": "VARCHAR"}),
                (("i",), {"values": (1, 2), "type": "BIGINT"}),
                (("d",), {"values": (0.5, 0), "type": "DOUBLE"}),
            ]
        ),
        "foreign_key": st.just((("i",), {"table": "parents", "columns": ("p",)})),
        "expression": st.just(((), {"sql": "i >= 0 OR s = 'a'"})),
        "row_count": st.just(((), {})),
        "freshness": st.just((("at",), {"seconds": 3600.0})),
    }
    return shapes[kind]


def bad_row(one: Rule, row: dict[str, Any]) -> bool:
    """What the rules mean, in plain Python."""
    value, params = row[one.columns[0]] if one.columns else None, one.params
    if one.kind == "required":
        return value is None or value in params.get("missing", ())
    if one.kind == "expression":
        first = None if row["i"] is None else row["i"] >= 0
        second = None if row["s"] is None else row["s"] == "a"
        return first is not True and second is not True and None not in (first, second)
    if value is None:
        return False
    if one.kind == "range":
        held = {
            "minimum": lambda limit: value >= limit,
            "exclusive_minimum": lambda limit: value > limit,
            "maximum": lambda limit: value <= limit,
            "exclusive_maximum": lambda limit: value < limit,
        }
        return not all(test(params[name]) for name, test in held.items() if name in params)
    return {
        "length": lambda: not params["minimum"] <= len(value) <= params["maximum"],
        "pattern": lambda: re.search(PATTERNS[params["pattern"]], value) is None,
        "allowed": lambda: value not in params["values"],
        "foreign_key": lambda: value not in PARENTS,
    }[one.kind]()


def key_of(one: Rule, row: dict[str, Any]) -> tuple[Any, ...] | None:
    values = tuple("NaN" if isinstance(v := row[name], float) and math.isnan(v) else v for name in one.columns)
    return None if None in values else values


def expected(one: Rule, table: list[dict[str, Any]]) -> tuple[int, int, int | None, bool]:
    """Return checked, failed, rows, passed."""
    if one.kind == "row_count":
        passed = one.threshold.holds(len(table), len(table))
        return len(table), int(not passed), None, passed
    if one.kind == "freshness":
        newest = max((row["at"] for row in table if row["at"]), default=None)
        passed = newest is not None and NOW.replace(tzinfo=None) - newest <= timedelta(hours=1)
        return len(table), int(not passed), None, passed
    if one.kind == "unique":
        keys = Counter(key for row in table if (key := key_of(one, row)) is not None)
        checked, surplus = keys.total(), keys.total() - len(keys)
        return checked, surplus, sum(n for n in keys.values() if n > 1), one.threshold.holds(surplus, checked)
    failed = sum(bad_row(one, row) for row in table)
    return len(table), failed, None, one.threshold.holds(failed, len(table))


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with connected() as opened:
        opened.register("parents", pa.table({"p": pa.array(PARENTS, pa.int64())}))
        yield opened


@given(rows=rows, rules=st.lists(some_rule(), min_size=1, max_size=8, unique_by=lambda one: one.id))
@pytest.mark.slow
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_four_ways_to_judge_a_table_agree(
    connection: duckdb.DuckDBPyConnection, rows: Sequence[tuple[Any, ...]], rules: list[Rule]
) -> None:
    table = [dict(zip(SCHEMA.names, row, strict=True)) for row in rows]
    connection.register("judged", pa.Table.from_pylist(table, schema=SCHEMA))
    references = {"parents": "parents"}
    fused = evaluate(connection, "judged", rules, references=references, now=NOW)
    alone = [evaluate(connection, "judged", [one], references=references, now=NOW)[0] for one in rules]
    assert fused == alone
    assert all(result.error is None for result in fused)
    assert [(r.checked, r.failed, r.rows, r.passed) for r in fused] == [expected(one, table) for one in rules]
    flags = connection.sql(row_violations(rules, "judged", references=references).sql).to_arrow_table()
    assert flags.num_rows == len(table)
    samples = bad_rows(connection, "judged", rules, references=references, limit=100)
    for result in fused:
        if result.rule.scope == "row":
            assert flags[result.rule.id].to_pylist().count(True) == result.failed
            assert flags[result.rule.id].null_count == 0
            assert samples[result.rule.id].num_rows == result.failed
        elif result.rule.kind == "unique":
            assert samples[result.rule.id].num_rows == result.rows
