"""Reads the cases: files in which adding one needs no code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from etl_assets.lineage import ColumnRef

HERE = Path(__file__).parent
SCHEMA: dict[str, dict[str, str]] = yaml.safe_load((HERE / "schema.yaml").read_text(encoding="utf-8"))

Expected = frozenset[ColumnRef] | None


@dataclass(frozen=True)
class Case:
    sql: str
    columns: dict[str, Expected]
    rows: Expected
    still: frozenset[ColumnRef]
    """Named with `?`: not expected to be seen moving anything."""


def _reference(text: str) -> ColumnRef:
    table = next(table for table in sorted(SCHEMA, key=len, reverse=True) if text.startswith(table + "."))
    column = text.removeprefix(table + ".")
    assert column in SCHEMA[table], f"{text} is not in schema.yaml"
    return ColumnRef(table, column)


def _expectation(text: str) -> Expected:
    if text.strip() == "unknown":
        return None
    return frozenset(_reference(item.strip().rstrip("?")) for item in text.split(",") if item.strip())


def _case(block: str, origin: str) -> tuple[str, Case]:
    lines = block.splitlines()
    title = lines.pop(0).removeprefix("-- ") if lines[0].startswith("-- ") else lines[0]
    query = [line for line in lines if not line.startswith("--")]
    claims = [line.removeprefix("--").strip() for line in lines[len(query) :]]
    assert lines[: len(query)] == query, f"{origin}: expectations come after the query: {block}"
    expected = dict(claim.rsplit(":", 1) for claim in claims)
    assert list(expected)[-1] == "rows", f"{origin}: a case ends with `-- rows:`: {block}"
    marked = [item.strip() for text in expected.values() for item in text.split(",") if item.strip().endswith("?")]
    rows = _expectation(expected.pop("rows"))
    columns = {name: _expectation(text) for name, text in expected.items()}
    still = frozenset(_reference(item.rstrip("?")) for item in marked)
    return title, Case("\n".join(query), columns, rows, still)


def cases() -> list:
    """Return every case of every file as a parameter named `file: title`."""
    found = []
    for path in sorted((HERE / "cases").glob("*.sql")):
        for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
            title, case = _case(block, path.name)
            found.append(pytest.param(case, id=f"{path.stem}: {title}"))
    assert found
    return found
