from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from etl_checks.contract import load_contract
from etl_checks.fused import bad_rows, evaluate, row_violations
from etl_checks.lint import lint_contract
from etl_checks.rules import Threshold
from etl_resources.exceptions import ConfigurationError, EngineError
from tests.checks.engine import NOW, connected, rule, table

TRUTH = yaml.safe_load((Path(__file__).parent / "contracts" / "truth.yaml").read_text())


def contract_of(column: dict[str, Any], folder: Path) -> Any:
    document = {
        "apiVersion": "v3.2.0",
        "kind": "DataContract",
        "id": "truth",
        "version": "1.0.0",
        "schema": [{"name": "truth", "properties": [{"name": "x", **column}]}],
    }
    file = folder / "truth.odcs.yaml"
    file.write_text(yaml.safe_dump(document, allow_unicode=True))
    return load_contract(file)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["case"]) for case in TRUTH])
def test_exactly_the_bad_values_are_found(case: dict[str, Any], tmp_path: Path) -> None:
    contract = contract_of(case["column"], tmp_path)
    lint_contract(contract)
    (only,) = contract.rules
    values = [(value, False) for value in case["good"]] + [(value, True) for value in case["bad"]]
    with connected() as connection:
        bystander = table(connection, "bystander", {"a": "INTEGER"}, [[1]])
        types = {"n": "INTEGER", **contract.duckdb_types()}
        relation = table(connection, "truth", types, [[n, value] for n, (value, _) in enumerate(values)])
        violations = row_violations(contract.rules, relation, references={})
        flags = connection.execute(f'SELECT n, "{only.id}" FROM ({violations.sql}) ORDER BY n').fetchall()
        assert [flag for _, flag in flags] == [bad for _, bad in values]
        (result,) = evaluate(connection, relation, contract.rules, references={}, now=NOW)
        assert (result.checked, result.failed, result.passed) == (len(values), len(case["bad"]), False)
        sample = bad_rows(connection, relation, contract.rules, references={})[only.id]
        assert sorted(sample["n"].to_pylist()) == [n for n, (_, bad) in enumerate(values) if bad]
        assert connection.execute(f"SELECT count(*) FROM {bystander}").fetchall() == [(1,)]


def test_uniqueness_counts_surplus_and_rows_and_no_null_keys() -> None:
    with connected() as connection:
        rows = [
            ["a", 1],
            ["a", 1],
            ["a", 1],
            ["b", 1],
            ["b", 2],
            ["c", None],
            ["c", None],
            [None, None],
            ["", 1],
            ["", 1],
        ]
        relation = table(connection, "t", {"k": "VARCHAR", "v": "INTEGER"}, rows)
        rules = [rule("unique", "k"), rule("unique", "k", "v")]
        single, pair = evaluate(connection, relation, rules, references={}, now=NOW)
        assert (single.checked, single.failed, single.rows, single.passed) == (9, 5, 9, False)
        assert (pair.checked, pair.failed, pair.rows, pair.passed) == (7, 3, 5, False)
        sample = bad_rows(connection, relation, rules, references={})
        assert sample["unique.k"].num_rows == 9
        assert sorted(sample["unique.k+v"]["k"].to_pylist()) == ["", "", "a", "a", "a"]


def test_nan_is_one_key_like_any_other() -> None:
    with connected() as connection:
        relation = table(connection, "t", {"k": "DOUBLE"}, [["NaN"], ["NaN"], [0.0], [-0.0], [None]])
        (result,) = evaluate(connection, relation, [rule("unique", "k")], references={}, now=NOW)
        assert (result.checked, result.failed, result.rows) == (4, 2, 4)


@pytest.fixture
def family() -> Any:
    with connected() as connection:
        parents = [[1, "x"], [1, "x"], [1, "x"], [2, "y"], [None, "z"], [3, None]]
        table(connection, "parent table", {"id": "INTEGER", "part": "VARCHAR"}, parents)
        children = [[0, 1, "x"], [1, 2, "x"], [2, 9, "x"], [3, None, "x"], [4, 3, None], [5, 1, "x"]]
        table(connection, "child", {"n": "INTEGER", "parent": "INTEGER", "part": "VARCHAR"}, children)
        yield connection


