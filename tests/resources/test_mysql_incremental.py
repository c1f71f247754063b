"""Incremental reads of MySQL: what is committed late is not missed, and nothing is read twice."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from datetime import datetime
from typing import Any

import pymysql
import pytest

from etl_resources.exceptions import ConfigurationError, UnavailableError
from etl_resources.secret import Secret
from etl_resources.source import Batch, Incremental, Stream
from etl_resources.sources import mysql_seen
from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions
from etl_resources.sources.mysql_horizon import Horizon, Open, _transactions, take
from tests.servers.mysql import MysqlServer, running_mysql, shared_mysql
from tests.soaking import some


class Reader:
    """Reads a table again and again, as runs of a pipeline do."""

    def __init__(self, source: MysqlSource, cursor: str = "at", **options: Any) -> None:
        given = MysqlStreamOptions(type="mysql", table="t", **{"settle": 0, **options})
        self.source, self.stream = source, Stream("t", given, Incremental(cursor=cursor))
        self.position: Any = None

    def batches(self) -> list[Batch]:
        batches = list(self.source.read(self.stream, self.position))
        if batches:
            self.position = batches[-1].position
            given = sum(b.data.num_rows + (b.unreadable.num_rows if b.unreadable else 0) for b in batches)
            assert batches[-1].rows_read == given
        return batches

    def ids(self) -> list[int]:
        return sorted(i for b in self.batches() for i in b.data.column("id").to_pylist())


@pytest.fixture
def server() -> MysqlServer:
    return shared_mysql()


@pytest.fixture
def database(server: MysqlServer) -> str:
    return server.database()


@pytest.fixture
def source(server: MysqlServer, database: str) -> MysqlSource:
    return MysqlSource(**server.settings(database))


@pytest.fixture
def table(server: MysqlServer, database: str) -> str:
    server.execute(
        database, "CREATE TABLE t (id int PRIMARY KEY, at timestamp(6) NULL, on_clock datetime(6), n bigint, v int)"
    )
    return database


def insert(client: Any, *ids: int, at: str = "NOW(6)") -> None:
    with client.cursor() as cursor:
        for n in ids:
            cursor.execute(f"INSERT INTO t VALUES ({n}, {at}, {at}, {n}, 1)")


CURSORS = some(["at", "n", "on_clock"], 2)


@pytest.mark.parametrize("cursor", CURSORS)
def test_a_row_that_is_committed_late_is_read_and_nothing_twice(
    server: MysqlServer, source: MysqlSource, table: str, cursor: str
) -> None:
    reader = Reader(source, cursor)
    with server.connect(table) as now, server.connect(table, autocommit=False) as late:
        insert(now, 1)
        assert reader.ids() == [1]
        insert(late, 2)
        time.sleep(0.01)
        insert(now, 3)
        assert reader.ids() == [3]
        insert(now, 4)
        assert reader.ids() == [4]
        late.commit()
        assert reader.ids() == [2]
        assert reader.ids() == []


@pytest.mark.parametrize("cursor", some(["on_clock", "at"], 1))
def test_a_transaction_that_is_open_at_the_first_read_is_waited_for_by_its_age(
    server: MysqlServer, source: MysqlSource, table: str, cursor: str
) -> None:
    with server.connect(table) as now, server.connect(table, autocommit=False) as late:
        insert(now, 1)
        insert(late, 2)
        time.sleep(0.01)
        insert(now, 3)
        reader = Reader(source, cursor)
        assert reader.ids() == [1, 3]
        late.commit()
        assert reader.ids() == [2]


def test_numbers_whose_first_read_nobody_can_bound_are_an_error_and_no_guess(
    server: MysqlServer, source: MysqlSource, table: str
) -> None:
    with server.connect(table) as now, server.connect(table, autocommit=False) as late:
        insert(late, 2)
        insert(now, 3)
        with pytest.raises(UnavailableError, match=f"connection {late.thread_id()} ") as caught:
            Reader(source, "n").ids()
        assert "late_by" in caught.value.fix
        promised = Reader(source, "n", late_by=10)
        assert promised.ids() == [3]
        late.commit()
        assert promised.ids() == [2]
        waiting = Reader(source, "n", settle=20)
        insert(late, 4)
        insert(now, 5)
        threading.Timer(0.4, late.commit).start()
        assert waiting.ids() == [2, 3, 4, 5]


def test_a_statement_that_has_not_reached_the_table_yet_is_known(
    server: MysqlServer, source: MysqlSource, table: str
) -> None:
    """It has taken its time already, waits for a lock on the table's definition, and has no transaction yet."""
    reader = Reader(source)
    with server.connect(table) as now, server.connect(table) as lock, server.connect(table) as late:
        insert(now, 1)
        assert reader.ids() == [1]
        lock.query("CREATE TABLE gate (id int)")
        lock.query("LOCK TABLES gate WRITE")
        sql = "INSERT INTO t SELECT 2, NOW(6), NOW(6), 2, COUNT(*) FROM gate"
        writer = threading.Thread(target=late.query, args=(sql,))
        writer.start()
        time.sleep(1.3)
        insert(now, 3)
        assert reader.ids() == [3]
        insert(now, 4)
        assert reader.ids() == [4]
        lock.query("UNLOCK TABLES")
        writer.join()
        assert reader.ids() == [2]
        assert reader.ids() == []


