"""What YAML may say, and what is said about mistakes in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl_assets.transforms import parse_steps
from etl_assets.transforms.parameters import STEPS
from etl_resources.exceptions import ConfigurationError

MISTAKES = yaml.safe_load((Path(__file__).parent / "mistakes.yaml").read_text("utf-8"))


def silver(*steps: Any) -> tuple[Any, ...]:
    return parse_steps(steps, layer="silver", where="shop/customers")


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: str(mistake["step"])[:60])
def test_mistake_is_named(mistake: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_steps([mistake["step"]], layer=mistake.get("layer", "silver"), where="shop/customers")
    for part in mistake["says"]:
        assert part in caught.value.what
    assert "shop/customers" in str(caught.value)


def test_all_mistakes_of_all_steps_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        silver({"trmi": ["a"]}, {"trim": ["a"]}, {"phone": {"colum": "p", "regoin": "US"}}, {"cast": {"a": "intt64"}})
    told = caught.value.what
    assert [part in told for part in ("step 1", "step 3", "colum", "regoin", "step 4", "intt64")] == [True] * 6
    assert "step 2" not in told


@pytest.mark.parametrize("steps", ["trim", {"trim": ["a"]}, 5], ids=str)
def test_steps_must_be_a_list(steps: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a list"):
        parse_steps(steps, layer="silver", where="x")


def test_bare_values_stand_for_the_main_parameter() -> None:
    for short, long in [
        ("trim", {"trim": {}}),
        ({"trim": "a"}, {"trim": {"columns": ["a"]}}),
        ({"trim": ["a", "b"]}, {"trim": {"columns": ["a", "b"]}}),
        ({"trim": {"column": "a"}}, {"trim": {"columns": ["a"]}}),
        ({"cast": {"a": "int64"}}, {"cast": {"columns": {"a": "int64"}}}),
        ({"cast": {"columns": "int64"}}, {"cast": {"columns": {"columns": "int64"}}}),  # a column of that name
        ({"rename": {"a": "b"}}, {"rename": {"columns": {"a": "b"}}}),
    ]:
        assert silver(short)[0].parameters == silver(long)[0].parameters


def test_null_in_yaml_is_the_word_null() -> None:
    [step] = silver(yaml.safe_load("phone: {column: p, on_error: null}"))
    assert step.parameters.on_error == "null"


def test_two_filters_of_one_name_would_share_their_count() -> None:
    with pytest.raises(ConfigurationError, match="two filters are called 'r'"):
        silver({"filter": {"rule": "r", "where": "a > 1"}}, {"filter": {"rule": "r", "where": "a < 9"}})


LOOKING_AROUND = [
    {"fill": {"column": "a", "method": method, **({"order_by": ["b"]} if method == "forward" else {})}}
    for method in ("mean", "median", "mode", "forward")
] + [yaml.safe_load(STEPS[name].example) for name in
     ("winsorise", "min_max", "z_score", "deduplicate", "unnest", "group_by", "window", "join", "pivot", "unpivot",
      "correlation")]  # fmt: skip


@pytest.mark.parametrize("step", LOOKING_AROUND, ids=lambda step: str(step)[:40])
def test_steps_that_look_at_other_rows_are_refused_in_silver_and_welcome_in_gold(step: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"refused in silver.*cut into batches; move it to a gold table"):
        silver(step)
    assert parse_steps([step], layer="gold", where="x")


def test_every_other_step_is_allowed_in_silver() -> None:
    refused = {next(iter(step)) for step in LOOKING_AROUND} - {"fill"}
    for name in STEPS.keys() - refused:
        assert silver(yaml.safe_load(STEPS[name].example))


def test_a_join_tells_which_table_it_reads() -> None:
    [step] = parse_steps([yaml.safe_load(STEPS["join"].example)], layer="gold", where="x")
    assert step.reads_tables == ("silver/customers",)


def test_reading_steps_imports_neither_ibis_nor_an_engine() -> None:
    """Loading 400 pipelines must stay cheap; Ibis alone takes a second."""
    code = """if True:
        import sys, yaml
        from etl_assets.transforms import parse_steps
        from etl_assets.transforms.parameters import STEPS
        for kind in STEPS.values():
            parse_steps([yaml.safe_load(kind.example)], layer="gold", where="x")
        print([name for name in ("ibis", "duckdb", "pyarrow", "pandas", "pycountry") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
