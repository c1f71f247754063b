"""Lineage is held against what the queries do: change one source column, and see which outputs move."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, groupby
from typing import Any

import duckdb
import pytest

from etl_assets.lineage import ColumnRef
from etl_assets.lineage.binding import create_tables, table_parts
from tests.soaking import SOAK, some

from .cases import SCHEMA, Case, cases

ROWS = 9
TRIALS = range(12)
ENOUGH = 2 if SOAK else 0
"""A case that has shown all it claims after trials 0 to this one is not tried further."""

MAKE = {
    "BIGINT": lambda rng: rng.choice([None, 0, 1, 2, 2, 3, 4]),
    "DOUBLE": lambda rng: rng.choice([None, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0]),
    "VARCHAR": lambda rng: rng.choice([None, "p", "p", "q", "q", "r"]),
    "BIGINT[]": lambda rng: [rng.randrange(5) for _ in range(rng.randrange(4))],
    "STRUCT(f BIGINT, g VARCHAR)": lambda rng: {"f": rng.choice([None, 1, 2, 3]), "g": rng.choice(["p", "q", "r"])},
}


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """The tables of the schema, as views of pools: rows of every trial, as they are and with one column changed.

    Variables say which rows a view shows: rows that are written anew for each look take several times as long.
    """
    rng = random.Random(20)
    with duckdb.connect(":memory:", config={"threads": "1"}) as connection:
        create_tables(connection, SCHEMA)
        for table, columns in SCHEMA.items():
            rows = [row for trial in TRIALS for row in _variants(columns, trial, rng)]
            marks = ", ".join("?" for _ in rows[0])
            empty = f"SELECT 0 AS trial, '' AS changed, * FROM {_path(table)} LIMIT 0"
            connection.execute(f"CREATE TABLE {_pool(table)} AS {empty}")
            connection.execute(
                f"INSERT INTO {_pool(table)} VALUES " + ", ".join(f"({marks})" for _ in rows), list(chain(*rows))
            )
            connection.execute(f"DROP TABLE {_path(table)}")
            connection.execute(
                f"CREATE VIEW {_path(table)} AS SELECT * EXCLUDE (trial, changed) FROM {_pool(table)}"
                f" WHERE trial = getvariable('trial') AND changed = getvariable({_changed(table)})"
            )
        yield connection


def _variants(columns: dict[str, str], trial: int, rng: random.Random) -> Iterator[list[Any]]:
    data = [[MAKE[kind](rng) for kind in columns.values()] for _ in range(ROWS)]
    yield from ([trial, "", *row] for row in data)
    for position, (name, kind) in enumerate(columns.items()):
        for row in data:
            yield [trial, name, *row[:position], MAKE[kind](rng), *row[position + 1 :]]


def _path(table: str) -> str:
    return ".".join('"' + part + '"' for part in table_parts(table))


def _pool(table: str) -> str:
    return '"pool of ' + table.replace('"', "") + '"'


def _changed(table: str) -> str:
    """Return, as a literal, the name of the variable that says which column of the table is changed."""
    return f"'changed in {table.encode().hex()}'"


def _load(connection: duckdb.DuckDBPyConnection, table: str, trial: int, changed: str = "") -> None:
    connection.execute(f"SET VARIABLE trial = {trial}")
    connection.execute(f"SET VARIABLE \"{_changed(table)[1:-1]}\" = '{changed}'")


class Result:
    """What a query returned: rows as they came, and the values of each output column."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, sql: str) -> None:
        cursor = connection.execute(sql)
        names = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
        self.rows = [repr(row) for row in rows]
        self.values: dict[str, list[str]] = {}
        for position, name in enumerate(names):
            self.values.setdefault(name, []).extend(repr(row[position]) for row in rows)


class Movements:
    """What was seen to move when one source column changed."""

    def __init__(self) -> None:
        self.rows = False
        self.values: set[str] = set()
        """Outputs with other values: the same values in another order are not counted."""
        self.places: set[str] = set()
        """Outputs with other values or with the same values on other rows."""

    def add(self, before: Result, after: Result) -> None:
        self.rows |= before.rows != after.rows
        for name in before.values:
            if before.values[name] != after.values[name]:
                self.places.add(name)
            if sorted(before.values[name]) != sorted(after.values[name]):
                self.values.add(name)


def _problems(case: Case, moved: dict[ColumnRef, Movements]) -> tuple[list[str], list[str]]:
    """Return what contradicts the case, and what the case claims and has not been seen."""
    wrong, unseen = [], []
    for ref, seen in moved.items():
        decides = case.rows is None or ref in case.rows
        for name, refs in case.columns.items():
            named = refs is None or ref in refs
            if name in seen.values and not (named or decides):
                wrong.append(f"{name} moves with {ref} and does not name it")
            if refs is not None and named and name not in seen.places and ref not in case.still:
                unseen.append(f"{name} names {ref} and never moves with it")
        if case.rows is not None and decides and not seen.rows and ref not in case.still:
            unseen.append(f"{ref} is said to decide on rows and never does")
    return wrong, unseen


def _read_columns(case: Case) -> list[ColumnRef]:
    words = case.sql.lower()
    tables = [table for table in SCHEMA if all(part.lower() in words for part in table_parts(table))]
    return [ColumnRef(table, column) for table in tables for column in SCHEMA[table]]


# The tables are views here, and a view has no rowid.
MOVABLE = [case for case in cases() if "rowid" not in case.values[0].sql]


@pytest.mark.slow
@pytest.mark.parametrize("case", some([*MOVABLE[::2], *MOVABLE[1::2]], (len(MOVABLE) + 1) // 2))
def test_only_named_columns_move_an_output_and_each_of_them_does(case: Case, connection) -> None:
    refs = _read_columns(case)
    moved = {ref: Movements() for ref in refs}
    for trial in TRIALS:
        for table in {ref.table for ref in refs}:
            _load(connection, table, trial)
        before = Result(connection, case.sql)
        for table, its in groupby(refs, lambda ref: ref.table):
            for ref in its:
                _load(connection, table, trial, ref.column)
                moved[ref].add(before, Result(connection, case.sql))
            _load(connection, table, trial)
        wrong, unseen = _problems(case, moved)
        assert not wrong
        if not unseen and trial >= ENOUGH:
            return

    assert not unseen


def test_the_perturbation_finds_a_column_that_lineage_forgot(connection) -> None:
    case = Case("SELECT x + id AS v FROM a", {"v": frozenset({ColumnRef("a", "x")})}, frozenset(), frozenset())

    with pytest.raises(AssertionError, match=r"v moves with .*column='id'.* and does not name it"):
        test_only_named_columns_move_an_output_and_each_of_them_does(case, connection)


def test_the_perturbation_finds_a_column_that_lineage_made_up(connection) -> None:
    made_up = frozenset({ColumnRef("a", "x"), ColumnRef("a", "y")})
    case = Case("SELECT x AS v FROM a", {"v": made_up}, frozenset(), frozenset())

    with pytest.raises(AssertionError, match=r"v names .*column='y'.* and never moves with it"):
        test_only_named_columns_move_an_output_and_each_of_them_does(case, connection)
