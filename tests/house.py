"""House rules that a program can see, as functions from text to problems; `test_house.py` applies them."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("etl_resources", "etl_checks", "etl_assets")
LONGEST = 300

HEAVY = frozenset(
    """
    adbc_driver_manager adbc_driver_postgresql boto3 botocore bson confluent_kafka connectorx dagster_aws dagster_gcp
    dagster_snowflake deltalake dlt duckdb fastavro fsspec google great_expectations httpx ibis jsonschema mssql_python
    numpy obstore openpyxl pandas pika psycopg psycopg2 pyarrow pymongo pymysql pyrate_limiter pyspark scipy snowflake
    sqlalchemy sqlglot websockets
    """.split()  # noqa: SIM905 - a list of thirty lines says no more
)
"""Takes long to import, or brings along something that does: imported where it is used, not where definitions load."""

WORKING = {
    "etl_assets/transforms/": frozenset({"ibis", "sqlglot"}),
    "etl_assets/demo/retail/": frozenset({"numpy", "pyarrow"}),
    "etl_resources/http_transport.py": frozenset({"httpx"}),
    "etl_assets/lineage/query.py": frozenset({"sqlglot"}),
    "etl_assets/lineage/normal.py": frozenset({"sqlglot"}),
    "etl_assets/lineage/pivoting.py": frozenset({"sqlglot"}),
}
"""Modules that are about such a library. They may import it at the top, and nobody else may import them there."""


def sources() -> dict[str, str]:
    """Return the text of every module of the three packages, by path."""
    paths = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def committed() -> dict[str, str]:
    """Return the text of every file that belongs to the project, by path; what is made by running it is left out."""
    made = re.compile(
        r"(^|/)(\.[^/]*(venv|cache|peers|work|lake|dagster|git|hypothesis)|__pycache__|data|[^/]*\.egg-info)(/|$)"
    )
    found = {}
    for path in sorted(_files(ROOT, made)):
        try:
            found[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a binary file
    return found


def _files(folder: Path, made: re.Pattern[str]) -> Iterator[Path]:
    for path in folder.iterdir():
        if made.search(path.relative_to(ROOT).as_posix()):
            continue
        if path.is_dir():
            yield from _files(path, made)
        elif path.is_file():
            yield path


def too_long(modules: Mapping[str, str]) -> list[str]:
    lengths = {path: len(text.splitlines()) for path, text in modules.items()}
    return [f"{path}: {lines} lines; {LONGEST} at the most" for path, lines in lengths.items() if lines > LONGEST]


def heavy_imports(modules: Mapping[str, str]) -> list[str]:
    """What a module imports as soon as it is imported itself, and should not."""
    imports = {path: set(_imported(ast.parse(text))) for path, text in modules.items()}
    working = {path for path, names in imports.items() if _allowed(path) and _roots(names) & HEAVY}
    problems = []
    for path, names in imports.items():
        problems += [f"{path} imports {name} at the top" for name in sorted((_roots(names) & HEAVY) - _allowed(path))]
        if not _allowed(path):
            drawn = sorted(target for target in working if _module(target) in names)
            problems += [
                f"{path} imports {target} at the top, and with it {sorted(_allowed(target))}" for target in drawn
            ]
    return problems


def _allowed(path: str) -> frozenset[str]:
    return next((names for start, names in WORKING.items() if path.startswith(start)), frozenset())


def _roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imported(node: ast.AST) -> Iterator[str]:
    """Every module, and every name out of a module, that is imported outside of functions and type checking."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from _imported(child)


def index_addresses(files: Mapping[str, str]) -> list[str]:
    """Where packages come from is the machine's business, not the project's."""
    signs = re.compile(r"(extra-)?index-url|/simple/|pythonhosted" + r"\.org|UV_INDEX|PIP_INDEX|\[\[tool\.uv\.index")
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in files.items()
        if path != "tests/house.py"
        for number, line in enumerate(text.splitlines(), 1)
        if signs.search(line)
    ]


def broken_links(path: str, text: str) -> list[str]:
    """Relative links of a Markdown page that lead nowhere."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    targets = re.findall(r"\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)", prose)
    local = [target for target in targets if not re.match(r"[a-z]+:|#", target)]
    folder = (ROOT / path).parent
    return [f"{path}: {target}" for target in local if not (folder / target.partition("#")[0]).exists()]


def declared_dependencies(pyproject: str) -> set[tuple[str, str]]:
    """Extra (empty: always) and name of every direct dependency; an extra made of other extras is left out."""
    project = tomllib.loads(pyproject)["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    names = {(extra, re.match(r"[\w.-]+", item)[0]) for extra, items in groups.items() for item in items}  # type: ignore[index]
    return {(extra, name) for extra, name in names if name != project["name"]}


def described_dependencies(page: str) -> set[tuple[str, str]]:
    """The same out of the tables of `docs/dependencies.md`; each row must give a reason."""
    always = re.findall(r"^\| `([\w.-]+)` \| (?!`[\w.-]+` \|).*\w.* \|$", page.partition("## Extras")[0], re.MULTILINE)
    extras = re.findall(r"^\| `([\w.-]+)` \| `([\w.-]+)` \| .*\w.* \|$", page.partition("## Extras")[2], re.MULTILINE)
    return {("", name) for name in always} | set(extras)