REFERENCES = {"parents": '"parent table"'}


def test_a_foreign_key_passes_null_and_a_parent_that_comes_twice_does_not_multiply_rows(family: Any) -> None:
    one = rule("foreign_key", "parent", table="parents", columns=("id",))
    both = rule("foreign_key", "parent", "part", table="parents", columns=("id", "part"))
    rules = [one, both]
    violations = row_violations(rules, "child", references=REFERENCES)
    flags = family.execute(f'SELECT n, "{one.id}", "{both.id}" FROM ({violations.sql}) ORDER BY n').fetchall()
    assert flags == [
        (0, False, False),
        (1, False, True),
        (2, True, True),
        (3, False, False),
        (4, False, False),
        (5, False, False),
    ]
    results = evaluate(family, "child", rules, references=REFERENCES, now=NOW)
    assert [(r.checked, r.failed) for r in results] == [(6, 1), (6, 2)]
    assert bad_rows(family, "child", [both], references=REFERENCES)[both.id]["n"].to_pylist() == [1, 2]


def test_two_rules_over_the_same_reference_share_a_join(family: Any) -> None:
    rules = [rule("foreign_key", "parent", named=name, table="parents", columns=("id",)) for name in ("a", "b")]
    assert row_violations(rules, "child", references=REFERENCES).joins_sql.count("LEFT JOIN") == 1


def test_the_parts_can_be_used_in_another_query(family: Any) -> None:
    """The silver query takes joins and conditions apart and puts its own columns beside them."""
    one = rule("foreign_key", "parent", table="parents", columns=("id",))
    violations = row_violations([one], "child", references=REFERENCES)
    fate = f"CASE WHEN {violations.conditions[one.id]} THEN 'rejected' END"
    sql = f"SELECT n, {fate} FROM child AS t {violations.joins_sql}"
    assert sorted(family.execute(sql).fetchall())[2] == (2, "rejected")


def test_a_reference_that_nobody_gave_is_the_pipelines_mistake(family: Any) -> None:
    one = rule("foreign_key", "parent", table="grandparents", columns=("id",))
    with pytest.raises(ConfigurationError, match="grandparents"):
        row_violations([one], "child", references=REFERENCES)
    with pytest.raises(ConfigurationError, match="grandparents"):
        evaluate(family, "child", [one], references=REFERENCES, now=NOW)


@pytest.mark.parametrize(
    ("threshold", "passed"),
    [
        (Threshold(), False),
        (Threshold("mustBeLessThan", 2), False),
        (Threshold("mustBeLessThan", 3), True),
        (Threshold("mustBeLessOrEqualTo", 2), True),
        (Threshold("mustBeLessOrEqualTo", 1), False),
        (Threshold("mustBeLessOrEqualTo", 20, percent=True), True),
        (Threshold("mustBeLessThan", 20, percent=True), False),
        (Threshold("mustBeLessOrEqualTo", 19.9, percent=True), False),
    ],
)
def test_the_threshold_decides_at_its_exact_boundary(threshold: Threshold, passed: bool) -> None:
    with connected() as connection:
        relation = table(connection, "t", {"x": "INTEGER"}, [[None]] * 2 + [[1]] * 8)
        (result,) = evaluate(connection, relation, [rule("required", "x", threshold=threshold)], references={}, now=NOW)
        assert (result.failed, result.checked, result.passed) == (2, 10, passed)


@pytest.mark.parametrize(
    ("operator", "value", "passed"),
    [
        ("mustBe", 3, True),
        ("mustBe", 2, False),
        ("mustNotBe", 3, False),
        ("mustNotBe", 2, True),
        ("mustBeGreaterThan", 3, False),
        ("mustBeGreaterOrEqualTo", 3, True),
        ("mustBeLessThan", 3, False),
        ("mustBeLessOrEqualTo", 3, True),
        ("mustBeBetween", (1, 3), True),
        ("mustBeBetween", (4, 5), False),
        ("mustNotBeBetween", (1, 3), False),
        ("mustNotBeBetween", (4, 5), True),
    ],
)
def test_the_number_of_rows_is_judged_by_every_operator(operator: str, value: Any, passed: bool) -> None:
    with connected() as connection:
        relation = table(connection, "t", {"x": "INTEGER"}, [[1]] * 3)
        rules = [rule("row_count", threshold=Threshold(operator, value))]
        (result,) = evaluate(connection, relation, rules, references={}, now=NOW)
        assert (result.observed, result.passed, result.failed) == (3, passed, int(not passed))


