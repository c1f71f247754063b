"""Steps together: rows and provenance stay, flags are booleans, values are computed once, SQL stays small."""

from __future__ import annotations

import time
from typing import Any

import duckdb
import ibis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from etl_assets.transforms import Draft, apply_steps, parse_steps
from etl_resources.exceptions import ConfigurationError
from tests.assets.transforms.casebook import Bench, Table
from tests.soaking import examples

COLUMNS = {"a": "string", "b": "string", "n": "int64", "_batch": "int64", "_op": "string"}
PROVENANCE = ["_batch", "_op", "_row"]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def drafted(table: ibis.Table, steps: list[Any], layer: str = "silver") -> Draft:
    return apply_steps(table, parse_steps(steps, layer=layer, where="shop/t"))  # type: ignore[arg-type]


ROW_STEPS: list[Any] = [
    "trim",
    {"lower": ["a"]},
    {"title": ["b"]},
    {"null_tokens": ["a"]},
    {"strip_html": ["b"]},
    {"number": {"column": "a", "type": "int64"}},
    {"cast": {"b": "date"}},
    {"date": {"column": "b", "formats": ["%Y-%m-%d"]}},
    {"boolean": {"column": "a", "on_error": "null"}},
    {"cast": {"n": "string"}},
    {"phone": {"column": "b", "region": "US", "on_error": "reject"}},
    {"fill": {"column": "b", "value": "2024-01-01"}},
    {"concatenate": {"columns": ["a", "n"], "into": "joined"}},
    {"split": {"column": "b", "separator": "-", "into": ["b1", "b2"]}},
    {"surrogate_key": {"columns": ["a", "b", "n"], "into": "key"}},
    {"add": {"twice": "coalesce(a::VARCHAR, '') || coalesce(a::VARCHAR, '')"}},
    {"filter": {"rule": "has_b", "where": {"column": "b", "is_null": False}}},
    {"filter": {"rule": "has_a", "where": "a IS NOT NULL"}},
    {"rename": {"n": "m", "a": "n2"}},
    {"select": ["b"]},
    {"drop": ["a"]},
]
TEXTS = st.one_of(
    st.none(),
    st.sampled_from(["", " ", "N/A", "2024-02-29", "12", "a-b-c", "<b>x</b>", "(524) 310-9119"]),
    st.text(max_size=6),
)


@pytest.mark.slow
@settings(
    max_examples=examples(8),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example takes long: a small one is not worth the wait
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    chosen=st.lists(st.integers(0, len(ROW_STEPS) - 1), unique=True, max_size=7),
    rows=st.lists(st.tuples(TEXTS, TEXTS, st.one_of(st.none(), st.integers(-9, 9))), max_size=5),
)
def test_silver_keeps_every_row_and_its_provenance(bench: Bench, chosen: list[int], rows: list[Any]) -> None:
    """For any steps in any order: as many rows as came in, `_` columns untouched, flags never NULL."""
    rows = [
        (None if a is None else a.replace("\0", ""), None if b is None else b.replace("\0", ""), n) for a, b, n in rows
    ]
    table = bench.load("given", Table(COLUMNS, [(a, b, n, 7, "insert") for a, b, n in rows]))
    try:
        draft = drafted(table, [ROW_STEPS[number] for number in chosen])
    except ConfigurationError:
        return  # a step met a column that an earlier one had dropped or changed to another type
    result = bench.run(draft)
    assert [[row[name] for name in PROVENANCE] for row in result] == [[7, "insert", n] for n in range(len(rows))]
    for flag in draft.flags:
        assert all(row[flag.column] in (True, False) for row in result)


def test_flags_come_in_the_order_of_the_steps_and_hit_by_themselves(bench: Bench) -> None:
    table = bench.load("given", Table({"n": "string"}, [("x",), ("5",), ("50",), (None,)]))
    draft = drafted(table, [
        {"cast": {"n": "int64"}},
        {"filter": {"rule": "small", "where": "n < 10"}},
        {"filter": {"rule": "known", "where": "n IS NOT NULL"}},
    ])  # fmt: skip
    assert [(flag.fate, flag.rule, flag.column) for flag in draft.flags] == [
        ("rejected", "cast.n", "__flag_0"),
        ("filtered", "small", "__flag_1"),
        ("filtered", "known", "__flag_2"),
    ]
    assert draft.flags[0].reason == "n is no int64"
    hits = [[row[flag.column] for flag in draft.flags] for row in bench.run(draft)]
    assert hits == [[True, True, True], [False, False, False], [False, True, False], [False, True, True]]


