"""SQL in steps: it means what DuckDB says it means, and it cannot do more than compute a value of the row."""

from __future__ import annotations

from pathlib import Path

import duckdb
import ibis
import pytest
import yaml

from etl_assets.transforms import apply_steps, parse_steps
from etl_assets.transforms.scalar_sql import CHANGING, OUTSIDE, parse_scalar
from etl_resources.exceptions import ConfigurationError

EXPRESSIONS = [str(text) for text in yaml.safe_load((Path(__file__).parent / "expressions.yaml").read_text("utf-8"))]
TYPES = {
    "i": "int64",
    "d": "decimal(12,2)",
    "f": "float64",
    "s": "string",
    "b": "boolean",
    "t": "timestamp",
    "z": "timestamp('UTC')",
    "day": "date",
    "xs": "array<int64>",
    "p": "struct<name: string, inner: struct<n: int64>>",
    "j": "json",
    "Odd Name": "int64",
    "odd_case": "string",
    "_row": "int64",
}


@pytest.fixture(scope="module")
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(":memory:")
    con.execute("SET TimeZone='UTC'")
    con.execute("""CREATE TABLE given AS SELECT * FROM (VALUES
        (1::BIGINT, 1.25::DECIMAL(12,2), 0.5::DOUBLE, 'äb-12', true, TIMESTAMP '2024-02-29 23:59:59.123456',
         TIMESTAMPTZ '2024-03-31 00:30:00+00', DATE '2024-02-29', [1, 2, 3]::BIGINT[],
         {'name': 'n', 'inner': {'n': 7::BIGINT}}, '{"a": 5}'::JSON, 3::BIGINT, 'C', 0::BIGINT),
        (5, -0.01, -2.5, 'a_x', false, TIMESTAMP '1999-12-31 00:00:00', TIMESTAMPTZ '2024-10-27 00:30:00+00',
         DATE '2023-02-28', [], {'name': NULL, 'inner': NULL}, '{}', 4, '', 1),
        (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2)
        ) v(i, d, f, s, b, t, z, day, xs, p, j, "Odd Name", odd_case, _row)""")
    return con


def added(expression: str, layer: str = "gold") -> str:
    steps = parse_steps([{"add": {"result": expression}}], layer=layer, where="x")  # type: ignore[arg-type]
    return str(ibis.to_sql(apply_steps(ibis.table(TYPES, name="given"), steps).table, dialect="duckdb"))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_means_what_duckdb_says(con: duckdb.DuckDBPyConnection, expression: str) -> None:
    plain = f"SELECT ({expression}\n) AS r, typeof(({expression}\n)) AS kind FROM given ORDER BY _row"
    ours = f"SELECT result AS r, typeof(result) AS kind FROM ({added(expression)}) ORDER BY _row"
    assert repr(con.execute(ours).fetchall()) == repr(con.execute(plain).fetchall())


def test_type_is_known_without_data() -> None:
    steps = parse_steps([{"add": {"x": "d * 2", "y": "day + 1", "w": "xs[1]"}}], layer="silver", where="x")
    table = apply_steps(ibis.table(TYPES, name="given"), steps).table
    assert [str(table[name].type()) for name in "xyw"] == ["decimal(18, 2)", "date", "int64"]


def test_expression_over_a_changed_column_keeps_its_brackets(con: duckdb.DuckDBPyConnection) -> None:
    steps = parse_steps([{"add": {"i": "i + 1"}}, {"add": {"r": "i * 2"}}], layer="silver", where="x")
    sql = ibis.to_sql(apply_steps(ibis.table(TYPES, name="given"), steps).table, dialect="duckdb")
    assert con.execute(f"SELECT r FROM ({sql}) WHERE _row = 0").fetchall() == [(4,)]


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("quantty + 1", "unknown column 'quantty'"),
        ("od_case || 'x'", "did you mean 'odd_case'?"),
        ("p.nam", "nam"),
        ("s + t", "No function matches"),
        ("nonsense(i)", "nonsense"),
        ("first(i)", "'first(i)'"),
        ("string_agg(s)", "aggregate"),
        ("any_value(i)", "any_value"),
        ("bitstring_agg(i)", "aggregate"),
        ("histogram(i)", "histogram"),
        ("range(5)[1] + __flag_0", "__flag_0"),
    ],
)
def test_what_only_the_types_show_is_refused_with_the_step(expression: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        added(expression)
    assert says in str(caught.value)


def test_filter_must_be_a_boolean() -> None:
    steps = parse_steps([{"filter": {"rule": "r", "where": "i + 1"}}], layer="silver", where="shop")
    with pytest.raises(ConfigurationError, match=r"int64, not boolean") as caught:
        apply_steps(ibis.table(TYPES, name="given"), steps)
    assert "shop, step 1 (filter)" in str(caught.value)


@pytest.mark.parametrize(("column", "value"), [("i", "5"), ("s", 5), ("b", 1), ("day", 5), ("d", True)])
def test_comparison_with_another_kind_of_value_is_a_mistake(column: str, value: object) -> None:
    steps = parse_steps(
        [{"filter": {"rule": "r", "where": {"column": column, "equals": value}}}], layer="silver", where="x"
    )
    with pytest.raises(ConfigurationError, match="does not fit column"):
        apply_steps(ibis.table(TYPES, name="given"), steps)


def test_every_function_of_duckdb_that_is_not_repeatable_is_refused_in_silver(con: duckdb.DuckDBPyConnection) -> None:
    """Volatile functions, and those that look at the session, by DuckDB's own list."""
    names = con.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions()"
        " WHERE function_type = 'scalar' AND stability <> 'CONSISTENT'"
    ).fetchall()
    assert len(names) > 20
    accepted = []
    for (name,) in names:
        try:
            parse_scalar(f"{name}()", repeatable=True)
            accepted.append(name)
        except ValueError:
            pass
    assert accepted == []


def test_every_table_function_is_refused(con: duckdb.DuckDBPyConnection) -> None:
    of_type = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type"
    names = con.execute(f"{of_type} LIKE 'table%'").fetchall()
    scalar = {row[0] for row in con.execute(f"{of_type} IN ('scalar', 'macro')").fetchall()}
    accepted = []
    for (name,) in names:
        if name in scalar or not name.isidentifier():
            continue
        try:
            added(f"{name}('x')")
            accepted.append(name)
        except ConfigurationError:
            pass
    assert accepted == []


NOT_WRITTEN_SO = {"rand", "current_localtime", "current_localtimestamp", "localtimestamp"}


@pytest.mark.parametrize("name", sorted(CHANGING - NOT_WRITTEN_SO))
def test_clocks_and_dice_are_for_gold(name: str) -> None:
    call = name if name.startswith(("current_", "local")) else f"{name}()"
    parse_scalar(call, repeatable=False)
    with pytest.raises(ValueError, match="use it in gold"):
        parse_scalar(call, repeatable=True)


@pytest.mark.parametrize("name", sorted(OUTSIDE))
def test_what_reaches_outside_is_refused_in_gold_too(name: str) -> None:
    with pytest.raises(ValueError, match=r"reaches outside|is not SQL|not one scalar|not allowed"):
        parse_scalar(f"{name}('x')", repeatable=False)
