"""Incremental capture of SQL Server tables: whatever commits late, in whatever order, is read once."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.source import Batch, Incremental, Position, Snapshot, Stream
from etl_resources.sources import sqlserver_seen
from etl_resources.sources.sqlserver import SqlServerSource, SqlServerStreamOptions
from tests.servers.tds import TdsServer, shared_tds
from tests.soaking import some

_names = itertools.count(1)


class Reader:
    """Reads a table again and again, each time from where it stopped."""

    def __init__(self, server: TdsServer, table: str, cursor: str = "rv", **options: Any) -> None:
        self.source = SqlServerSource(**server.settings())
        settings = SqlServerStreamOptions(type="sqlserver", table=table, **options)
        self.stream = Stream(table, settings, Incremental(cursor=cursor))
        self.position: Position | None = None

    def batches(self, **options: Any) -> list[Batch]:
        batches = list(self.source.read(self.stream, self.position, **options))
        if batches:
            self.position = batches[-1].position
        return batches

    def ids(self, **options: Any) -> list[int]:
        return sorted(int(i) for b in self.batches(**options) for i in b.data.column("id").to_pylist())


@pytest.fixture
def server() -> TdsServer:
    return shared_tds()


@pytest.fixture
def table(server: TdsServer) -> str:
    name = f"i{next(_names)}"
    server.execute(f"CREATE TABLE dbo.{name} (id int, version int, at datetime2(7), step bigint, rv rowversion)")
    return name


@pytest.fixture
def writer(server: TdsServer) -> Iterator[Any]:
    """A connection whose transaction stays open until it is told to commit."""
    with server.connect(autocommit=False) as connection:
        yield connection


def insert(connection: Any, table: str, id_: int, at: str = "SYSUTCDATETIME()") -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO dbo.{table} (id, version, at) VALUES ({id_}, 1, {at})")


def test_a_row_that_commits_late_with_an_older_version_is_read(server: TdsServer, table: str, writer: Any) -> None:
    reader = Reader(server, table)
    insert(writer, table, 1)
    server.execute(f"INSERT INTO dbo.{table} (id) VALUES (2)")
    assert reader.ids() == [], "nothing above a version that is in flight is final"
    writer.commit()
    assert reader.ids() == [1, 2]
    assert reader.ids() == []


def test_a_reader_without_the_bound_loses_that_row(server: TdsServer, table: str, writer: Any) -> None:
    """The test of the test: `rv > last` misses what the server lets commit late."""
    insert(writer, table, 1)
    server.execute(f"INSERT INTO dbo.{table} (id) VALUES (2)")
    seen = server.execute(f"SELECT id, rv FROM dbo.{table}")
    last = max(version for _, version in seen)
    writer.commit()
    seen += server.execute(f"SELECT id, rv FROM dbo.{table} WHERE rv > 0x{last.hex()}")
    assert [id_ for id_, _ in seen] == [2]


def test_an_update_is_read_as_its_newest_version_and_what_is_undone_never(
    server: TdsServer, table: str, writer: Any
) -> None:
    reader = Reader(server, table)
    server.execute(f"INSERT INTO dbo.{table} (id, version) VALUES (1, 1), (2, 1)")
    assert reader.ids() == [1, 2]
    server.execute(f"UPDATE dbo.{table} SET version = 2 WHERE id = 2")
    insert(writer, table, 3)
    writer.rollback()
    (batch,) = reader.batches()
    assert batch.data.select(["id", "version"]).to_pylist() == [{"id": 2, "version": 2}]


@pytest.mark.parametrize(("cursor", "options"), some([("rv", {}), ("at", {"late_by": 3600})], 1))
def test_whatever_writers_do_at_the_same_time_every_row_is_read_once(
    server: TdsServer, table: str, cursor: str, options: dict[str, Any]
) -> None:
    reader = Reader(server, table, cursor, **options)
    stop, errors = threading.Event(), []

    def write(first: int) -> None:
        chance = random.Random(first)
        try:
            with server.connect(autocommit=False) as connection:
                for n in range(10):
                    for k in range(chance.randint(1, 3)):
                        insert(connection, table, first + 10 * n + k)
                    stop.wait(chance.random() * 0.03)
                    connection.commit() if chance.random() < 0.8 else connection.rollback()
        except Exception as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    writers = [threading.Thread(target=write, args=(1000 * n,)) for n in range(1, 5)]
    for thread in writers:
        thread.start()
    read: Counter[int] = Counter()
    while any(thread.is_alive() for thread in writers):
        read.update(reader.ids(batch_rows=7))
    read.update(reader.ids())
    assert not errors
    truth = [id_ for (id_,) in server.execute(f"SELECT id FROM dbo.{table}")]
    assert read == Counter(truth), "nothing missed, nothing twice"
    assert len(truth) > 30


def test_a_cursor_that_is_no_rowversion_needs_a_promise(server: TdsServer, table: str) -> None:
    with pytest.raises(ConfigurationError, match="would be lost") as caught:
        Reader(server, table, "at").ids()
    assert "late_by" in caught.value.fix
    server.execute(f"CREATE TABLE dbo.{table}_text (id int, name nvarchar(20))")
    with pytest.raises(ConfigurationError, match="it is no cursor"):
        Reader(server, f"{table}_text", "name", late_by=0).ids()


def test_rows_within_the_promise_are_read_and_later_ones_are_not(server: TdsServer, table: str) -> None:
    reader = Reader(server, table, "at", late_by=60)
    server.execute(f"INSERT INTO dbo.{table} (id, at) VALUES (1, '2024-01-01 12:00:00'), (2, '2024-01-01 12:01:00')")
    assert reader.ids() == [1, 2]
    server.execute(f"INSERT INTO dbo.{table} (id, at) VALUES (3, '2024-01-01 12:00:30'), (4, '2024-01-01 11:59:00')")
    assert reader.ids() == [3], "row 4 breaks the promise"
    assert reader.ids() == []


def test_the_boundary_rows_without_a_cursor_and_equal_rows_are_read_once_each(server: TdsServer, table: str) -> None:
    reader = Reader(server, table, "at", late_by=0, columns=["id", "at"])
    same = "(1, '2024-01-01'), (1, '2024-01-01')"
    server.execute(f"INSERT INTO dbo.{table} (id, at) VALUES {same}, (2, NULL)")
    assert reader.ids() == [1, 1, 2]
    assert reader.ids() == []
    server.execute(f"INSERT INTO dbo.{table} (id, at) VALUES (1, '2024-01-01'), (3, NULL), (4, '2024-01-01')")
    batches = reader.batches(batch_rows=2)
    assert sorted(i for b in batches for i in b.data.column("id").to_pylist()) == [1, 3, 4]
    assert sum(b.repeated for b in batches) == 3
    assert batches[-1].rows_read == 6, "what came again is counted, and said to be repeated"
    assert reader.ids() == []


def test_a_changed_row_near_the_newest_one_is_read_again(server: TdsServer, table: str) -> None:
    reader = Reader(server, table, "at", late_by=3600)
    server.execute(f"INSERT INTO dbo.{table} (id, version, at) VALUES (1, 1, '2024-01-01 12:00')")
    reader.ids()
    server.execute(f"UPDATE dbo.{table} SET version = 2 WHERE id = 1")
    assert [b.data.column("version").to_pylist() for b in reader.batches()] == [[2]]


def test_a_time_in_the_future_does_not_hide_what_comes_after_it(server: TdsServer, table: str) -> None:
    reader = Reader(server, table, "at", late_by=10)
    server.execute(f"INSERT INTO dbo.{table} (id, at) VALUES (1, '9999-12-31'), (2, SYSUTCDATETIME())")
    assert reader.ids() == [1, 2]
    server.execute(f"INSERT INTO dbo.{table} (id, at) VALUES (3, SYSUTCDATETIME())")
    assert reader.ids() == [3]


def test_the_bound_never_goes_back(server: TdsServer, table: str) -> None:
    """When the newest rows are deleted, what lies behind them is not read a second time."""
    reader = Reader(server, table, "step", late_by=5)
    server.execute(f"INSERT INTO dbo.{table} (id, step) VALUES (1, 10), (2, 11), (3, 100)")
    assert reader.ids() == [1, 2, 3]
    server.execute(f"DELETE FROM dbo.{table} WHERE id = 3", f"INSERT INTO dbo.{table} (id, step) VALUES (4, 99)")
    assert reader.ids() == [4]
    server.execute(f"INSERT INTO dbo.{table} (id, step) VALUES (5, 101)")
    assert reader.ids() == [5]


def test_a_promise_that_grows_reads_nothing_twice(server: TdsServer, table: str) -> None:
    reader = Reader(server, table, "step", late_by=1)
    server.execute(f"INSERT INTO dbo.{table} (id, step) VALUES (1, 10), (2, 20)")
    assert reader.ids() == [1, 2]
    longer = Reader(server, table, "step", late_by=50)
    longer.position = reader.position
    assert longer.ids() == []


def test_more_rows_than_a_position_can_hold_are_refused(
    server: TdsServer, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlserver_seen, "LIMIT", 3)
    server.execute(f"INSERT INTO dbo.{table} (id, step) VALUES (1, 1), (2, 2), (3, 3), (4, 4)")
    assert Reader(server, table, "step", late_by=2).ids() == [1, 2, 3, 4]
    with pytest.raises(ConfigurationError, match="late_by"):
        Reader(server, table, "step", late_by=3).ids()


@pytest.mark.parametrize("type_", some(["datetime2(7)", "datetimeoffset(3)", "date", "decimal(20, 0)",
                                        "datetime2(0)", "datetime", "int", "bigint"], 2))  # fmt: skip
def test_every_type_of_cursor_resumes(server: TdsServer, table: str, type_: str) -> None:
    name = f"{table}_types"
    server.execute(f"CREATE TABLE dbo.{name} (id int, c {type_})")
    old, new = ("5", "6") if type_[:3] in {"int", "big", "dec"} else ("'2024-01-01 00:00:00'", "'2024-01-02 10:00:00'")
    server.execute(f"INSERT INTO dbo.{name} VALUES (1, {old})")
    reader = Reader(server, name, "c", late_by=1)
    assert reader.ids() == [1]
    server.execute(f"INSERT INTO dbo.{name} VALUES (2, {old}), (3, {new})")
    assert reader.ids() == [2, 3]
    assert reader.ids() == []


def test_a_restored_database_is_noticed(server: TdsServer, table: str) -> None:
    server.execute(f"INSERT INTO dbo.{table} (id) VALUES (1)")
    reader = Reader(server, table)
    reader.ids()
    before = reader.position
    assert before is not None
    reader.position = {**before, "rowversion": "0x0000ffffffffffff"}
    with pytest.raises(NotFoundError, match="went back") as caught:
        reader.ids()
    assert "full refresh" in caught.value.fix
    reader.position = before
    assert reader.ids() == []
    server.execute("UPDATE sys.database_recovery_status SET recovery_fork_guid = gen_random_uuid()")
    with pytest.raises(NotFoundError, match="restored"):
        reader.ids()


def test_a_snapshot_can_be_followed_by_versions_and_by_nothing_else(server: TdsServer, table: str) -> None:
    server.execute(f"INSERT INTO dbo.{table} (id, step) VALUES (1, 1)")
    reader = Reader(server, table)
    (whole,) = reader.source.read(Stream("s", reader.stream.options, Snapshot()), None)
    server.execute(f"INSERT INTO dbo.{table} (id, step) VALUES (2, 2)")
    reader.position = whole.position
    assert reader.ids() == [2]
    other = Reader(server, table, "step", late_by=0)
    other.position = reader.position
    with pytest.raises(ConfigurationError, match="by rv so far"):
        other.ids()


def test_latest_tells_whether_anything_was_written(server: TdsServer, table: str) -> None:
    for cursor, options in (("rv", {}), ("step", {"late_by": 0})):
        reader = Reader(server, table, cursor, **options)
        first = reader.source.latest(reader.stream)
        step = len(cursor)
        server.execute(f"INSERT INTO dbo.{table} (id, step) VALUES (1, {step})")
        assert reader.source.latest(reader.stream) != first
    assert reader.source.latest(Stream("s", reader.stream.options, Snapshot())) is None


def test_ranges_read_in_parallel_give_every_row_once(server: TdsServer, table: str) -> None:
    rows = 6_000
    data = pa.table({"id": pa.array(range(-rows // 2, rows // 2), pa.int32()), "version": [1] * rows})
    server.load(f"dbo.{table}", data)
    server.execute(f"INSERT INTO dbo.{table} (id) VALUES (NULL)")
    reader = Reader(server, table, parallel=4, split_by="id")
    batches = reader.batches(batch_rows=300)
    ids = [i for b in batches for i in b.data.column("id").to_pylist()]
    assert Counter(ids) == Counter([*range(-rows // 2, rows // 2), None])
    assert ids != sorted(ids, key=lambda i: (i is not None, i or 0)), "the ranges come in turn"
    server.execute(f"INSERT INTO dbo.{table} (id) VALUES (999999)")
    assert reader.ids() == [999_999]
    assert reader.ids() == []
    with pytest.raises(ConfigurationError, match="whole numbers"):
        Reader(server, table, parallel=2, split_by="at").ids()
