"""Incremental capture of PostgreSQL tables: whatever commits late, in whatever order, is read once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import Any

import psycopg
import pytest

from etl_resources.exceptions import ConfigurationError, NotFoundError, UnavailableError
from etl_resources.postgres_session import Session
from etl_resources.source import Batch, Incremental, Position, Stream
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from etl_resources.sources.postgres_horizon import Horizon
from tests.servers.postgres import PostgresServer, running_postgres, running_replica


class Reader:
    """Reads a stream again and again, each time from where it stopped."""

    def __init__(self, server: PostgresServer, database: str, table: str = "t", **options: Any) -> None:
        self.source = PostgresSource(**server.settings(database))
        settings = PostgresStreamOptions(type="postgres", table=table, **options)
        self.stream = Stream(table, settings, Incremental(cursor="updated_at"))
        self.position: Position | None = None

    def batches(self) -> list[Batch]:
        batches = list(self.source.read(self.stream, self.position))
        if batches:
            self.position = batches[-1].position
        return batches

    def ids(self) -> list[int]:
        return sorted(int(i) for b in self.batches() for i in b.data.column("id").to_pylist())


@pytest.fixture
def reader(postgres_server: PostgresServer, postgres_database: str) -> Reader:
    with postgres_server.connect(postgres_database) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, version int DEFAULT 1, updated_at timestamptz)")
    return Reader(postgres_server, postgres_database)


@pytest.fixture
def writer(postgres_server: PostgresServer, postgres_database: str, reader: Reader) -> Any:
    with psycopg.connect(postgres_server.dsn(postgres_database)) as connection:
        yield connection


@pytest.fixture
def other(postgres_server: PostgresServer, postgres_database: str, reader: Reader) -> Any:
    with postgres_server.connect(postgres_database) as connection:
        yield connection


INSERT = "INSERT INTO t (id, updated_at) VALUES (%s, clock_timestamp())"


def test_a_row_that_commits_late_with_an_older_cursor_is_read(reader: Reader, writer: Any, other: Any) -> None:
    writer.execute(INSERT, [1])
    other.execute(INSERT, [2])
    assert reader.ids() == [2]
    writer.commit()
    assert reader.ids() == [1]
    assert reader.ids() == []


def test_rows_of_a_savepoint_that_commit_late_are_read(reader: Reader, writer: Any, other: Any) -> None:
    """They bear the number of a subtransaction, which PostgreSQL's own snapshots do not list."""
    writer.execute(INSERT, [1])
    with writer.transaction():
        writer.execute(INSERT, [2])
    other.execute(INSERT, [3])
    assert reader.ids() == [3]
    writer.commit()
    assert reader.ids() == [1, 2]
    assert reader.ids() == []


def test_more_savepoints_than_the_server_keeps_in_memory_lose_nothing(reader: Reader, writer: Any, other: Any) -> None:
    writer.execute(INSERT, [0])
    for n in range(1, 100):
        with writer.transaction():
            writer.execute(INSERT, [n])
    other.execute(INSERT, [1000])
    assert reader.ids() == [1000]
    writer.commit()
    assert reader.ids() == list(range(100))
    assert reader.ids() == []


def test_a_transaction_in_two_phases_is_read_when_it_commits(reader: Reader, other: Any) -> None:
    other.execute("BEGIN")
    other.execute(INSERT, [1])
    other.execute("PREPARE TRANSACTION 'later'")
    other.execute(INSERT, [2])
    assert reader.ids() == [2]
    other.execute("COMMIT PREPARED 'later'")
    assert reader.ids() == [1]
    assert reader.ids() == []


def test_a_forgotten_transaction_does_not_hold_back_the_others(reader: Reader, writer: Any, other: Any) -> None:
    writer.execute(INSERT, [1])
    for n in range(2, 6):
        other.execute(INSERT, [n])
        assert reader.ids() == [n]


def test_rows_without_a_cursor_and_with_the_same_cursor_are_read_once(reader: Reader, other: Any) -> None:
    other.execute("INSERT INTO t VALUES (1, 1, NULL), (2, 1, '2024-01-01'), (3, 1, '2024-01-01')")
    assert reader.ids() == [1, 2, 3]
    other.execute("INSERT INTO t VALUES (4, 1, NULL), (5, 1, '2024-01-01'), (6, 1, '1999-01-01')")
    assert reader.ids() == [4, 5, 6]
    assert reader.ids() == []


def test_an_update_is_read_even_if_it_leaves_the_cursor_alone(reader: Reader, other: Any) -> None:
    other.execute("INSERT INTO t VALUES (1, 1, now()), (2, 1, now())")
    reader.ids()
    other.execute("UPDATE t SET version = 2 WHERE id = 2")
    (batch,) = reader.batches()
    assert batch.data.select(["id", "version"]).to_pylist() == [{"id": 2, "version": 2}]