@pytest.mark.parametrize("cursor", CURSORS)
def test_equal_cursors_and_empty_ones_are_read_once(
    server: MysqlServer, source: MysqlSource, table: str, cursor: str
) -> None:
    reader = Reader(source, cursor)
    value = {"at": "'2030-01-01'", "on_clock": "'2030-01-01'", "n": "7"}[cursor]

    def add(n: int, value: str = value) -> None:
        server.execute(table, f"INSERT INTO t (id, {cursor}, v) VALUES ({n}, {value}, 1)")

    add(1)
    add(2, "NULL")
    assert reader.ids() == [1, 2]
    add(3)
    add(4, "NULL")
    assert reader.ids() == [3, 4]
    assert reader.ids() == []
    server.execute(table, "UPDATE t SET v = 2 WHERE id IN (2, 3)")
    assert reader.ids() == [2, 3], "a change of such a row is seen, though the cursor stays"


def test_rows_without_a_key_that_are_equal_in_all_columns_are_counted(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    server.execute(database, "CREATE TABLE t (id int, at timestamp NULL)", "INSERT INTO t VALUES (1, NULL), (1, NULL)")
    reader = Reader(source)
    assert reader.ids() == [1, 1]
    server.execute(database, "INSERT INTO t VALUES (1, NULL)")
    assert reader.ids() == [1]
    server.execute(database, "INSERT INTO t VALUES (1, NULL), (1, NULL), (2, NULL)")
    assert reader.ids() == [1, 1, 2]
    assert reader.ids() == []


def test_a_cursor_that_is_no_date_counts_as_none(server: MysqlServer, source: MysqlSource, database: str) -> None:
    server.execute(database, "CREATE TABLE t (id int, at datetime)", "INSERT INTO t VALUES (1, NOW())")
    reader = Reader(source)
    assert reader.ids() == [1]
    server.execute(database, "SET sql_mode = ''", "INSERT INTO t VALUES (2, '0000-00-00')")
    (batch,) = reader.batches()
    assert batch.unreadable is not None
    assert (batch.data.num_rows, batch.unreadable.num_rows, batch.rows_read) == (0, 1, 1)
    assert list(source.read(reader.stream, batch.position)) == []


@pytest.mark.parametrize("cursor", CURSORS)
def test_a_table_without_a_cursor_value_is_read_from_its_first_one_on(
    server: MysqlServer, source: MysqlSource, table: str, cursor: str
) -> None:
    """There is no mark to start from: whatever comes may be behind what is there."""
    reader = Reader(source, cursor)
    assert reader.ids() == []
    server.execute(table, "INSERT INTO t (id) VALUES (9)")
    with server.connect(table, autocommit=False) as late, server.connect(table) as now:
        assert reader.ids() == [9]
        insert(late, 1)
        time.sleep(0.01)
        insert(now, 2)
        assert reader.ids() == [2]
        late.commit()
        assert reader.ids() == [1]
        assert reader.ids() == []


def test_columns_without_the_cursor_are_read_incrementally_too(
    server: MysqlServer, source: MysqlSource, table: str
) -> None:
    reader = Reader(source, columns=("v", "id"))
    with server.connect(table) as now:
        insert(now, 1)
        (batch,) = reader.batches()
        assert batch.data.schema.names == ["v", "id"]
        insert(now, 2)
        assert reader.ids() == [2]


def test_a_transaction_that_cannot_write_holds_nothing_up(server: MysqlServer, source: MysqlSource, table: str) -> None:
    with server.connect(table) as other, server.connect(table) as now:
        other.query("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        other.query("SELECT COUNT(*) FROM t")
        insert(now, 1)
        reader = Reader(source, "n", settle=30)
        started = time.monotonic()
        assert reader.ids() == [1]
        assert time.monotonic() - started < 10


def test_a_listing_that_is_stale_does_not_count(server: MysqlServer, source: MysqlSource, table: str) -> None:
    """Others read INNODB_TRX all the time: what the server then gives may be as old as they keep it."""
    stop, polling = threading.Event(), threading.Event()

    def poll() -> None:
        with server.connect() as connection, connection.cursor() as cursor:
            while not stop.wait(0.01):
                cursor.execute("SELECT COUNT(*) FROM information_schema.innodb_trx")
                polling.set()

    with source.session() as session, server.connect(table, autocommit=False) as late:
        session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        assert late.thread_id() not in _transactions(session)
        poller = threading.Thread(target=poll)
        poller.start()
        assert polling.wait(5)
        insert(late, 2)
        threading.Timer(0.5, stop.set).start()
        assert late.thread_id() in _transactions(session)
        poller.join()
        late.rollback()


def test_a_prepared_transaction_survives_a_crash_and_is_not_missed() -> None:
    with running_mysql({"innodb-flush-log-at-trx-commit": "1", "sync-binlog": "1"}) as server:
        database = server.database()
        server.execute(database, "CREATE TABLE t (id int PRIMARY KEY, at timestamp(6) NULL) ENGINE = InnoDB")
        reader = Reader(MysqlSource(**server.settings(database)))
        server.execute(database, "INSERT INTO t VALUES (1, NOW(6))")
        assert reader.ids() == [1]
        late = server.connect(database)
        for statement in ("XA START 'x'", "INSERT INTO t VALUES (2, NOW(6))", "XA END 'x'", "XA PREPARE 'x'"):
            late.query(statement)
        time.sleep(1.1)
        server.execute(database, "INSERT INTO t VALUES (3, NOW(6))")
        assert reader.ids() == [3]
        server.stop(signal.SIGKILL)
        server.start()
        server.execute(database, "INSERT INTO t VALUES (4, NOW(6))")
        assert reader.ids() == [4]
        server.execute(database, "XA COMMIT 'x'")
        assert reader.ids() == [2]
        assert reader.ids() == []


def test_without_the_right_to_see_transactions_a_promise_is_asked_for(
    server: MysqlServer, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READER_PASSWORD", "pw")
    server.execute(
        table, "CREATE OR REPLACE USER reader@'127.0.0.1' IDENTIFIED BY 'pw'",
        f"GRANT SELECT ON {table}.* TO reader@'127.0.0.1'",
    )  # fmt: skip
    source = MysqlSource(**server.settings(table, user="reader", password=Secret(env="READER_PASSWORD")))
    with server.connect(table) as now:
        insert(now, 1)
        with pytest.raises(ConfigurationError, match="PROCESS") as caught:
            Reader(source).ids()
        assert "late_by" in caught.value.fix
        reader = Reader(source, late_by=60)
        assert reader.ids() == [1]
        insert(now, 2, at="NOW(6) - INTERVAL 50 SECOND")
        assert reader.ids() == [2]
        insert(now, 3, at="NOW(6) - INTERVAL 90 SECOND")
        assert reader.ids() == [], "the promise was broken, and the row is lost: so it has been active"


def test_a_replica_needs_a_promise(source: MysqlSource, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from etl_resources.mysql_session import Session

    rows = Session.rows

    def as_on_a_replica(self: Session, query: str) -> list[Any]:
        more = [(999_999, "system user", "Slave_SQL", 5, 1)] if "processlist" in query else []
        return rows(self, query) + more

    monkeypatch.setattr(Session, "rows", as_on_a_replica)
    with pytest.raises(ConfigurationError, match="replica"):
        Reader(source).ids()


def test_more_rows_than_can_be_remembered_are_an_error(
    server: MysqlServer, source: MysqlSource, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_seen, "MOST", 3)
    with server.connect(table) as now:
        insert(now, 1, 2, 3, at="NULL")
        assert Reader(source).ids() == [1, 2, 3]
        insert(now, 4, at="NULL")
        with pytest.raises(UnavailableError, match="more than 3 rows"):
            Reader(source).ids()


def test_a_cursor_must_grow_with_time(server: MysqlServer, source: MysqlSource, database: str) -> None:
    server.execute(database, "CREATE TABLE t (id int, at varchar(9))")
    with pytest.raises(ConfigurationError, match="cursor at is of type string"):
        Reader(source).ids()


def test_what_a_connection_does_next_is_not_what_it_did() -> None:
    """A busy connection must not hold the horizon for ever, and one transaction must not be taken for two."""
    first = Open(7, "2024-01-01 00:00:00", 12, None, 1.0, datetime(2024, 1, 1))
    statement = Open(7, None, 0, 55, 1.0, datetime(2024, 1, 1))

    def now(*found: Open) -> dict[int, list[Open]]:
        return {7: list(found)}

    assert first.later({}) is None
    assert first.later(now(Open(7, "2024-01-01 00:00:00", 12, 60))) is not None
    assert first.later(now(Open(7, "2024-01-01 00:00:00", 13, 60))) is None
    assert first.later(now(Open(7, "2024-01-01 00:00:05", 12, 60))) is None
    assert statement.later(now(Open(7, None, 0, 55))) is statement
    assert statement.later(now(Open(7, None, 0, 56))) is None
    begun = statement.later(now(Open(7, "2024-01-01 00:00:05", 14, 56)))
    assert begun is not None
    assert (begun.started, begun.bound) == ("2024-01-01 00:00:05", statement.bound)


class Writers:
    """Threads whose transactions take their cursor early and commit late, in any order."""

    def __init__(self, server: MysqlServer, database: str, *, threads: int, seconds: float, seed: int) -> None:
        self.server, self.database = server, database
        self.end = time.monotonic() + seconds
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._run, args=(random.Random(seed + n), n)) for n in range(threads)]

    def _run(self, chance: random.Random, number: int) -> None:
        try:
            with self.server.connect(self.database, autocommit=False) as connection:
                mine: list[int] = []
                while time.monotonic() < self.end:
                    self._transaction(connection, chance, mine, number)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.errors.append(error)

    def _transaction(self, c: pymysql.Connection[Any], chance: random.Random, mine: list[int], number: int) -> None:
        added: list[int] = []
        with c.cursor() as cursor:
            for _ in range(chance.randint(1, 4)):
                at = "NULL" if chance.random() < 0.1 else "NOW(6)"
                if chance.random() < 0.6 or not mine:
                    cursor.execute(f"INSERT INTO t (at, on_clock) VALUES ({at}, {at})")
                    added.append(cursor.lastrowid)
                else:
                    one = chance.choice(mine)
                    cursor.execute(f"UPDATE t SET v = v + 1, at = {at}, on_clock = {at} WHERE id = {one}")
                if chance.random() < 0.3:
                    time.sleep(chance.random() * 0.05)
        time.sleep(chance.random() ** 3 * 0.8)
        if chance.random() < 0.15:
            c.rollback()
            return
        if chance.random() < 0.1:
            c.rollback()
            self._in_two_phases(f"w{number}_{chance.random()}", added, chance)
            return
        c.commit()
        mine += added

    def _in_two_phases(self, name: str, added: list[int], chance: random.Random) -> None:
        with self.server.connect(self.database) as c:
            for statement in (f"XA START '{name}'", "INSERT INTO t (at, on_clock) VALUES (NOW(6), NOW(6))",
                              f"XA END '{name}'", f"XA PREPARE '{name}'"):  # fmt: skip
                c.query(statement)
            time.sleep(chance.random() * 0.1)
            c.query(f"XA COMMIT '{name}'")


class Naive:
    """What a reader does that trusts the cursor: it must lose rows in this test."""

    def __init__(self, connection: Any, cursor: str) -> None:
        self.connection, self.cursor = connection, cursor
        self.last: Any = None
        self.seen: Counter[tuple[int, int]] = Counter()

    def read(self) -> None:
        with self.connection.cursor() as cursor:
            where = "TRUE" if self.last is None else f"{self.cursor} > '{self.last}' OR {self.cursor} IS NULL"
            cursor.execute(f"SELECT id, v, {self.cursor} FROM t WHERE {where}")
            rows = cursor.fetchall()
        self.seen.update((i, v) for i, v, _ in rows)
        self.last = max([*([self.last] if self.last is not None else []), *(at for _, _, at in rows if at is not None)])


@pytest.mark.slow
def test_under_concurrent_writers_nothing_is_missed_and_nothing_is_read_twice(
    server: MysqlServer, source: MysqlSource, database: str
) -> None:
    """Over all kinds of cursors; the number only grows when a row is made, so only its inserts are held to it."""
    server.execute(
        database,
        "CREATE TABLE t (id bigint AUTO_INCREMENT PRIMARY KEY, v int DEFAULT 1, at timestamp(6) NULL,"
        " on_clock datetime(6))",
        "INSERT INTO t (at, on_clock) VALUES (NOW(6), NOW(6))",
    )  # fmt: skip
    readers = {
        "at": Reader(source, "at"),
        "on_clock": Reader(source, "on_clock", settle=0.2),
        "id": Reader(source, "id"),
    }
    seen: dict[str, Counter[tuple[int, int]]] = {name: Counter() for name in readers}
    newest: dict[str, dict[int, int]] = {name: {} for name in readers}
    with server.connect(database) as connection:
        naive = {name: Naive(connection, name) for name in readers}

        def read() -> None:
            for name, reader in readers.items():
                for batch in reader.batches():
                    rows = list(zip(*(batch.data.column(c).to_pylist() for c in ("id", "v")), strict=True))
                    seen[name].update(rows)
                    newest[name].update(rows)
                naive[name].read()

        read()
        writers = Writers(server, database, threads=6, seconds=4, seed=random.randrange(10**6))
        for thread in writers.threads:
            thread.start()
        reads = 0
        while any(thread.is_alive() for thread in writers.threads):
            read()
            reads += 1
            time.sleep(random.random() * 0.05)
        read()
        read()
        truth = dict(server.execute(database, "SELECT id, v FROM t"))
    assert writers.errors == []
    assert reads > 3
    assert len(truth) > 60
    for name in ("at", "on_clock"):
        assert newest[name] == truth, f"nothing is missed by {name}"
    assert newest["id"].keys() == truth.keys(), "nothing is missed by id"
    for name in readers:
        assert max(seen[name].values()) == 1, f"nothing is read twice by {name}"
    for name, reader in naive.items():
        missed = truth.keys() - {i for i, _ in reader.seen} if name == "id" else truth.items() - reader.seen.keys()
        assert missed, f"this workload does not tell a wrong reader from a right one: {name}"


def test_without_the_list_of_open_transactions_rows_are_missed(
    server: MysqlServer, source: MysqlSource, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of the tests above: the same reader, made blind, loses the row."""
    monkeypatch.setattr("etl_resources.sources.mysql_horizon._settled", lambda *_: [])
    reader = Reader(source)
    with server.connect(table) as now, server.connect(table, autocommit=False) as late:
        insert(late, 2)
        time.sleep(1.1)
        insert(now, 3)
        assert reader.ids() == [3]
        late.commit()
        assert reader.ids() == []


def test_a_horizon_never_goes_back(server: MysqlServer, source: MysqlSource, table: str) -> None:
    from etl_resources.sources.mysql_columns import describe

    earlier = Horizon(datetime(2099, 1, 1), datetime(2099, 1, 1))
    with source.session() as session:
        (cursor,) = [c for c in describe(session, "t", "boolean") if c.name == "at"]
        assert take(session, "t", cursor, earlier, settle=0, late_by=5).low == earlier.low