def test_gold_leaves_filtered_rows_out_and_has_no_flags(bench: Bench) -> None:
    table = bench.load("given", Table({"n": "int64"}, [(1,), (2,), (None,)]))
    draft = drafted(
        table, [{"add": {"m": "n * 2"}}, {"filter": {"rule": "r", "where": "m > 2"}}, {"drop": ["n"]}], "gold"
    )
    assert draft.flags == ()
    assert [row["m"] for row in bench.run(draft)] == [4]


def test_a_filter_between_window_steps_works_on_what_was_there(bench: Bench) -> None:
    table = bench.load("given", Table({"n": "int64"}, [(1,), (2,), (3,), (4,)]))
    draft = drafted(table, [
        {"window": {"order_by": "n", "columns": {"total": {"cumulative_sum": "n"}}}},
        {"filter": {"rule": "even", "where": "n % 2 = 0"}},
        {"window": {"order_by": "n", "columns": {"number": "row_number"}}},
        {"filter": {"rule": "last", "where": "number = 2"}},
    ], "gold")  # fmt: skip
    assert [(row["n"], row["total"], row["number"]) for row in bench.run(draft)] == [(4, 10, 2)]


@pytest.mark.parametrize(
    "step",
    [
        {"cast": {"a": "int64"}},
        {"number": {"column": "a"}},
        {"phone": {"column": "a", "on_error": "reject"}},
        {"country": ["a"]},
    ],
    ids=str,
)
def test_in_gold_a_value_that_does_not_convert_stops_the_run_and_is_not_shown(bench: Bench, step: Any) -> None:
    draft = drafted(bench.load("given", Table({"a": "string"}, [("secret!",)])), [step], "gold")
    with pytest.raises(duckdb.InvalidInputException, match="shop/t, step 1") as caught:
        bench.run(draft)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"trim": ["aa"]}, "unknown column 'aa'; did you mean 'a'?"),
        ({"trim": ["n"]}, "trim works on text, and column 'n' is int64"),
        ({"clip": {"column": "a", "lower": 0}}, "clip works on number, and column 'a' is string"),
        ({"clip": {"column": "n", "upper": 0.5}}, "0.5 has more decimals than int64"),
        ({"fill": {"column": "n", "value": "x"}}, "'x' does not fit column 'n' of type int64"),
        ({"fill": {"column": "n", "value": 0.5}}, "0.5 does not fit"),
        ({"filter": {"rule": "r", "where": {"column": "n", "equals": "today"}}}, "'today' does not fit"),
        ({"drop": ["x"]}, "unknown column 'x'"),
        ({"select": ["x"]}, "unknown column 'x'"),
        ({"rename": {"x": "y"}}, "unknown column 'x'"),
        ({"rename": {"a": "b"}}, "two columns would be called 'b'"),
        ({"rename": {"a": "B"}}, "columns 'B' and 'b' differ in case only"),
        ({"add": {"A": "1"}}, "differ in case only"),
        ({"drop": ["a", "b", "n"]}, "drop leaves no column"),
        ({"flatten": ["a"]}, "flatten works on structs"),
        ({"split": {"column": "a", "separator": "-", "into": ["b", "c"]}}, "two columns would be called 'b'"),
        ({"split": {"column": "n", "separator": "-", "into": ["x", "y"]}}, "split works on text"),
        ({"concatenate": {"columns": ["a"], "into": "b"}}, "two columns would be called 'b'"),
        ({"date": {"column": "n", "formats": ["%Y"]}}, "date reads text, and the column is int64"),
        ({"filter": {"rule": "r", "where": {"column": "n", "matches": "x"}}}, "matches works on text"),
        ({"country": {"column": "a", "also": {"XX": ["Nowhere"]}}}, "'XX' is not a code"),
        ({"country": {"column": "a", "also": {"DE": ["France"]}}}, "'France' stands for 'FR' already"),
        ({"hash": {"columns": ["x"], "into": "h"}}, "unknown column 'x'"),
    ],
    ids=str,
)
def test_mistake_about_columns_names_the_step(step: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        drafted(ibis.table(COLUMNS, name="given"), [step])
    assert says in caught.value.what
    assert caught.value.where.startswith("shop/t, step 1 (")


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"group_by": {"by": "x", "aggregates": {"c": "count"}}}, "unknown column 'x'"),
        ({"group_by": {"by": "a", "aggregates": {"a": "count"}}}, "two columns would be called 'a'"),
        (
            {"group_by": {"by": "a", "aggregates": {"c": {"sum": "b"}}}},
            "sum works on numbers, and column 'b' is string",
        ),
        ({"window": {"order_by": "n desk", "columns": {"c": "rank"}}}, "unknown column 'n desk'"),
        ({"window": {"order_by": "n", "columns": {"c": {"cumulative_sum": "a"}}}}, "cumulative_sum works on numbers"),
        ({"z_score": ["a"]}, "z_score works on numbers"),
        ({"unnest": {"column": "a", "key": ["n"]}}, "unnest works on lists"),
        ({"unpivot": {"columns": ["a", "n"]}}, "columns of one type, not a string, n int64"),
        ({"unpivot": {"columns": ["a"], "names_to": "b"}}, "two columns would be called 'b'"),
        ({"join": {"with": "silver/x", "by": ["a"]}}, "there is no table 'silver/x'"),
        ({"correlation": ["a", "n"]}, "correlation works on numbers"),
        ({"deduplicate": ["x"]}, "unknown column 'x'"),
        (
            {"pivot": {"rows": ["a"], "column": "n", "values": ["x"], "aggregate": "count"}},
            "'x' does not fit column 'n'",
        ),
    ],
    ids=str,
)
def test_mistake_about_columns_in_gold(step: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        drafted(ibis.table(COLUMNS, name="given"), [step], "gold")
    assert says in caught.value.what
    assert "shop/t, step 1" in str(caught.value)


def test_a_join_that_would_double_a_name_says_so() -> None:
    steps = parse_steps([{"join": {"with": "c", "by": ["a"], "suffix": "2"}}], layer="gold", where="x")
    right = ibis.table({"a": "string", "b": "string"}, name="c")
    left = ibis.table({"a": "string", "b": "string", "b2": "string"}, name="given")
    with pytest.raises(ConfigurationError, match="two columns would be called 'b2'"):
        apply_steps(left, steps, tables={"c": right}.__getitem__)
    with pytest.raises(ConfigurationError, match="unknown column 'z'"):
        apply_steps(
            left,
            parse_steps([{"join": {"with": "c", "by": {"a": "z"}}}], layer="gold", where="x"),
            tables={"c": right}.__getitem__,
        )


def test_what_is_needed_often_is_written_once() -> None:
    """Each step uses its column two times or more: written out, the SQL would double with every step."""
    table = ibis.table({"a": "string"}, name="given")
    steps = [{"add": {"a": "CASE WHEN length(a) > 3 THEN a || 'x' ELSE a || a END"}}] * 12
    sql = ibis.to_sql(drafted(table, steps).table, dialect="duckdb")
    assert sql.count("CASE") == 12


def test_independent_steps_share_a_subquery() -> None:
    columns = {f"c{number}": "string" for number in range(10)}
    table = ibis.table(columns, name="given")
    sql = ibis.to_sql(drafted(table, [{"cast": {name: "int64"}} for name in columns]).table, dialect="duckdb")
    assert sql.count("SELECT") <= 3


def test_thirty_steps_on_fifty_columns_compile_fast() -> None:
    """Under half a second on an idle core (docs/transforms.md); the bound leaves room for a busy machine."""
    text, numbers = [f"t{n}" for n in range(30)], [f"n{n}" for n in range(20)]
    table = ibis.table(dict.fromkeys([*text, *numbers], "string") | {"_row": "int64"}, name="given")
    steps: list[Any] = ["trim", {"collapse_whitespace": text}, {"null_tokens": text}, {"lower": text[:5]}]
    steps += [{"cast": dict.fromkeys(numbers[:10], "decimal(12,2)")}, {"number": {"columns": numbers[10:]}}]
    steps += [{"add": {f"x{n}": f"n{n} * n{n + 1}"}} for n in range(8)]
    steps += [{"filter": {"rule": f"r{n}", "where": f"n{n} >= 0"}} for n in range(8)]
    steps += [{"fill": {"column": f"t{n}", "value": "x"}} for n in range(8)]
    assert len(steps) == 30
    parsed = parse_steps(steps, layer="silver", where="x")

    def seconds() -> float:
        start = time.process_time()
        ibis.to_sql(apply_steps(table, parsed).table, dialect="duckdb")
        return time.process_time() - start

    assert any(seconds() < 1.0 for _ in range(3))
