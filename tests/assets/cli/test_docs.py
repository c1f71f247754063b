"""docs/pipelines.md has every key of `defs.yaml`, and what docs/pipelines.md and docs/cli.md show works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import chdir
from datetime import date
from typing import Any, Literal, get_args, get_origin

import dagster as dg
import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from etl_assets.components import models
from tests.assets.cli.conftest import REPOSITORY, Shop

PIPELINES = (REPOSITORY / "docs" / "pipelines.md").read_text("utf-8")
CLI = (REPOSITORY / "docs" / "cli.md").read_text("utf-8")
SECTIONS: dict[str, type[BaseModel]] = {
    "attributes": models.PipelineModel,
    "watch": models.WatchModel,
    "stream": models.StreamModel,
    "capture": models.CaptureModel,
    "partitions": models.PartitionsModel,
    "daily": models.DailyModel,
    "gold": models.GoldModel,
    "publish": models.PublishModel,
    "errors": models.BudgetModel,
}
WORDS = {str: "text", int: "integer", float: "number", date: "date"}


def type_words(annotation: Any) -> str:
    """Return how the page calls a type."""
    origin, inner = get_origin(annotation), [part for part in get_args(annotation) if part is not type(None)]
    if origin is Literal:
        return f"{', '.join(inner[:-1])} or {inner[-1]}"
    if origin in (list, dict):
        word, kind = {list: "list", dict: "mapping"}[origin], inner[-1]
        return word if kind is Any else f"{word} of {type_words(kind)}"
    if origin is not None:
        return type_words(inner[0])
    if annotation in WORDS:
        return WORDS[annotation]
    named = {model: section for section, model in SECTIONS.items()}
    return named.get(annotation, annotation.__name__.lower())


def default_words(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "none"
    return f"`{'{}' if isinstance(default, BaseModel) else default}`"


def documented(section: str) -> dict[str, tuple[str, str]]:
    text = PIPELINES.split(f"\n### {section}\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    return {key: (kind.strip(), default.strip()) for key, kind, default in rows}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_with_its_type_and_default(section: str) -> None:
    fields = SECTIONS[section].model_fields
    expected = {
        field.alias or name: (type_words(field.annotation), default_words(field.default))
        for name, field in fields.items()
    }
    assert documented(section) == expected


def test_no_model_of_the_configuration_is_left_out() -> None:
    found = {
        model
        for model in vars(models).values()
        if isinstance(model, type) and issubclass(model, models.Strict) and model is not models.Strict
    }
    assert found == set(SECTIONS.values())


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_pipeline_shown_is_the_one_that_is_scaffolded(orders: Shop) -> None:
    shown = yaml.safe_load(blocks(PIPELINES, "yaml")[0])
    made = yaml.safe_load((orders.root / orders.package / "defs" / "orders" / "defs.yaml").read_text())
    assert shown == made


def test_the_python_shown_makes_a_pipeline_that_runs(shop: Shop) -> None:
    pipeline, asset = blocks(PIPELINES, "python")
    shop.write("defs/rates.py", pipeline)
    shop.write("defs/days.py", asset)
    shop.write(
        "defs/both.sql", "SELECT day, e.rate AS eur, u.rate AS usd FROM silver.eur e JOIN silver.usd u USING (day)"
    )
    for currency in ("eur", "usd"):
        shop.write(f"data/rates/{currency}.csv", "day,rate\n2024-01-01,1.5\n2024-01-02,1.6\n")
    ended = shop.etl("run", "rates", "--json")
    assert ended.code == 0, ended.out + ended.err
    rows = {table["table"]: table["rows"] for table in ended.data["tables"]}
    assert rows["gold/rates/both"] == 2
    assert rows["gold/rates/days"] == 2


def commands() -> Iterator[str]:
    from etl_assets.cli.main import app

    for command in app.registered_commands:
        assert command.callback is not None
        yield command.name or command.callback.__name__
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            yield f"{group.typer_instance.info.name} {command.name or command.callback.__name__}"


def test_every_command_is_in_the_table() -> None:
    table = CLI.split("\n## ", 1)[0]
    missing = [name for name in commands() if f"`etl {name}" not in table]
    assert not missing


@pytest.mark.parametrize("line", [line for block in blocks(CLI + PIPELINES, "sh") for line in block.splitlines()])
def test_every_line_shown_is_one_that_is_understood(orders: Shop, line: str) -> None:
    """Whatever the pipeline is called there: the words parse, and only the names may be unknown."""
    words = [word.strip("'\"") for word in re.findall(r"'[^']*'|\"[^\"]*\"|\S+", line.partition("  #")[0])]
    assert words[0] == "etl"
    ended = orders.etl(*words[1:], "--help")
    assert ended.code == 0
    assert "No such" not in ended.err


def test_a_project_as_shown_is_one(shop: Shop) -> None:
    """The conftest writes what the page shows, but for the names."""
    from tests.assets.cli import conftest

    assert blocks(CLI, "toml")[0].replace("shop", "{package}") == conftest.PYPROJECT.replace(
        'code_location_name = "{package}"\n', ""
    )
    assert "return load(Path(__file__).parent)" in blocks(CLI, "python")[0]
    with chdir(shop.root):
        assert shop.etl("status").code == 0
        assert isinstance(dg.DagsterInstance.from_config(str(shop.root)), dg.DagsterInstance)