@pytest.mark.parametrize(
    ("kind", "newest", "passed"),
    [
        ("TIMESTAMP", "2024-06-01 11:00:00", True),
        ("TIMESTAMP", "2024-06-01 10:59:59.999999", False),
        ("TIMESTAMPTZ", "2024-06-01 13:00:00+02", True),
        ("TIMESTAMPTZ", "2024-06-01 12:59:59+02", False),
        ("DATE", "2024-06-01", False),
        ("DATE", "2024-06-02", True),
    ],
)
def test_freshness_is_the_age_of_the_newest_value_in_utc(kind: str, newest: str, passed: bool) -> None:
    with connected() as connection:
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        relation = table(connection, "t", {"x": kind}, [[newest], ["2020-01-01 00:00:00"], [None]])
        (result,) = evaluate(connection, relation, [rule("freshness", "x", seconds=3600)], references={}, now=NOW)
        assert result.passed is passed
        assert abs(result.observed - NOW) < timedelta(hours=13)


def test_an_empty_table_breaks_no_row_rule_but_is_not_fresh() -> None:
    with connected() as connection:
        relation = table(connection, "t", {"x": "TIMESTAMP"}, [])
        rules = [
            rule("required", "x", threshold=Threshold("mustBeLessThan", 5, percent=True), named="share"),
            rule("required", "x"),
            rule("unique", "x"),
            rule("row_count", threshold=Threshold("mustBeGreaterThan", 0)),
            rule("freshness", "x", seconds=3600),
        ]
        results = evaluate(connection, relation, rules, references={}, now=NOW)
        assert [result.passed for result in results] == [True, True, True, False, False]
        assert [result.share for result in results] == [0.0] * 5
        assert results[-1].observed is None


def test_a_rule_that_cannot_run_hides_no_other_and_is_neither_passed_nor_bad_data() -> None:
    with connected() as connection:
        rows = [["1", 1], ["ann@example.org", 1], [None, None]]
        relation = table(connection, "t", {"x": "VARCHAR", "y": "INTEGER"}, rows)
        rules = [
            rule("required", "x"),
            rule("expression", sql="CAST(x AS INTEGER) > 0", named="breaks"),
            rule("unique", "y"),
            rule("range", "no such column", minimum=1, type="INTEGER", named="missing"),
            rule("foreign_key", "y", table="gone", columns=("id",), named="gone"),
            rule("row_count", threshold=Threshold("mustBe", 3)),
        ]
        results = {r.rule.id: r for r in evaluate(connection, relation, rules, references={"gone": '"gone"'}, now=NOW)}
        assert list(results) == [r.id for r in rules]
        for name in ("breaks", "missing", "gone"):
            assert results[name].passed is None
            assert results[name].error
            assert (results[name].failed, results[name].checked) == (0, 0)
        assert (results["required.x"].failed, results["required.x"].passed, results["required.x"].error) == (
            1,
            False,
            None,
        )
        assert results["unique.y"].failed == 1
        assert results["row_count."].passed is True
        assert "ann@example.org" not in str(results["breaks"].error)
        assert "gone" in str(results["gone"].error)


@pytest.mark.parametrize(
    "kind", ["required", "range", "length", "pattern", "allowed", "expression", "foreign_key", "unique", "freshness"]
)
def test_no_kind_of_rule_turns_an_engine_error_into_a_verdict(kind: Any) -> None:
    params = {
        "range": {"minimum": 0, "type": "INTEGER"},
        "length": {"minimum": 1},
        "pattern": {"pattern": "a"},
        "allowed": {"values": (1,), "type": "INTEGER"},
        "expression": {"sql": "missing > 0"},
        "foreign_key": {"table": "t", "columns": ("x",)},
        "freshness": {"seconds": 1},
    }
    with connected() as connection:
        relation = table(connection, "t", {"x": "INTEGER"}, [[1]])
        broken, sound = rule(kind, "missing", **params.get(kind, {})), rule("required", "x")
        first, second = evaluate(connection, relation, [broken, sound], references={"t": relation}, now=NOW)
        assert first.passed is None
        assert first.error
        assert second.passed is True


