"""A contract: what one table promises, read from an Open Data Contract Standard (ODCS) 3.x file."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etl_checks.columns import Column, arrow_field, read_column
from etl_checks.mistakes import Mistakes
from etl_checks.odcs import check_schema, parse_yaml
from etl_checks.owners import read_owners
from etl_checks.rule_builder import RuleBuilder
from etl_checks.rule_reader import read_freshness, read_property, read_table
from etl_checks.rules import ForeignKey, Freshness, Rule
from etl_resources.exceptions import NotFoundError

if TYPE_CHECKING:
    import pyarrow as pa

# semver.org, version 2.0.0
_NUMBER = r"(?:0|[1-9][0-9]*)"
_PRERELEASE = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_PRERELEASE}(?:\.{_PRERELEASE})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)


@dataclass(frozen=True, slots=True)
class Contract:
    """What one table promises. `hash` is the SHA-256 of its canonical JSON: comments and layout do not count."""

    id: str
    version: str
    hash: str
    name: str
    description: str
    owners: tuple[str, ...]
    key: tuple[str, ...]
    """The primary key, in its order; empty if the contract names none."""
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]
    path: Path

    @property
    def freshness(self) -> Freshness | None:
        """How old the newest row may be, if the contract says so."""
        rule = next((rule for rule in self.rules if rule.kind == "freshness"), None)
        return Freshness(rule.columns[0], rule.params["seconds"]) if rule else None

    @property
    def foreign_keys(self) -> tuple[ForeignKey, ...]:
        """References to other tables; whether these exist is for the caller to check."""
        return tuple(
            ForeignKey(rule.columns, rule.params["table"], rule.params["columns"])
            for rule in self.rules
            if rule.kind == "foreign_key"
        )

    @property
    def personal_columns(self) -> tuple[str, ...]:
        """Columns that hold personal data, themselves or in a nested field."""
        return tuple(column.name for column in self.columns if column.has_personal)

    def arrow_schema(self) -> pa.Schema:
        """Return the table's Arrow schema, its fields as `arrow_field` makes them."""
        import pyarrow as pa

        return pa.schema([arrow_field(column) for column in self.columns])

    def duckdb_types(self) -> dict[str, str]:
        """Return column name -> DuckDB type, as CAST takes it."""
        return {column.name: column.duckdb_type for column in self.columns}


def load_contract(path: Path) -> Contract:
    """Return the contract in a file; one that was read before and has the same content costs nothing.

    What needs an SQL engine (patterns, expressions) is left to `lint_contract`, unless something else is wrong.

    Raises:
        ConfigurationError: with every mistake of the file at once, each with line, place and correction.
        NotFoundError: there is no such file.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no contract {path.name}", where=str(path)) from error
    return _read(path, content)


@lru_cache(maxsize=2048)
def _read(path: Path, content: bytes) -> Contract:
    text = content.decode("utf-8", errors="replace")
    document, mistakes = parse_yaml(text, path)
    if not isinstance(document, dict):
        mistakes.report()
    check_schema(document, mistakes)
    _check_head(document, mistakes)
    table = _only_table(document, mistakes)
    columns, key = _read_columns(table, mistakes)
    builder = RuleBuilder({column.name: column for column in columns}, mistakes)
    for index, element in enumerate(table.get("properties") or ()):
        if isinstance(element, dict) and isinstance(element.get("name"), str):
            place = ("schema", 0, "properties", index)
            read_property(element, place, builder, sole_key=key == (element["name"],))
    read_table(table, ("schema", 0), builder, key)
    read_freshness(document, str(table.get("name")), builder)
    if mistakes.found:
        from etl_checks.lint import rule_problems

        for origin, problem in rule_problems(columns, tuple(builder.rules)):
            mistakes.add(origin, problem)
    mistakes.report()
    return Contract(
        id=document["id"],
        version=document["version"],
        hash=hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest(),
        name=table["name"],
        description=str(table.get("description") or _purpose(document)),
        owners=read_owners(document.get("team")),
        key=key,
        columns=columns,
        rules=tuple(builder.rules),
        path=path,
    )


def _check_head(document: dict[str, Any], mistakes: Mistakes) -> None:
    version, standard = document.get("version"), document.get("apiVersion")
    if isinstance(version, str) and not _SEMVER.fullmatch(version):
        mistakes.add(("version",), f"{version!r} is no semantic version such as 1.2.0")
    if isinstance(standard, str) and standard.startswith("v2"):
        mistakes.add(("apiVersion",), f"{standard} is too old: version 3 of the standard is read here, such as v3.1.0")


def _only_table(document: dict[str, Any], mistakes: Mistakes) -> dict[str, Any]:
    tables = document.get("schema")
    tables = tables if isinstance(tables, list) else []
    if len(tables) != 1:
        if not mistakes.touch(("schema",)):
            mistakes.add(("schema",), f"a contract is about one table: one entry, not {len(tables)}")
        if not tables:
            return {}
    table = tables[0] if isinstance(tables[0], dict) else {}
    if not table.get("properties") and not mistakes.touch(("schema", 0)):
        mistakes.add(("schema", 0), "a table needs 'properties', its columns")
    return table


def _read_columns(table: dict[str, Any], mistakes: Mistakes) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    columns: list[Column] = []
    seen: dict[str, str] = {}
    positions: dict[str, int] = {}
    for index, element in enumerate(table.get("properties") or ()):
        place = ("schema", 0, "properties", index)
        if not isinstance(element, dict) or not isinstance(element.get("name"), str):
            continue
        name = element["name"]
        _check_name(name, element, (*place, "name"), seen, mistakes)
        column = read_column(element, place, mistakes)
        if column is not None:
            columns.append(column)
        if element.get("primaryKey") is True:
            positions[name] = element.get("primaryKeyPosition", index + 1)
    if len(set(positions.values())) != len(positions):
        mistakes.add(("schema", 0), "columns of the primary key have the same primaryKeyPosition")
    return tuple(columns), tuple(sorted(positions, key=lambda name: positions[name]))


def _check_name(
    name: str, element: dict[str, Any], place: tuple[str | int, ...], seen: dict[str, str], mistakes: Mistakes
) -> None:
    if not name.strip() or name.startswith("_"):
        mistakes.add(place, f"{name!r}: names that are empty or start with an underscore are taken by the platform")
    if name.lower() in seen:
        mistakes.add(place, f"the column {name!r} is there twice (upper and lower case are one)")
    seen[name.lower()] = name
    physical = element.get("physicalName", name)
    if physical != name:
        mistakes.add((*place[:-1], "physicalName"), f"{physical!r}: in the lake the column has its name, {name!r}")


def _purpose(document: dict[str, Any]) -> str:
    description = document.get("description")
    return str(description.get("purpose") or "") if isinstance(description, dict) else ""
