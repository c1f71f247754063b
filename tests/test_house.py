"""The house rules hold, and each of the checks finds the thing it is there for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import house

PAGES = sorted(
    path.relative_to(house.ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "deploy/*.md", "bench/*.md")
    for path in house.ROOT.glob(pattern)
)


def test_no_module_is_longer_than_a_room() -> None:
    assert house.too_long(house.sources()) == []
    assert house.too_long({"a.py": "\n" * 301, "b.py": "\n" * 300}) == ["a.py: 301 lines; 300 at the most"]


def test_nothing_heavy_is_imported_while_definitions_load() -> None:
    assert house.heavy_imports(house.sources()) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etl_assets/x.py", "import pandas"),
        ("etl_assets/x.py", "import pyarrow.compute as pc"),
        ("etl_assets/x.py", "from google.cloud import storage"),
        ("etl_resources/x.py", "try:\n    import duckdb\nexcept ImportError:\n    duckdb = None"),
        ("etl_resources/x.py", "class X:\n    from deltalake import DeltaTable"),
        ("etl_checks/x.py", "if True:\n    import ibis"),
        ("etl_assets/transforms/x.py", "import ibis, pyarrow"),
        ("etl_assets/x.py", "from etl_assets.transforms import text"),
        ("etl_assets/x.py", "from etl_assets.transforms.text import trim"),
        ("etl_assets/x.py", "import etl_assets.transforms.text"),
    ],
)
def test_a_heavy_import_is_found(path: str, text: str) -> None:
    modules = {path: text, "etl_assets/transforms/text.py": "import ibis"}

    (problem,) = house.heavy_imports(modules)

    assert problem.startswith(path)


@pytest.mark.parametrize(
    "text",
    [
        "def read():\n    import pyarrow",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pyarrow as pa",
        "import dagster as dg\nimport pydantic\nimport json",
        "def compile():\n    from etl_assets.transforms import text",
    ],
)
def test_a_light_import_is_not_held_against_a_module(text: str) -> None:
    assert house.heavy_imports({"etl_assets/x.py": text, "etl_assets/transforms/text.py": "import ibis"}) == []


def test_contracts_and_lineage_bring_nothing_heavy_until_they_are_used() -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from etl_assets import lineage\n"
        "from etl_checks import asset_checks, expectations, fused\n"
        "from etl_checks.contract import load_contract\n"
        "load_contract(Path('tests/checks/contracts/orders.odcs.yaml'))\n"
        "heavy = 'duckdb pyarrow sqlglot ibis pandas deltalake great_expectations pycountry'\n"
        "sys.exit(' '.join(set(heavy.split()) & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=house.ROOT, check=True, timeout=60)


def test_no_file_says_where_packages_come_from() -> None:
    assert house.index_addresses(house.committed()) == []


@pytest.mark.parametrize(
    "line",
    [
        "pip install --index" + "-url x",
        "https://mirror/sim" + "ple/",
        "https://files.pythonhosted" + ".org/x",
        "UV_" + "INDEX=x",
    ],
)
def test_a_package_index_is_found(line: str) -> None:
    assert house.index_addresses({"constraints.txt": f"a==1\n{line}\n"}) == [f"constraints.txt:2: {line}"]


def test_the_project_is_looked_at_as_a_whole() -> None:
    """The files that matter most are among those that are searched."""
    files = set(house.committed())

    assert {"pyproject.toml", "constraints.txt", ".ci/run", "Makefile", "etl_resources/source.py", "LICENSE"} <= files
    assert not [path for path in files if ".venv" in path or "__pycache__" in path]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert house.broken_links(page, (house.ROOT / page).read_text(encoding="utf-8")) == []


def test_a_broken_link_is_found() -> None:
    text = "[a](nowhere.md) [b](architecture.md#x) [c](https://example.com/x) [d](#x) `[e](code.md)` [f](../LICENSE)"

    assert house.broken_links("docs/page.md", text) == ["docs/page.md: nowhere.md"]


def test_every_direct_dependency_has_its_reason_on_the_page() -> None:
    declared = house.declared_dependencies((house.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    described = house.described_dependencies((house.ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8"))

    assert described == declared


def test_a_row_without_a_reason_is_no_description() -> None:
    page = "| `a` | why |\n| `b` |  |\n## Extras\n| `x` | `c` | why |\n| `x` | `d` |  |\n"

    assert house.described_dependencies(page) == {("", "a"), ("x", "c")}


def test_direct_dependencies_are_pinned() -> None:
    pins = {line.partition("==")[0] for line in Path(house.ROOT / "constraints.txt").read_text("utf-8").splitlines()}
    declared = house.declared_dependencies((house.ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert {name for _, name in declared} <= pins
