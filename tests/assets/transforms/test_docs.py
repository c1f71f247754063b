"""docs/transforms.md tells what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from etl_assets.transforms import apply_steps, parse_steps
from etl_assets.transforms.parameters import STEPS
from etl_assets.transforms.reference import reference
from tests.assets.transforms.casebook import Bench, Table

DOCS = (Path(__file__).parents[3] / "docs" / "transforms.md").read_text("utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)


def test_the_table_of_steps_is_that_of_the_registry() -> None:
    table = DOCS.split("held by a test -->\n\n")[1].split("\n<!-- end of steps -->")[0]
    assert table == reference(), "run: python -m etl_assets.transforms.reference, and put it between the marks"


@pytest.mark.parametrize("name", sorted(STEPS))
def test_every_parameter_is_described(name: str) -> None:
    assert STEPS[name].__doc__
    assert all(field.description for field in STEPS[name].model_fields.values())


@pytest.mark.parametrize("name", sorted(STEPS))
def test_every_example_is_valid(name: str) -> None:
    [step] = parse_steps([yaml.safe_load(STEPS[name].example)], layer="gold", where="docs")
    assert step.name == name


def test_the_examples_run_and_give_what_the_text_says() -> None:
    bench = Bench()
    steps, condition = yaml.safe_load(EXAMPLES[0])["steps"], yaml.safe_load(EXAMPLES[1])
    columns = dict.fromkeys(["first_name", "last_name", "phone", "segment", "revenue", "registered"], "string")
    rows = [
        [" RONALD", "MCDONALD", "(524) 310-9119 x7", "V.I.P.", "€1.234,56", "29.02.2024"],
        ["test", "user", "n/a", "std", "5", "01.01.2025"],
        ["Ann", "O'Brien", "call me", "Gold", "1,234.56", "1/2/2025"],
    ]
    table = bench.load("given", Table(columns, rows))
    draft = apply_steps(table, parse_steps([*steps, condition], layer="silver", where="docs"))
    found = bench.run(draft)
    flags = {flag.rule: [row[flag.column] for row in found] for flag in draft.flags}
    assert flags == {
        "number.revenue": [False, False, True],
        "date.registered": [False, False, True],
        "not_a_test": [False, True, False],
        "worth_calling": [False, True, True],
    }
    first = found[0]
    assert (first["full_name"], first["phone"], first["segment"]) == ("Ronald McDonald", "+15243109119;ext=7", "VIP")
    assert (str(first["revenue"]), str(first["registered"])) == ("1234.56", "2024-02-29")
    assert [row["phone"] for row in found[1:]] == [None, "call me"]