def test_a_table_that_cannot_be_read_is_an_engine_error_not_a_list_of_results() -> None:
    with connected() as connection, pytest.raises(EngineError, match="cannot be read"):
        evaluate(connection, '"no such table"', [rule("required", "x")], references={}, now=NOW)
    with connected() as connection, pytest.raises(EngineError, match=r"required\.x"):
        bad_rows(connection, '"no such table"', [rule("required", "x")], references={})


def test_an_interrupted_query_is_not_taken_for_a_broken_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def execute(self, sql: str) -> None:
            raise duckdb.InterruptException("stop")

    with pytest.raises(duckdb.InterruptException):
        evaluate(Interrupted(), "t", [rule("required", "x")], references={}, now=NOW)  # type: ignore[arg-type]


def test_a_hundred_row_rules_are_one_scan() -> None:
    with connected() as connection:
        relation = table(connection, "t", {"x": "INTEGER"}, [[1]])
        seen: list[str] = []

        class Watched:
            def execute(self, sql: str) -> Any:
                seen.append(sql)
                return connection.execute(sql)

        rules = [rule("range", "x", minimum=-n, type="INTEGER", named=f"r{n}") for n in range(100)]
        results = evaluate(Watched(), relation, rules, references={}, now=NOW)  # type: ignore[arg-type]
        assert len(results) == 100
        assert all(result.passed for result in results)
        (sql,) = seen
        plan = connection.execute(f"EXPLAIN {sql}").fetchall()[0][1]
        assert plan.count("Sequential Scan") == 1


def test_names_and_values_with_quotes_are_names_and_values() -> None:
    evil = """x"; DROP TABLE bystander; -- '"""
    with connected() as connection:
        bystander = table(connection, "bystander", {"a": "INTEGER"}, [[1]])
        relation = table(connection, evil, {evil: "VARCHAR"}, [[evil], ["b"], [None]])
        rules = [
            rule("required", evil),
            rule("unique", evil, named=evil),
            rule("allowed", evil, values=(evil,), type="VARCHAR"),
            rule("pattern", evil, pattern="'"),
            rule("length", evil, maximum=1),
            rule("foreign_key", evil, table="self", columns=(evil,)),
        ]
        results = evaluate(connection, relation, rules, references={"self": relation}, now=NOW)
        assert [(r.failed, r.error) for r in results] == [
            (1, None),
            (0, None),
            (1, None),
            (1, None),
            (1, None),
            (0, None),
        ]
        assert (
            len(connection.execute(row_violations(rules, relation, references={"self": relation}).sql).fetchall()) == 3
        )
        assert set(bad_rows(connection, relation, rules, references={"self": relation})) == {r.id for r in rules}
        assert connection.execute(f"SELECT * FROM {bystander}").fetchall() == [(1,)]


def test_samples_are_limited_and_hide_what_they_are_told_to() -> None:
    with connected() as connection:
        relation = table(connection, "t", {"x": "INTEGER", "email": "VARCHAR"}, [[None, "a@b.c"]] * 9)
        sample = bad_rows(connection, relation, [rule("required", "x")], references={}, limit=4, hidden=["email"])
        assert sample["required.x"].column_names == ["x"]
        assert sample["required.x"].num_rows == 4


def test_now_needs_no_zone_conversion_by_the_caller() -> None:
    with connected() as connection:
        relation = table(connection, "t", {"x": "TIMESTAMP"}, [["2024-06-01 11:30:00"]])
        now = datetime.fromisoformat("2024-06-01T14:00:00+02:00")
        (result,) = evaluate(connection, relation, [rule("freshness", "x", seconds=1801)], references={}, now=now)
        assert result.passed is True
        assert result.observed == datetime(2024, 6, 1, 11, 30, tzinfo=UTC)


def test_no_rules_is_no_query() -> None:
    assert evaluate(None, "nowhere", [], references={}, now=NOW) == []  # type: ignore[arg-type]
