"""The engine: lake tables as relations, errors that say what was asked, memory within its limit."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from etl_resources.engines.duckdb import DuckDB, Session, literal, quote
from etl_resources.engines.kept import close_waiting
from etl_resources.exceptions import EngineError
from etl_resources.lake import Commit, Handle, Lake, LakeTable

SCHEMA = pa.schema([("id", pa.int64()), ('it\'s "odd"', pa.string())])


def load(table: LakeTable, number: int, schema: pa.Schema, *rows: dict[str, object]) -> Handle:
    handle = table.evolve(table.ensure(schema), schema)
    with table.stage(handle, schema) as staged:
        staged.write(pa.RecordBatch.from_pylist(list(rows), schema=schema))
        return table.append(handle, staged, Commit("app", number))


def ids(session: Session, relation: str) -> list[int]:
    return sorted(row[0] for row in session.execute(f"SELECT id FROM {relation}"))


def test_names_and_texts_cannot_leave_their_quotes() -> None:
    with DuckDB(threads=1).session() as session:
        name, text = 'a"; DROP TABLE t; --', "it's; DROP TABLE t; --"
        session.execute(f"CREATE TABLE {quote(name)} AS SELECT {literal(text)} AS c")
        assert session.execute(f"SELECT c FROM {quote(name)}") == [(text,)]
        session.view(name + "2", quote(name))
        assert session.execute(f"SELECT c FROM {quote(name + '2')}") == [(text,)]


def test_an_error_names_the_statement() -> None:
    with DuckDB(threads=1).session() as session:
        for ask in (session.execute, session.stream, session.table):
            with pytest.raises(EngineError, match=r"(?s)nothing_like_it.*where: the query\nSELECT nothing_like_it"):
                ask("SELECT nothing_like_it")  # type: ignore[operator]


def test_an_error_in_the_middle_of_a_result_is_one_of_the_engine() -> None:
    """Arrow makes an OSError of it, which would look like a failing disk."""
    sql = "SELECT CAST(CASE WHEN range = 200000 THEN 'x' ELSE '1' END AS INTEGER) AS n FROM range(300000)"
    with DuckDB(threads=1).session() as session:
        reader = session.stream(sql, 10_000)
        with pytest.raises(EngineError, match=r"(?s)Could not convert.*where: the query"):
            for _ in reader:
                pass


def test_times_are_utc_whatever_the_machine_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    with DuckDB(threads=1).session() as session:
        [(found,)] = session.execute("SELECT TIMESTAMPTZ '2024-02-29 12:00:00'")
        assert found.astimezone(UTC) == datetime(2024, 2, 29, 12, tzinfo=UTC)
        assert session.execute("SELECT TIMESTAMPTZ '2024-02-29 12:00:00'::TIMESTAMP::VARCHAR") == [
            ("2024-02-29 12:00:00",)
        ]


def test_a_lake_table_is_read_as_of_its_handle(tmp_path: Path) -> None:
    table = Lake(uri=str(tmp_path / "it's here")).table("silver", "t")
    old = load(table, 1, SCHEMA, {"id": 1, 'it\'s "odd"': "x"})
    load(table, 2, SCHEMA, {"id": 2})
    with DuckDB(threads=1).session() as session:
        assert ids(session, session.lake_relation(old)) == [1]
        fresh = table.open()
        assert fresh is not None
        assert ids(session, session.lake_relation(fresh)) == [1, 2]


def test_files_older_than_a_column_have_none(tmp_path: Path) -> None:
    table = Lake(uri=str(tmp_path)).table("silver", "t")
    load(table, 1, SCHEMA, {"id": 1})
    wider = SCHEMA.append(pa.field("moment", pa.timestamp("us", tz="UTC"))).append(
        pa.field("s", pa.struct([("x", pa.int64())]))
    )
    handle = load(table, 2, wider, {"id": 2, "s": {"x": 1}})
    with DuckDB(threads=1).session() as session:
        relation = session.lake_relation(handle)
        assert list(session.types(relation)) == wider.names
        assert session.arrow_schema(relation).field("moment").type == pa.timestamp("us", tz="UTC")
        found = session.execute(f"SELECT id, moment, s FROM {relation} ORDER BY id")
        assert found == [(1, None, None), (2, None, {"x": 1})]
        oldest = session.lake_relation(handle, column="id", above=0)
        assert ids(session, oldest) == [1, 2]


def test_a_field_that_a_struct_gained_is_null_in_old_files(tmp_path: Path) -> None:
    table = Lake(uri=str(tmp_path)).table("silver", "t")
    old = pa.schema([("id", pa.int64()), ("s", pa.struct([("x", pa.int64())]))])
    new = pa.schema([("id", pa.int64()), ("s", pa.struct([("x", pa.int64()), ("y", pa.string())]))])
    load(table, 1, old, {"id": 1, "s": {"x": 1}})
    handle = load(table, 2, new, {"id": 2, "s": {"x": 2, "y": "b"}})
    with DuckDB(threads=1).session() as session:
        relation = session.lake_relation(handle)
        assert session.execute(f"SELECT s.x, s.y FROM {relation} ORDER BY id") == [(1, None), (2, "b")]
        only_old = session.lake_relation(handle.table.open(2) or handle)
        assert session.execute(f"SELECT s.x FROM {only_old} ORDER BY id") == [(1,)]


def test_only_files_that_may_hold_newer_rows_are_read(tmp_path: Path) -> None:
    table = Lake(uri=str(tmp_path)).table("silver", "t")
    for number in range(1, 4):
        handle = load(table, number, SCHEMA, {"id": number})
    with DuckDB(threads=1).session() as session:
        assert ids(session, session.lake_relation(handle, column="id", above=2)) == [3]
        assert ids(session, session.lake_relation(handle, column="id", above=3)) == []


def test_tables_that_files_alone_are_not_are_read_through_delta(tmp_path: Path) -> None:
    """Partition columns stand in the paths of files only."""
    from deltalake import write_deltalake

    table = Lake(uri=str(tmp_path)).table("silver", "t")
    write_deltalake(table.uri, pa.table({"id": [1, 2], "day": ["a", "b"]}), partition_by=["day"])
    handle = table.open()
    assert handle is not None
    assert not handle.plain_files()
    with DuckDB(threads=1).session() as session:
        relation = session.lake_relation(handle)
        assert session.execute(f"SELECT id, day FROM {relation} ORDER BY id") == [(1, "a"), (2, "b")]


def test_an_empty_table_has_its_columns(tmp_path: Path) -> None:
    handle = Lake(uri=str(tmp_path)).table("silver", "t").ensure(SCHEMA)
    with DuckDB(threads=1).session() as session:
        relation = session.lake_relation(handle)
        assert ids(session, relation) == []
        assert list(session.types(relation)) == SCHEMA.names


def test_what_does_not_fit_into_memory_goes_to_disk_and_is_gone_afterwards(tmp_path: Path) -> None:
    engine = DuckDB(memory_limit="40MB", threads=1, temp_directory=str(tmp_path))
    with engine.session() as session:
        session.execute(
            "CREATE TEMP TABLE big AS SELECT range AS id, hash(range)::VARCHAR AS text FROM range(2_000_000)"
        )
        assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) > 10**7
        assert session.execute("SELECT count(*), count(DISTINCT id) FROM big") == [(2_000_000, 2_000_000)]
    assert [file for file in tmp_path.rglob("*") if file.is_file() and file.stat().st_size] == []
    close_waiting()
    assert list(tmp_path.iterdir()) == []


def test_a_session_finds_nothing_of_the_one_before() -> None:
    close_waiting()  # one that was opened long ago would be closed, because the process has grown since
    engine = DuckDB(threads=1)
    with engine.session() as session:
        database = _address(session)
        session.execute("CREATE TABLE kept AS SELECT 1 AS a")
        session.execute("CREATE TEMP TABLE passing AS SELECT 1 AS a")
        session.view("shown", "kept")
        session.connection.register("arrow", pa.table({"a": [1]}))
        session.execute("ATTACH ':memory:' AS silver")
        session.execute("CREATE SCHEMA silver.shop")
    with engine.session() as session:
        assert _address(session) == database, "the second session was to get the database of the first"
        assert session.execute("SELECT table_name FROM information_schema.tables") == []
        assert session.execute("SELECT database_name FROM duckdb_databases() WHERE NOT internal ORDER BY 1") == [
            ("_etl_session",), ("memory",)
        ]  # fmt: skip
        for name in ("kept", "passing", "shown", "arrow", "silver.shop.orders"):
            with pytest.raises(EngineError, match="does not exist"):
                session.execute(f"SELECT * FROM {name}")


def test_sessions_at_the_same_time_do_not_see_each_other() -> None:
    engine = DuckDB(threads=1)
    with engine.session() as one, engine.session() as other:
        one.execute("CREATE TABLE t AS SELECT 1 AS a")
        other.execute("CREATE TABLE t AS SELECT 2 AS a")
        assert (one.execute("FROM t"), other.execute("FROM t")) == ([(1,)], [(2,)])


def test_after_an_error_a_session_begins_anew() -> None:
    engine = DuckDB(threads=1)
    with pytest.raises(EngineError), engine.session() as session:  # noqa: PT012 - the error ends the session
        session.execute("SET memory_limit = '20MB'")
        before = _address(session)
        session.execute("SELECT no_such_column")
    with engine.session() as session:
        assert _address(session) != before
        assert session.execute("SELECT current_setting('memory_limit')") != [("19.0 MiB",)]


def test_memory_is_given_back_after_a_large_session() -> None:
    close_waiting()
    engine = DuckDB(threads=1)
    process = psutil.Process()
    with engine.session() as session:
        before = process.memory_info().rss
        session.execute("CREATE TEMP TABLE big AS SELECT md5(range::VARCHAR) AS text FROM range(5_000_000)")
        assert process.memory_info().rss - before > 128 << 20
    assert process.memory_info().rss - before < 96 << 20


def test_a_forked_process_opens_its_own(tmp_path: Path) -> None:
    """Threads do not come along: a database that was open would hang in the child."""
    engine = DuckDB(threads=2)
    with engine.session() as session:
        session.execute("SELECT 1")
    child = os.fork()
    if child == 0:
        with engine.session() as session:
            found = session.execute("SELECT count(*) FROM range(1_000_000)")
        close_waiting()  # which waits for the threads
        os._exit(0 if found == [(1_000_000,)] else 1)
    deadline = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)


def _address(session: Session) -> object:
    """Return what tells one database from another: the folder into which it spills."""
    return session.execute("SELECT current_setting('temp_directory')")


def test_results_come_in_batches() -> None:
    with DuckDB(threads=1).session() as session:
        reader = session.stream("SELECT range AS id FROM range(300_000)", 100_000)
        sizes = [batch.num_rows for batch in reader]
    assert sum(sizes) == 300_000
    assert len(sizes) >= 3