def test_what_is_rolled_back_is_never_read(reader: Reader, writer: Any, other: Any) -> None:
    writer.execute(INSERT, [1])
    other.execute(INSERT, [2])
    assert reader.ids() == [2]
    writer.rollback()
    assert reader.ids() == []


def test_what_commits_while_a_read_begins_is_read_once(
    reader: Reader, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot of the read sees it, and the horizon taken before does not have it: so it is the next read's."""
    execute = Session.execute
    ids = iter([2, 3, 4])

    def commit_first(session: Session, statement: str) -> int:
        if statement.startswith("BEGIN"):
            other.execute(INSERT, [next(ids)])
        return execute(session, statement)

    other.execute(INSERT, [1])
    monkeypatch.setattr(Session, "execute", commit_first)
    assert [reader.ids() for _ in range(3)] == [[1], [2], [3]]


def test_maintenance_does_not_make_old_rows_new(reader: Reader, other: Any) -> None:
    other.execute("INSERT INTO t SELECT n, 1, now() FROM generate_series(1, 100) n")
    assert len(reader.ids()) == 100
    for command in ("VACUUM (FREEZE) t", "VACUUM FULL t", "CLUSTER t USING t_pkey", "ANALYZE t"):
        other.execute(command)
        assert reader.ids() == [], command


def test_partitions_are_read_as_one_table(postgres_server: PostgresServer, postgres_database: str) -> None:
    with postgres_server.connect(postgres_database) as connection:
        connection.execute("CREATE TABLE p (id int, updated_at timestamptz) PARTITION BY RANGE (id)")
        connection.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
        connection.execute("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)")
        connection.execute("INSERT INTO p VALUES (1, now()), (11, now())")
        reader = Reader(postgres_server, postgres_database, "p")
        assert reader.ids() == [1, 11]
        connection.execute("UPDATE p SET id = 12 WHERE id = 1")
        assert reader.ids() == [12]


def test_what_has_no_row_versions_is_refused(reader: Reader, other: Any) -> None:
    other.execute("CREATE VIEW v AS SELECT * FROM t")
    for options in ({"table": "v"}, {"query": "SELECT * FROM t"}):
        stream = Stream("v", PostgresStreamOptions(type="postgres", **options), Incremental(cursor="updated_at"))
        with pytest.raises(ConfigurationError, match="do not say which transaction wrote them"):
            list(reader.source.read(stream, None))


def test_late_by_reads_through_the_index_and_keeps_its_promise(
    reader: Reader, other: Any, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """Rows within the distance, and rows without a cursor, are read; a time in the future does not push it up."""
    narrow = Reader(postgres_server, postgres_database, late_by=3600)
    other.execute("INSERT INTO t VALUES (1, 1, now()), (2, 1, now() + interval '50 years')")
    assert narrow.ids() == [1, 2]
    other.execute("INSERT INTO t VALUES (3, 1, now() - interval '50 minutes'), (4, 1, NULL), (5, 1, now())")
    other.execute("INSERT INTO t VALUES (6, 1, now() - interval '2 hours')")  # breaks the promise
    assert narrow.ids() == [3, 4, 5]
    assert reader.ids() == [1, 2, 3, 4, 5, 6]


def test_late_by_counts_steps_of_an_integer(postgres_server: PostgresServer, postgres_database: str) -> None:
    with postgres_server.connect(postgres_database) as connection:
        connection.execute("CREATE TABLE t (id bigint PRIMARY KEY)")
        connection.execute("INSERT INTO t VALUES (1), (100)")
        source = PostgresSource(**postgres_server.settings(postgres_database))
        stream = Stream("t", PostgresStreamOptions(type="postgres", table="t", late_by=10), Incremental(cursor="id"))
        first = list(source.read(stream, None))
        connection.execute("INSERT INTO t VALUES (95), (50), (101)")
        second = list(source.read(stream, first[-1].position))
    assert sorted(second[0].data.column("id").to_pylist()) == [95, 101]


def test_latest_changes_when_something_was_written_and_only_then(reader: Reader, other: Any) -> None:
    other.execute(INSERT, [1])
    reader.ids()
    assert reader.source.latest(reader.stream) == reader.position
    other.execute(INSERT, [2])
    assert reader.source.latest(reader.stream) != reader.position


def changed(position: Position | None, **fields: Any) -> Position:
    assert position is not None
    return {**position, **fields}


def test_another_server_or_history_is_noticed(reader: Reader, other: Any) -> None:
    """After a restore or a failover transaction numbers mean something else: going on would lose rows in silence."""
    other.execute(INSERT, [1])
    reader.ids()
    xmax = Horizon.from_position(reader.position or {}).xmax
    for wrong, what in (
        (changed(reader.position, system="1"), "another PostgreSQL cluster"),
        (changed(reader.position, timeline=7), "promoted or restored"),
        (changed(reader.position, snapshot=f"{xmax + 9}:{xmax + 9}:"), "went back"),
    ):
        with pytest.raises(NotFoundError, match=what) as caught:
            list(reader.source.read(reader.stream, wrong))
        assert "full refresh" in caught.value.fix


def test_a_user_without_special_rights_can_read(
    postgres_server: PostgresServer, postgres_database: str, other: Any
) -> None:
    other.execute("DROP ROLE IF EXISTS plain")
    other.execute("CREATE ROLE plain LOGIN")
    other.execute("GRANT SELECT ON t TO plain")
    other.execute(INSERT, [1])
    reader = Reader(postgres_server, postgres_database)
    reader.source = PostgresSource(**postgres_server.settings(postgres_database, user="plain"))
    assert reader.ids() == [1]
    assert reader.ids() == []
    other.execute("DROP OWNED BY plain")
    other.execute("DROP ROLE plain")


class Writers:
    """Threads that write in transactions which take their cursor early and commit late, in any order."""

    def __init__(self, server: PostgresServer, database: str, *, threads: int, seconds: float, seed: int) -> None:
        self.server, self.database = server, database
        self.end = time.monotonic() + seconds
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._run, args=(random.Random(seed + n), n)) for n in range(threads)]

    def _run(self, chance: random.Random, number: int) -> None:
        try:
            with psycopg.connect(self.server.dsn(self.database)) as connection:
                mine: list[int] = []
                while time.monotonic() < self.end:
                    self._transaction(connection, chance, mine, number)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.errors.append(error)

    def _transaction(self, c: psycopg.Connection[Any], chance: random.Random, mine: list[int], number: int) -> None:
        added: list[int] = []
        for _ in range(chance.randint(1, 4)):
            cursor = "NULL" if chance.random() < 0.1 else "clock_timestamp()"
            kind = chance.random()
            if kind < 0.4 or not mine:
                sql = f"INSERT INTO t (updated_at) VALUES ({cursor}) RETURNING id"
                added += [row[0] for row in c.execute(sql)]
            elif kind < 0.7:
                c.execute(
                    f"UPDATE t SET version = version + 1, updated_at = {cursor} WHERE id = %s", [chance.choice(mine)]
                )
            else:  # in a subtransaction, which may be undone
                with c.transaction(force_rollback=chance.random() < 0.3):
                    c.execute(f"INSERT INTO t (updated_at) VALUES ({cursor})")
            if chance.random() < 0.3:
                time.sleep(chance.random() * 0.05)
        time.sleep(chance.random() ** 3 * 0.6)
        if chance.random() < 0.15:
            c.rollback()
        elif chance.random() < 0.1:
            name = f"w{number}_{chance.random()}"
            c.execute(f"PREPARE TRANSACTION '{name}'")
            c.commit()
            time.sleep(chance.random() * 0.1)
            c.autocommit = True
            c.execute(f"COMMIT PREPARED '{name}'")
            c.autocommit = False
            mine += added
        else:
            c.commit()
            mine += added


