"""What the log says of a file must be true of its rows: a wrong bound would hide them from every reader that prunes."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl_resources.delta import staging
from etl_resources.delta.rewriting import Changes
from etl_resources.lake import Commit, Handle, Lake, LakeTable
from tests.resources.merges import merged
from tests.soaking import examples

UTC_US = pa.timestamp("us", tz="UTC")
INT64 = st.integers(-(2**63), 2**63 - 1)
MOMENTS = st.one_of(
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)),
    st.sampled_from([datetime.max, datetime.min, datetime(1969, 12, 31, 23, 59, 59, 999999), datetime(1970, 1, 1)]),
)
TEXTS = st.one_of(st.text(max_size=6), st.text(alphabet="aä𝄞\uffff\u0000\U0010ffff", max_size=80))
COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "whole": (pa.int64(), INT64),
    "small": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "day": (pa.date32(), st.dates(date(1, 1, 1), date(9999, 12, 31))),
    "moment": (UTC_US, MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC))),
    "local": (pa.timestamp("us"), MOMENTS),
    "price": (pa.decimal128(12, 2), st.decimals(min_value=-(10**9), max_value=10**9, places=2)),
    "huge": (pa.decimal128(38, 6), st.decimals(min_value=-(10**31), max_value=10**31, places=6)),
    "text": (pa.string(), TEXTS),
}
SCHEMA = pa.schema([(name, kind) for name, (kind, _) in COLUMNS.items()])
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in COLUMNS.items()}), min_size=1, max_size=12
)
_numbers = itertools.count()


def _write(folder: Path, rows: list[dict[str, Any]], per_group: int) -> Handle:
    table = Lake(uri=str(folder)).table(f"t{next(_numbers)}")
    handle = table.ensure(SCHEMA)
    with table.stage(handle, SCHEMA) as staged:
        for start in range(0, len(rows), per_group):
            staged.write(pa.RecordBatch.from_pylist(rows[start : start + per_group], schema=SCHEMA))
        return table.append(handle, staged, Commit("app", 1))


def _actions(handle: Handle) -> dict[str, Any]:
    return pa.table(handle.delta.get_add_actions(flatten=True)).to_pylist()[0]  # type: ignore[no-any-return]


@pytest.mark.slow
@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=ROWS, per_group=st.integers(1, 5))
def test_bounds_hold_every_value_and_nulls_are_counted(rows: list[dict[str, Any]], per_group: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="etl-stats-"))
    (group, staging.ROW_GROUP_ROWS), (most, staging.LANES) = (staging.ROW_GROUP_ROWS, per_group), (staging.LANES, 1)
    try:
        action = _actions(_write(folder, rows, per_group))
    finally:
        staging.ROW_GROUP_ROWS, staging.LANES = group, most
        shutil.rmtree(folder)
    assert action["num_records"] == len(rows)
    for name in SCHEMA.names:
        values = [row[name] for row in rows if row[name] is not None]
        assert action.get(f"null_count.{name}") in (None, len(rows) - len(values))
        low, high = action.get(f"min.{name}"), action.get(f"max.{name}")
        if not values:
            assert low is None
            assert high is None
        if low is not None and isinstance(low, str):
            low, values = low.encode(), [value.encode() for value in values]
        if high is not None and isinstance(high, str):
            high = high.encode()
        assert low is None or low <= min(values), name
        assert high is None or max(values) <= high, name


@pytest.mark.slow
@settings(max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=ROWS, column=st.sampled_from(["whole", "small", "day", "moment", "local", "price", "text"]))
def test_readers_that_prune_find_every_row(rows: list[dict[str, Any]], column: str) -> None:
    """delta-rs and DataFusion skip files by what the log says: asked for a value, they must find its rows."""
    from deltalake import QueryBuilder

    folder = Path(tempfile.mkdtemp(prefix="etl-stats-"))
    try:
        handle = _write(folder, rows, 100)
        present = [row[column] for row in rows if row[column] is not None]
        engine = QueryBuilder().register("t", handle.delta)
        for wanted in {min(present), max(present)} if present else ():
            found = pa.table(engine.execute(f"SELECT count(*) AS n FROM t WHERE {column} = {_sql(wanted)}"))
            assert found["n"][0].as_py() == present.count(wanted)
    finally:
        shutil.rmtree(folder)


def _sql(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, datetime):
        zone = ', Some("UTC")' if value.tzinfo else ", None"
        return f"arrow_cast({_micros(value)}, 'Timestamp(Microsecond{zone})')"
    if isinstance(value, date):
        return f"arrow_cast({(value - date(1970, 1, 1)).days}, 'Date32')"
    if isinstance(value, Decimal):
        return f"arrow_cast('{value}', 'Decimal128(12, 2)')"
    return f"arrow_cast('{value}', 'Int64')"


def _micros(moment: datetime) -> int:
    return (moment.replace(tzinfo=None) - datetime(1970, 1, 1)) // timedelta(microseconds=1)


def test_a_file_that_cannot_hold_newer_rows_is_not_read(tmp_path: Path) -> None:
    table = Lake(uri=str(tmp_path)).table("bronze")
    schema = pa.schema([("_batch", pa.int64())])
    handle = table.ensure(schema)
    for number in range(1, 5):
        with table.stage(handle, schema) as staged:
            staged.write(pa.RecordBatch.from_pydict({"_batch": [number]}, schema=schema))
            handle = table.append(handle, staged, Commit("app", number))
    newer = handle.files("_batch", 2)
    assert sorted(duckdb.sql(f"SELECT _batch FROM read_parquet({newer})").fetchall()) == [(3,), (4,)]


PERSON = pa.schema([("id", pa.int64()), ("email", pa.string()), ("born", pa.date32()), ("city", pa.string())])
NAMES = ("ada@example.org", "zuse@example.org")


def _people(*emails: str) -> pa.RecordBatch:
    rows = [
        {"id": number, "email": email, "born": date(1987, 6, 5), "city": "Ulm"} for number, email in enumerate(emails)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=PERSON)


def _logs(table: LakeTable) -> str:
    folder = Path(table.uri) / "_delta_log"
    text = "".join(path.read_text() for path in folder.glob("*.json"))
    for path in folder.glob("*.parquet"):
        text += json.dumps(pa.parquet.read_table(path).to_pylist(), default=str)
    return text


def test_nothing_personal_is_ever_in_the_log(tmp_path: Path) -> None:
    """Whatever writes: append, merge, partition, compaction, replacement, a new column, a checkpoint."""
    import pyarrow.parquet  # noqa: F401 - pa.parquet

    table = Lake(uri=str(tmp_path)).table("silver", "people")
    handle = table.ensure(PERSON, personal=("email", "born"))
    for number in range(1, 4):
        with table.stage(handle, PERSON) as staged:
            staged.write(_people(*NAMES))
            handle = table.append(handle, staged, Commit("app", number))
    keyed = pa.Table.from_batches([_people(NAMES[0])]).append_column("_action", pa.array(["insert"]))
    keyed = keyed.set_column(0, "id", pa.array([77]))
    handle = merged(table, handle, keyed.to_reader, ["id"], Commit("app", 4), Changes(1))
    new = pa.Table.from_batches([_people(NAMES[1])])
    handle = table.replace_where(handle, new.to_reader, "`id` < 1", Commit("app", 5), Changes(1, 0, 3))
    assert table.optimize().compacted
    handle = table.open() or handle
    wider = PERSON.append(pa.field("phone", pa.string()))
    handle = table.evolve(handle, wider)
    with table.stage(handle, wider) as staged:
        staged.write(
            pa.RecordBatch.from_pylist([{"id": 9, "email": NAMES[0], "born": None, "phone": "+4973"}], schema=wider)
        )
        handle = table.append(handle, staged, Commit("app", 6))
    with table.stage(handle, PERSON) as staged:
        staged.write(_people(*NAMES))
        handle = table.replace(handle, staged, Commit("app", 7))
    handle.delta.create_checkpoint()
    log = _logs(table)
    assert r"\"maxValues\":{\"id\":1,\"city\":\"Ulm\"}" in log, "the others have their bounds"
    for secret in ("@example", "1987", "+4973"):
        assert secret not in log, secret


def test_a_column_that_becomes_personal_has_no_bounds_from_then_on(tmp_path: Path) -> None:
    table = Lake(uri=str(tmp_path)).table("silver", "people")
    table.ensure(PERSON)
    handle = table.ensure(PERSON, personal=("email",))
    assert handle.skipping() == {"id", "born", "city"}
    version = handle.version
    assert table.ensure(PERSON, personal=("email",)).version == version, "which takes one commit, not one per run"
    keyed = pa.Table.from_batches([_people(*NAMES)]).append_column("_action", pa.array(["insert"] * 2))
    merged(table, handle, keyed.to_reader, ["id"], Commit("app", 1), Changes(2))
    assert "@example" not in _logs(table)


def test_a_table_of_nothing_but_personal_columns_has_no_bounds_at_all(tmp_path: Path) -> None:
    table = Lake(uri=str(tmp_path)).table("silver", "people")
    schema = pa.schema([("email", pa.string())])
    handle = table.ensure(schema, personal=("email",))
    keyed = pa.table({"email": list(NAMES), "_action": ["insert"] * 2})
    merged(table, handle, keyed.to_reader, ["email"], Commit("app", 1), Changes(2))
    assert "@example" not in _logs(table), "nor is it there as the range of keys of a merge"


@pytest.mark.parametrize("odd", ["with ` tick", "with, comma"])
def test_a_name_that_delta_cannot_list_does_not_expose_its_neighbours(tmp_path: Path, odd: str) -> None:
    table = Lake(uri=str(tmp_path)).table("silver", "people")
    schema = pa.schema([(odd, pa.string()), ("email", pa.string()), ("id", pa.int64())])
    handle = table.ensure(schema, personal=("email",))
    data = pa.table({odd: ["x"], "email": ["ada@example.org"], "id": [1]})
    handle = table.replace_where(handle, data.to_reader, "`id` > 0", Commit("app", 1), Changes(1))
    log = _logs(table)
    assert "@example" not in log
    assert handle.skipping() == {"id"}


def test_dates_that_python_does_not_have_go_without_bounds(tmp_path: Path) -> None:
    table = Lake(uri=str(tmp_path)).table("gold", "t")
    schema = pa.schema([("d", pa.date32()), ("t", pa.timestamp("us")), ("id", pa.int64())])
    handle = table.ensure(schema)
    days, micros = pa.array([10**7], pa.int32()), pa.array([2**62], pa.int64())
    with table.stage(handle, schema) as staged:
        staged.write(
            pa.RecordBatch.from_arrays(
                [days.cast(pa.date32()), micros.cast(schema[1].type), pa.array([1])], schema=schema
            )
        )
        handle = table.append(handle, staged, Commit("app", 1))
    action = _actions(handle)
    assert action["max.id"] == 1
    assert action.get("max.d") is None
    assert action.get("max.t") is None


def test_floats_and_nested_columns_have_no_bounds(tmp_path: Path) -> None:
    """NaN is in no order, and Delta has no bounds for lists."""
    table = Lake(uri=str(tmp_path)).table("gold", "t")
    schema = pa.schema([("f", pa.float64()), ("l", pa.list_(pa.int64())), ("s", pa.struct([("x", pa.int64())]))])
    handle = table.ensure(schema)
    with table.stage(handle, schema) as staged:
        staged.write(pa.RecordBatch.from_pylist([{"f": float("nan"), "l": [1], "s": {"x": 1}}], schema=schema))
        handle = table.append(handle, staged, Commit("app", 1))
    assert not [name for name in _actions(handle) if name.startswith(("min", "max"))]
