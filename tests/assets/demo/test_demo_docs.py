"""docs/demo.md: its example runs, and prints what it says; its figures are those of the data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from etl_assets.demo.retail import customers, products, sales

PAGE = (Path(__file__).parents[3] / "docs" / "demo.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert example
    names: dict[str, object] = {}
    exec(example[1], names)
    printed = capsys.readouterr().out
    told = re.findall(r"'([a-z:_.]+)': (\d+)", example[1])
    assert len(told) == 3
    for fate, rows in told:
        assert f"'{fate}': {rows}" in printed
    assert {path.name for path in (tmp_path / "data" / "retail").iterdir()} == {
        "customers.csv", "products.json", "sales.csv", "truth",
    }  # fmt: skip


def test_the_rules_and_figures_that_the_page_names_are_those_of_the_generator() -> None:
    rules = {fate.partition(":")[2] for module in (customers, products, sales) for _, fate in module.KINDS.values()}
    for rule in ("total_agrees", "quantity_sign"):
        assert rule in rules
        assert f"`{rule}`" in PAGE
    assert (products.BUDGET_BELOW, products.PREMIUM_FROM) == (5_000, 20_000)
    assert sales.TOLERANCE == 5