class Naive:
    """What a reader does that trusts the cursor, or the server's own snapshot: it must lose rows in this test."""

    def __init__(self, connection: psycopg.Connection[Any], condition: str, after: str) -> None:
        self.connection, self.condition, self.after = connection, condition, after
        self.last: Any = None
        self.seen: Counter[tuple[int, int]] = Counter()

    def read(self) -> None:
        with self.connection.transaction():
            self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            where = "true" if self.last is None else self.condition
            rows = self.connection.execute(f"SELECT id, version FROM t WHERE {where}", {"last": self.last}).fetchall()
            self.last = self.connection.execute(f"SELECT {self.after}").fetchone()[0]  # type: ignore[index]
        self.seen.update(rows)


def test_under_concurrent_writers_nothing_is_missed_and_nothing_is_read_twice(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    with postgres_server.connect(postgres_database) as connection:
        connection.execute("CREATE TABLE t (id bigserial PRIMARY KEY, version int DEFAULT 1, updated_at timestamptz)")
        reader = Reader(postgres_server, postgres_database)
        by_time = Naive(connection, "updated_at > %(last)s", "(SELECT max(updated_at) FROM t)")
        by_snapshot = Naive(
            connection, "NOT pg_visible_in_snapshot(xmin::text::xid8, %(last)s::pg_snapshot)",
            "pg_current_snapshot()::text",
        )  # fmt: skip
        writers = Writers(postgres_server, postgres_database, threads=8, seconds=3.5, seed=random.randrange(10**6))
        seen: Counter[tuple[int, int]] = Counter()
        newest: dict[int, int] = {}

        def read() -> None:
            for batch in reader.batches():
                rows = list(zip(*(batch.data.column(c).to_pylist() for c in ("id", "version")), strict=True))
                seen.update(rows)
                newest.update(rows)
            by_time.read()
            by_snapshot.read()

        for thread in writers.threads:
            thread.start()
        reads = 0
        while any(thread.is_alive() for thread in writers.threads):
            read()
            reads += 1
            time.sleep(random.random() * 0.05)
        read()
        truth = dict(connection.execute("SELECT id, version FROM t").fetchall())
    assert writers.errors == []
    assert reads > 10
    assert len(truth) > 100
    assert newest == truth, "nothing is missed"
    assert max(seen.values()) == 1, "nothing is read twice"
    for naive in (by_time, by_snapshot):
        missed = [key for key in truth.items() if key not in naive.seen]
        assert missed, f"this workload does not tell a wrong reader from a right one: {naive.condition}"


def test_transaction_numbers_that_wrap_around_are_told_apart() -> None:
    """The 32 bits of xmin start again at 3 while the reader goes on."""
    with running_postgres() as server:
        with server.connect() as connection:
            connection.execute("CREATE TABLE t (id int, updated_at timestamptz)")
            connection.execute("INSERT INTO t SELECT n, now() FROM generate_series(1, 50) n")
        server.run("vacuumdb", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "--all", "--freeze", "-q")
        server.stop()
        start = 2**32 - 40
        server.run("pg_resetwal", "-f", "-e", "5", "-x", str(start), "-u", str(start - 1000), "-D", str(server.data))
        segment = server.data / "pg_xact" / f"{start // 2**20:04X}"
        segment.write_bytes(bytes(2**18))
        segment.chmod(0o666)
        server.start()
        reader = Reader(server, "postgres")
        assert reader.ids() == list(range(1, 51)), "rows of the first read, whatever their age"
        with psycopg.connect(server.dsn()) as late, server.connect() as connection:
            late.execute("INSERT INTO t VALUES (1000, now())")
            for n in range(100, 200):  # crosses the boundary
                connection.execute("INSERT INTO t VALUES (%s, now())", [n])
                if n % 20 == 0:
                    assert n in reader.ids()
            seen = reader.ids()
            assert seen == list(range(181, 200))
            late.commit()
            assert reader.ids() == [1000]
            assert reader.ids() == []
            (xid,) = connection.execute("SELECT pg_current_xact_id()::text").fetchone() or ("0",)
            assert int(xid) >> 32 == 6


def test_more_transactions_than_can_be_told_apart_are_noticed(reader: Reader, other: Any) -> None:
    other.execute(INSERT, [1])
    reader.ids()
    last = Horizon.from_position(reader.position or {})
    later = Horizon(last.xmax + 2**32, (), last.system, last.timeline)
    with pytest.raises(NotFoundError, match=r"2\^32"):
        later.check_follows(last, in_recovery=False, where="test")
    Horizon(last.xmax + 2**32 - 1, (), last.system, last.timeline).check_follows(last, in_recovery=False, where="test")


def test_a_replica_is_read_like_its_primary_until_it_is_promoted() -> None:
    """A replica's own snapshots list no running transaction at all, and a promotion starts another history."""
    with running_postgres() as primary, running_replica(primary) as replica:

        def caught_up() -> None:
            (target,) = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone() or ("",)
            for _ in range(500):
                with replica.connect() as c:
                    if c.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [target]).fetchone() == (True,):
                        return
                time.sleep(0.02)
            raise AssertionError("the replica does not catch up")

        with primary.connect() as connection, psycopg.connect(primary.dsn()) as late:
            connection.execute("CREATE TABLE t (id int, updated_at timestamptz)")
            late.execute(INSERT, [1])
            with late.transaction():
                late.execute(INSERT, [2])
            connection.execute(INSERT, [3])
            caught_up()
            reader = Reader(replica, "postgres")
            assert reader.ids() == [3]
            late.commit()
            caught_up()
            assert reader.ids() == [1, 2]
            assert reader.ids() == []
        replica.run("pg_ctl", "promote", "-w", "-D", str(replica.data))
        with pytest.raises(NotFoundError, match="promoted or restored"):
            reader.ids()


def test_a_replica_that_is_behind_is_asked_again_later() -> None:
    ahead = Horizon(100, (), "1", 1)
    with pytest.raises(UnavailableError, match="behind"):
        Horizon(99, (), "1", 1).check_follows(ahead, in_recovery=True, where="test")
