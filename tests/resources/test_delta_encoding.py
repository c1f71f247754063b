"""How columns are encoded: every value comes back from every reader, and what is cheap is chosen where it is."""

from __future__ import annotations

import random
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl_resources.delta.encoding import encodings
from etl_resources.delta.staging import Staging

ROWS = 9_000
DELTA, LENGTHS = "DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY"


@cache
def mixed() -> pa.Table:
    """One column of each kind, extremes and nulls among them."""
    chance = random.Random(7)

    def some(make: Any) -> list[Any]:
        return [None if n % 11 == 3 else make() for n in range(ROWS)]

    wide = some(lambda: chance.randrange(-(2**63), 2**63))
    wide[:4] = [-(2**63), 2**63 - 1, -(2**63), 2**63 - 1]  # differences that overflow
    narrow = some(lambda: chance.randrange(-(2**31), 2**31))
    narrow[:4] = [-(2**31), 2**31 - 1, -(2**31), 2**31 - 1]
    return pa.table(
        {
            "wide": pa.array(wide, pa.int64()),
            "narrow": pa.array(narrow, pa.int32()),
            "short": pa.array(some(lambda: chance.randrange(-(2**15), 2**15)), pa.int16()),
            "counted": pa.array(range(ROWS), pa.int64()),
            "at": pa.array(some(lambda: chance.randrange(-(2**55), 2**55)), pa.timestamp("us", "UTC")),
            "day": pa.array(some(lambda: date.fromordinal(chance.randrange(1, 3_600_000))), pa.date32()),
            "cents": pa.array(
                some(lambda: Decimal(chance.randrange(-(10**9), 10**9)).scaleb(-2)), pa.decimal128(11, 2)
            ),
            "exact": pa.array(some(lambda: Decimal(chance.randrange(-(10**18) + 1, 10**18))), pa.decimal128(18)),
            "large": pa.array(some(lambda: Decimal(chance.randrange(-(10**37), 10**37))), pa.decimal128(38)),
            "ratio": pa.array(some(chance.random), pa.float64()),
            "hash": pa.array(some(lambda: chance.randbytes(16).hex()), pa.string()),
            "raw": pa.array(some(lambda: chance.randbytes(chance.randrange(40))), pa.binary()),
            "name": pa.array(some(lambda: f"customer number {chance.randrange(10**6)}"), pa.string()),
            "status": pa.array(some(lambda: chance.choice(["new", "paid", "ß", ""])), pa.string()),
            "few": pa.array(some(lambda: chance.randrange(9)), pa.int64()),
            "nested": pa.array([{"a": n, "b": [str(n)]} for n in range(ROWS)]),
        }
    )


def chosen(path: Path) -> dict[str, set[str]]:
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    return {column.path_in_schema: set(column.encodings) for column in columns}


def bounded(path: Path) -> set[str]:
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    return {column.path_in_schema for column in columns if column.statistics and column.statistics.has_min_max}


def test_every_value_comes_back_from_every_reader(tmp_path: Path) -> None:
    """A reader that takes one encoding for another, or wraps a difference around, gives other values."""
    import duckdb
    from deltalake import DeltaTable, QueryBuilder

    rows = mixed()
    table = DeltaTable.create(str(tmp_path), rows.schema)
    with Staging(str(tmp_path), {}, rows.schema, ["wide", "cents", "name"]) as staging:
        for batch in rows.to_batches(max_chunksize=2_000):
            staging.write(batch)
        [add] = staging.finish()
    table.create_write_transaction([add], "append", table.schema())
    query = "SELECT * FROM rows ORDER BY counted"
    found = {
        "arrow": staging.read(),
        "duckdb": duckdb.read_parquet(str(tmp_path / add.path)).order("counted").to_arrow_table(),
        "delta-rs": pa.table(QueryBuilder().register("rows", DeltaTable(tmp_path)).execute(query)),
    }
    for reader, read in found.items():
        for name in rows.column_names:
            assert read[name].to_pylist() == rows[name].to_pylist(), (reader, name)


def test_what_is_cheap_is_chosen(tmp_path: Path) -> None:
    rows = mixed()
    pq.write_table(rows, tmp_path / "x.parquet", **encodings(rows, {"name", "counted"}))
    found = chosen(tmp_path / "x.parquet")
    assert {name for name, by in found.items() if DELTA in by} == {
        "wide", "narrow", "short", "counted", "at", "day", "cents", "exact",
    }  # fmt: skip
    assert {name for name, by in found.items() if LENGTHS in by} == {"hash", "raw"}
    assert {name for name, by in found.items() if "RLE_DICTIONARY" in by} == {
        "status", "few", "nested.a", "nested.b.list.element",
    }  # fmt: skip
    assert found["name"].isdisjoint({DELTA, LENGTHS, "RLE_DICTIONARY"})


def test_minimum_and_maximum_of_texts_are_kept_for_columns_that_ask_for_them(tmp_path: Path) -> None:
    rows = mixed()
    pq.write_table(rows, tmp_path / "x.parquet", **encodings(rows, {"name"}))
    kept = bounded(tmp_path / "x.parquet")
    assert {"name", "wide", "at", "cents", "nested.a"} <= kept
    assert kept.isdisjoint({"hash", "raw", "status", "nested.b.list.element"})


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows(tmp_path: Path, rows: int) -> None:
    table = mixed().slice(4, rows)
    pq.write_table(table, tmp_path / "x.parquet", **encodings(table, set()))
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == table.to_pylist()


def test_what_counts_up_takes_hardly_a_byte(tmp_path: Path) -> None:
    rows = mixed().select(["counted"])
    pq.write_table(rows, tmp_path / "x.parquet", **encodings(rows, set()))
    assert (tmp_path / "x.parquet").stat().st_size < ROWS / 20
