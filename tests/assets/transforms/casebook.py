"""Case tables: what goes in, the steps, what comes out, and which rows get which flag.

A file of `cases/` is named after a step and holds a list of groups, of two shapes:

    - step: {trim: [v]}            one column `v` (of `type`, default string): [in, out] or [in, out, rule of its flag]
      values: [["  a ", a], …]
    - step: {…}                    any table; `gives` has the columns with their types, `flags` rule -> numbers of rows
      columns: {a: string}
      rows: [[x], …]
      gives: {columns: {a: string}, rows: [[x], …]}

`layer` is silver unless it says gold; `tables` are those that a join reads. Values are written as DuckDB casts them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import ibis
import yaml
from ibis.backends.sql.datatypes import DuckDBType

from etl_assets.transforms import Draft, apply_steps, parse_steps

CASES = Path(__file__).parent / "cases"
ORDER = "_row"


@dataclass(frozen=True)
class Table:
    """Columns (name -> Ibis type) and rows."""

    columns: Mapping[str, str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Group:
    """One group of a case file; `flags` is rule -> numbers of the rows, from 0."""

    name: str
    steps: list[Any]
    given: Table
    gives: Table
    layer: str = "silver"
    flags: Mapping[str, Sequence[int]] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    values: bool = False


@functools.cache
def groups_of(path: Path) -> tuple[Group, ...]:
    """Read a case file."""
    groups = yaml.load(path.read_text("utf-8"), yaml.CSafeLoader)
    return tuple(_group(f"{path.stem}-{number}", raw) for number, raw in enumerate(groups))


def _group(name: str, raw: Mapping[str, Any]) -> Group:
    steps = raw["step"] if isinstance(raw["step"], list) else [raw["step"]]
    layer = raw.get("layer", "silver")
    if "values" in raw:
        kind = raw.get("type", "string")
        flags: dict[str, list[int]] = {}
        for number, value in enumerate(raw["values"]):
            for rule in value[2:]:
                flags.setdefault(rule, []).append(number)
        given = Table({"v": kind}, [[value[0]] for value in raw["values"]])
        gives = Table({"v": raw.get("gives", kind)}, [[value[1]] for value in raw["values"]])
        return Group(name, steps, given, gives, layer, flags, values=True)
    tables = {key: Table(**table) for key, table in raw.get("tables", {}).items()}
    given = Table(raw["columns"], raw["rows"])
    return Group(name, steps, given, Table(**raw["gives"]), layer, raw.get("flags", {}), tables)


class Bench:
    """Runs steps over rows in DuckDB."""

    def __init__(self) -> None:
        self.connection = duckdb.connect(":memory:", config={"threads": 1})
        self.connection.execute("SET TimeZone='UTC'")

    def load(self, name: str, table: Table) -> ibis.Table:
        """Create a table with a column `_row` that numbers the rows, and return it unbound."""
        types = {key: ibis.dtype(kind) for key, kind in table.columns.items()} | {ORDER: ibis.dtype("int64")}
        declared = ", ".join(f"{_quoted(key)} {DuckDBType.to_string(kind)}" for key, kind in types.items())
        self.connection.execute(f'CREATE OR REPLACE TABLE "{name}" ({declared})')
        casts = f"({', '.join(_cast(kind) for kind in types.values())})"
        rows = [_plain(value) for number, row in enumerate(table.rows) for value in (*row, number)]
        if rows:
            self.connection.execute(f'INSERT INTO "{name}" VALUES {", ".join([casts] * len(table.rows))}', rows)
        return ibis.table(types, name=name)

    def run(self, draft: Draft) -> list[dict[str, Any]]:
        """Run the SQL; its types must be those that Ibis thinks they are."""
        sql = str(ibis.to_sql(draft.table, dialect="duckdb"))
        described = self.connection.execute(f"DESCRIBE {sql}").fetchall()
        found = {row[0]: DuckDBType.from_string(row[1]) for row in described}
        assert found == {key: _same(kind) for key, kind in draft.table.schema().items()}
        cursor = self.connection.execute(sql)
        names = [column[0] for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return sorted(rows, key=lambda row: row[ORDER]) if all(row.get(ORDER) is not None for row in rows) else rows

    def expected(self, table: Table) -> list[list[Any]]:
        """Return rows as DuckDB gives them back after a cast to the types of the table."""
        self.load("expected", table)
        columns = ", ".join(map(_quoted, table.columns))
        return [
            list(row) for row in self.connection.execute(f"SELECT {columns} FROM expected ORDER BY {ORDER}").fetchall()
        ]


def draft_of(bench: Bench, group: Group, *, times: int = 1) -> Draft:
    """Apply the steps of a group, once or several times in a row."""
    tables = {key: bench.load(key.replace("/", "_"), table) for key, table in group.tables.items()}
    steps = parse_steps(group.steps, layer=group.layer, where=group.name)  # type: ignore[arg-type]
    return apply_steps(bench.load("given", group.given), steps * times, tables=tables.__getitem__)


def check(bench: Bench, group: Group) -> None:
    """Assert that a group gives what it says it gives."""
    draft = draft_of(bench, group)
    rows = bench.run(draft)
    visible = [name for name in draft.table.columns if not name.startswith("_")]
    types = {name: _same(draft.table.schema()[name]) for name in visible}
    assert types == {name: _same(ibis.dtype(kind)) for name, kind in group.gives.columns.items()}
    assert visible == list(group.gives.columns)
    result = [[row[name] for name in visible] for row in rows]
    wanted = bench.expected(group.gives)
    if ORDER not in draft.table.columns or group.layer == "gold":
        result, wanted = sorted(result, key=repr), sorted(wanted, key=repr)
    assert repr(result) == repr(wanted)
    hits: dict[str, list[int]] = {}
    for flag in draft.flags:
        numbers = [row[ORDER] for row in rows if row[flag.column]]
        assert not any(row[flag.column] is None for row in rows)
        if numbers:
            hits.setdefault(flag.rule, []).extend(numbers)
    assert hits == {rule: list(numbers) for rule, numbers in group.flags.items()}


def _same(kind: Any) -> Any:
    """Return the type as DuckDB reports it: nullable, timestamps in microseconds."""
    return kind.copy(nullable=True, scale=6) if kind.is_timestamp() else kind.copy(nullable=True)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _cast(kind: Any) -> str:
    written = DuckDBType.to_string(kind)
    return f"CAST(CAST(? AS JSON) AS {written})" if kind.is_nested() else f"CAST(? AS {written})"


def _plain(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value)
    return value if value is None else str(value)
