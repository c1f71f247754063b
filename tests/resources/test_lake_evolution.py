"""Columns may be added; a type may not change, and no value may be rounded on the way into one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl_resources.delta.evolution import conform, landing_schema, merge_schemas, widest
from etl_resources.exceptions import SchemaConflictError
from etl_resources.lake import Commit, Handle, Lake, LakeTable

STRUCT = pa.struct([("a", pa.int64())])


def into(kind: pa.DataType, values: list[Any], source: pa.DataType) -> list[Any]:
    schema = merge_schemas(pa.schema([("c", kind)]), pa.schema([("c", source)]), where="bronze/t")
    batch = pa.RecordBatch.from_arrays([pa.array(values, source)], names=["c"])
    return conform(batch, schema, where="bronze/t").column(0).to_pylist()  # type: ignore[no-any-return]


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    return Lake(uri=str(tmp_path)).table("bronze", "t")


def write(table: LakeTable, handle: Handle, number: int, rows: list[dict[str, Any]], schema: pa.Schema) -> Handle:
    with table.stage(handle, schema) as staged:
        staged.write(pa.RecordBatch.from_pylist(rows, schema=schema))
        return table.append(handle, staged, Commit("app", number))


def test_a_column_is_added_and_old_rows_have_none(table: LakeTable) -> None:
    schema = pa.schema([("id", pa.int64())])
    handle = write(table, table.ensure(schema), 1, [{"id": 1}], schema)
    wider = schema.append(pa.field("name", pa.string()))
    handle = table.evolve(handle, wider)
    handle = write(table, handle, 2, [{"id": 2, "name": "b"}], wider)
    found = handle.delta.to_pyarrow_table().sort_by("id").to_pylist()
    assert found == [{"id": 1, "name": None}, {"id": 2, "name": "b"}]


def test_a_field_of_a_struct_is_added_at_any_depth(table: LakeTable) -> None:
    old = pa.schema([("s", pa.struct([("list", pa.list_(pa.field("element", STRUCT)))]))])
    inner = pa.struct([("a", pa.int64()), ("b", pa.string())])
    new = pa.schema([("s", pa.struct([("list", pa.list_(pa.field("element", inner)))]))])
    handle = write(table, table.ensure(old), 1, [{"s": {"list": [{"a": 1}]}}], old)
    handle = table.evolve(handle, new)
    handle = write(table, handle, 2, [{"s": {"list": [{"a": 2, "b": "x"}]}}], new)
    rows = sorted(row["s"]["list"][0]["a"] for row in handle.delta.to_pyarrow_table().to_pylist())
    assert rows == [1, 2]


def test_what_is_there_already_makes_no_commit(table: LakeTable) -> None:
    schema = pa.schema([("id", pa.int64()), ("s", STRUCT)])
    handle = table.ensure(schema)
    assert table.evolve(handle, schema).version == handle.version
    assert table.evolve(handle, pa.schema([("id", pa.int64())])).version == handle.version


def test_runs_that_add_columns_at_once_all_get_theirs(table: LakeTable) -> None:
    stale = table.ensure(pa.schema([("id", pa.int64())]))
    handles = [table.open() or stale for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: table.evolve(handles[n], pa.schema([(f"c{n}", pa.int64())])), range(4)))
    fresh = table.open()
    assert fresh is not None
    assert set(fresh.schema().names) == {"id", "c0", "c1", "c2", "c3"}


@pytest.mark.parametrize(
    ("column", "incoming"),
    [
        (pa.int64(), pa.string()),
        (pa.date32(), pa.timestamp("us")),
        (pa.timestamp("us"), pa.timestamp("us", tz="UTC")),
        (pa.bool_(), pa.int64()),
        (STRUCT, pa.string()),
        (pa.string(), STRUCT),
        (pa.list_(pa.int64()), pa.list_(pa.string())),
        (STRUCT, pa.struct([("a", pa.string())])),
        (pa.binary(), pa.string()),
    ],
)
def test_another_type_is_refused_with_column_and_both_types(column: pa.DataType, incoming: pa.DataType) -> None:
    table, data = pa.schema([("ok", pa.int64()), ("odd", column)]), pa.schema([("odd", incoming), ("new", STRUCT)])
    with pytest.raises(SchemaConflictError) as raised:
        merge_schemas(table, data, where="bronze/shop/t")
    assert f"column 'odd' is {column} in the table, {incoming} in the data" in raised.value.what
    assert raised.value.where == "bronze/shop/t"


def test_all_conflicts_are_told_at_once() -> None:
    table = pa.schema([("a", pa.int64()), ("b", pa.int64())])
    with pytest.raises(SchemaConflictError, match=r"'a' is .*'b' is "):
        merge_schemas(table, pa.schema([("a", pa.string()), ("b", pa.string())]), where="t")


@pytest.mark.parametrize(
    ("kind", "source", "values"),
    [
        (pa.float64(), pa.int64(), [1, -(2**53), None]),
        (pa.int64(), pa.float64(), [1.0, -3.0, None]),
        (pa.float64(), pa.decimal128(12, 2), [Decimal("0.50"), Decimal("12.25")]),
        (pa.decimal128(12, 2), pa.float64(), [0.1, 12.25, None]),
        (pa.decimal128(12, 2), pa.decimal128(20, 4), [Decimal("1.2500")]),
        (pa.string(), pa.int64(), [7, None]),
        (pa.string(), pa.null(), [None]),
        (pa.int64(), pa.null(), [None]),
    ],
)
def test_values_that_fit_go_in(kind: pa.DataType, source: pa.DataType, values: list[Any]) -> None:
    found = into(kind, values, source)
    wanted = [str(value) if value is not None and kind == pa.string() else value for value in values]
    assert [None if v is None else type(w)(v) for v, w in zip(found, wanted, strict=True)] == wanted


@pytest.mark.parametrize(
    ("kind", "source", "value"),
    [
        (pa.float64(), pa.int64(), 2**53 + 1),
        (pa.int64(), pa.float64(), 1.5),
        (pa.int64(), pa.float64(), float("nan")),
        (pa.int64(), pa.uint64(), 2**63),
        (pa.float64(), pa.decimal128(38, 20), Decimal("0.12345678901234567891")),
        (pa.decimal128(12, 2), pa.float64(), 0.125),
        (pa.decimal128(12, 2), pa.decimal128(20, 4), Decimal("1.2345")),
        (pa.decimal128(4, 2), pa.int64(), 100),
    ],
)
def test_values_that_would_be_rounded_are_refused_with_column_and_both_types(
    kind: pa.DataType, source: pa.DataType, value: Any
) -> None:
    with pytest.raises(SchemaConflictError) as raised:
        into(kind, [value], source)
    assert f"column 'c' is {kind} in the table, a value of {source} does not fit" in raised.value.what


def test_nanoseconds_that_delta_cannot_hold_are_refused() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1], pa.timestamp("ns"))], names=["t"])
    with pytest.raises(SchemaConflictError, match="'t' is timestamp"):
        conform(batch, landing_schema(batch.schema), where="bronze/t")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.int8(), 1),
        (pa.uint64(), 2**64 - 1),
        (pa.float32(), 0.5),
        (pa.decimal32(5, 2), Decimal("1.25")),
        (pa.decimal256(38, 2), Decimal("1.25")),
        (pa.date64(), date(2024, 2, 29)),
        (pa.timestamp("s"), datetime(2024, 2, 29, 1)),
        (pa.timestamp("ms", tz="Europe/Berlin"), datetime(2024, 2, 29, 1, tzinfo=UTC)),
        (pa.dictionary(pa.int8(), pa.string()), "x"),
        (pa.large_string(), "x"),
        (pa.string_view(), "x"),
        (pa.large_binary(), b"x"),
        (pa.binary(2), b"xy"),
        (pa.list_(pa.int8(), 2), [1, 2]),
        (pa.large_list(pa.float32()), [0.5]),
        (pa.struct([("x", pa.int8())]), {"x": 1}),
        (pa.map_(pa.string(), pa.int8()), [("k", 1)]),
    ],
)
def test_bronze_takes_every_type_in_its_widest_form_and_gives_it_back(
    table: LakeTable, kind: pa.DataType, value: Any
) -> None:
    data = pa.RecordBatch.from_arrays([pa.array([value, None], kind)], names=["c"])
    schema = landing_schema(data.schema)
    handle = table.ensure(schema)
    with table.stage(handle, schema) as staged:
        staged.write(conform(data, schema, where="bronze/t"))
        handle = table.append(handle, staged, Commit("app", 1))
    assert handle.schema().equals(schema)
    assert handle.delta.to_pyarrow_table()["c"].to_pylist() == [value, None]


def test_what_delta_has_no_type_for_becomes_text() -> None:
    assert widest(pa.time64("us")) == widest(pa.decimal256(50, 2)) == widest(pa.null()) == pa.string()
    batch = pa.RecordBatch.from_arrays(
        [pa.array([time(1, 2, 3, 4)], pa.time64("us")), pa.array([Decimal(10**45)], pa.decimal256(50, 2))],
        names=["t", "d"],
    )
    found = conform(batch, landing_schema(batch.schema), where="bronze/t").to_pylist()[0]
    assert found["t"] == "01:02:03.000004"
    assert Decimal(found["d"]) == 10**45
