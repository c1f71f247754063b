"""A fuzzer for the PostgreSQL change log: writers with a ledger of what they did, readers that are killed, servers that
crash; afterwards the log has to tell every change exactly once, and its replay has to be the table.

The commits of some writers wait for a standby that does not exist until somebody cancels the wait: they are in the log
for a while, and invisible. That is what makes positions in the log useless for snapshots.
"""

from __future__ import annotations

import functools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from signal import SIGQUIT
from typing import Any
from unittest import mock

import psycopg
import pyarrow as pa

from etl_resources.change_log import Changes, LogTable
from etl_resources.changes import postgres_reading, postgres_split
from etl_resources.changes.postgres import PostgresLog
from etl_resources.changes.postgres_peek import peek
from etl_resources.changes.postgres_settings import PostgresLogCapture
from etl_resources.changes.postgres_slot import Status
from etl_resources.changes.postgres_split import Split
from etl_resources.exceptions import UnavailableError
from etl_resources.resilience import Policy
from etl_resources.source import Stream
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Wire, wire_to

TABLES = {"a": ("id",), "b": ("x", "y")}
_SCHEMA = """
CREATE TABLE a (id int PRIMARY KEY, v int, big text);
ALTER TABLE a ALTER big SET STORAGE EXTERNAL;
CREATE TABLE b (x text COLLATE "C", y int, v int, note text, PRIMARY KEY (x, y));
CREATE TABLE ledger (xid text, name text, changes int);
CREATE SEQUENCE fresh START 100000;
"""
_BIG = "repeat(md5({}::text), 90)"  # 2,880 characters: stored out of line


class KilledError(Exception):
    """The reader is gone."""


@dataclass
class Lake:
    """What a lake would hold: per stream the position and the events, committed together."""

    positions: dict[str, Any] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in TABLES})
    swept: dict[str, int] = field(default_factory=dict)
    told: dict[tuple[str, int, int], Any] = field(default_factory=dict)
    """Everything that was ever given, committed or not: a name must not stand for two events."""
    kills: int = 0
    repeated: int = 0

    def follow(self, log: PostgresLog, point: Callable[[str], None]) -> None:
        """Land what the log gives; `point` may raise KilledError wherever a process may die."""
        staged: dict[str, list[pa.RecordBatch]] = {name: [] for name in TABLES}
        counts: Counter[str] = Counter()
        with closing(log.read({name: self.positions.get(name) for name in TABLES})) as items:
            for item in items:
                point("given")
                if isinstance(item, Changes):
                    batch = item.batch
                    counts[item.stream] += batch.data.num_rows + batch.repeated
                    assert batch.rows_read == counts[item.stream] + (
                        batch.unreadable.num_rows if batch.unreadable else 0
                    )
                    self.repeated += batch.repeated
                    staged[item.stream].append(batch.data)
                    continue
                names = list(TABLES)
                random.shuffle(names)
                for name in names:
                    self._commit(name, staged[name], item.positions[name])
                    staged[name] = []
                    if name in item.swept:
                        self.swept[name] = item.swept[name]
                    point("committed")
                log.acknowledge(self.positions)

    def _commit(self, name: str, batches: list[pa.RecordBatch], position: Any) -> None:
        before = self.positions.get(name)
        rows = [row for batch in batches for row in batch.to_pylist()]
        for row in rows:
            assert before is None or row["_pos"] > before["lsn"], f"{name}: an event of the past {row}"
        self.note(name, rows)
        self.events[name] += rows
        self.positions[name] = position

    def note(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Make sure that a name always stands for the same event."""
        for row in rows:
            content = {k: v for k, v in row.items() if k not in {"_pos", "_seq"}}
            known = self.told.setdefault((name, row["_pos"], row["_seq"]), content)
            assert known == content or row["_op"] == "read", f"{name}: one name, two events: {known} {content}"


class Watched(PostgresLog):
    """Takes note of events also where the reader is killed before it can commit them."""

    lake: Lake

    def read(self, since: Any) -> Any:
        for item in super().read(since):
            if isinstance(item, Changes):
                self.lake.note(item.stream, item.batch.data.to_pylist())
            yield item


class Writers:
    """Threads that change the tables in transactions of several rows, and keep the ledger.

    Between two transactions each of them rests for `rest` seconds.
    """

    def __init__(self, server: PostgresServer, database: str, seed: int, count: int = 5, *, rest: float = 0) -> None:
        self.server, self.database, self.stopped, self.rest = server, database, threading.Event(), rest
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._guarded, args=(seed * 100 + n,)) for n in range(count)]
        self.threads.append(threading.Thread(target=self._release, args=(random.Random(seed),)))

    def __enter__(self) -> Writers:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(timeout=30)
        assert not self.errors, self.errors

    def _guarded(self, seed: int) -> None:
        try:
            self._write(random.Random(seed))
        except BaseException as error:  # noqa: BLE001 - raised again where the threads are joined
            self.errors.append(error)

    def _write(self, rng: random.Random) -> None:
        connection = None
        while not self.stopped.is_set():
            try:
                if connection is None:
                    connection = psycopg.connect(self.server.dsn(self.database), connect_timeout=2)
                    waits = "on" if rng.random() < 0.7 else "local"
                    connection.execute(f"SET synchronous_commit = {waits}")
                    connection.commit()
                self._transaction(connection, rng)
                time.sleep(self.rest)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
                connection = connection and _rolled_back(connection)
            except psycopg.OperationalError:  # the server has crashed; the ledger knows whether the commit was done
                connection = None
                time.sleep(0.05)
        if connection is not None:
            connection.close()

    def _transaction(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        changes: Counter[str] = Counter()
        for _ in range(rng.randint(1, 6)):
            name, statement, events = _change(rng)
            changes[name] += events * connection.execute(statement).rowcount
        if rng.random() < 0.3:
            time.sleep(rng.random() * 0.02)
        for name, count in changes.items():
            connection.execute(
                "INSERT INTO ledger VALUES ((pg_current_xact_id()::text::int8 %% 4294967296)::text, %s, %s)",
                [name, count],
            )
        if rng.random() < 0.1:
            connection.rollback()
        else:
            connection.commit()

    def _release(self, rng: random.Random) -> None:
        """Let commits go on that wait for a standby, each after a while, until no writer is left."""
        while not self.stopped.is_set() or any(t.is_alive() for t in self.threads[:-1]):
            time.sleep(rng.random() * 0.12)
            with (
                suppress(psycopg.OperationalError),
                self.server.connect(self.database, connect_timeout=2) as connection,
            ):
                connection.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")


def _rolled_back(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any] | None:
    """Return the connection, or None if the server has crashed meanwhile."""
    try:
        connection.rollback()
    except psycopg.OperationalError:
        return None
    return connection


def _change(rng: random.Random) -> tuple[str, str, int]:
    """Return table, statement, and how many events a changed row is."""
    hot = rng.randint(1, 12) if rng.random() < 0.4 else rng.randint(1, 1500)
    return rng.choice(
        [
            ("a", f"UPDATE a SET v = v + 1 WHERE id = {hot}", 1),
            ("a", f"UPDATE a SET v = v + 1, big = {_BIG.format('random()')} WHERE id = {hot}", 1),
            ("a", f"INSERT INTO a SELECT nextval('fresh'), 0, {_BIG.format('random()')}", 1),
            ("a", f"INSERT INTO a VALUES ({hot}, 0, 'small') ON CONFLICT DO NOTHING", 1),
            ("a", f"DELETE FROM a WHERE id = {hot}", 1),
            ("a", f"UPDATE a SET id = nextval('fresh') WHERE id = {hot}", 2),
            ("a", f"UPDATE a SET id = -id WHERE id = {hot}", 2),
            ("a", f"UPDATE a SET v = v + 1 WHERE id BETWEEN {hot} AND {hot + 5}", 1),
            ("b", f"UPDATE b SET v = v + 1 WHERE x = 'k{hot % 7}' AND y = {hot}", 1),
            ("b", f"UPDATE b SET x = 'k{rng.randint(0, 6)}', y = y + 1000 WHERE x = 'k{hot % 7}' AND y = {hot}", 2),
            ("b", f"DELETE FROM b WHERE x = 'k{hot % 7}' AND y = {hot}", 1),
            ("b", f"INSERT INTO b VALUES ('k{hot % 7}', {hot}, 0, NULL) ON CONFLICT DO NOTHING", 1),
        ]
    )


@dataclass
class Fuzz:
    """One run against a server of its own, or a shared one whose settings may be changed."""

    server: PostgresServer
    seed: int
    seconds: float
    crashes: int = 0
    lake: Lake = field(default_factory=Lake)
    splits: int = 0
    """Looks that were to be read in two parts."""

    def run(self) -> None:
        """Write, read and kill for a while; then compare. Raises AssertionError, or what the log raises."""
        self.rng = random.Random(self.seed)
        self.database = self.server.database()
        with self.server.connect(self.database) as connection:
            connection.execute(_SCHEMA)
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("SET synchronous_commit = local")
            connection.execute(f"INSERT INTO a SELECT g, 0, {_BIG.format('g')} FROM generate_series(1, 1500) g")
            connection.execute("INSERT INTO b SELECT 'k' || (g % 7), g, 0, NULL FROM generate_series(1, 1500) g")
        try:
            # Small batches, so that transactions come in several.
            small = functools.partial(peek, batch_bytes=6000)
            with (
                mock.patch.object(postgres_reading, "peek", small),
                mock.patch.object(postgres_split, "peek", small),
                mock.patch.object(postgres_reading, "split", self._split),
                wire_to(self.server.port) as wire,
            ):
                self._first_look(wire)
                with Writers(self.server, self.database, self.seed, rest=0.01):
                    self._read(wire)
                self._finish(wire)
        finally:
            with self.server.connect(self.database) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(active_pid, 5000), pg_drop_replication_slot(slot_name)"
                    " FROM pg_replication_slots WHERE database = current_database()"
                )
                connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
                connection.execute("SELECT pg_reload_conf()")
        self.check()

    def log(self, wire: Wire, **settings: Any) -> Watched:
        """Return the log as a new process would make it, over a wire that may be cut."""
        capture = PostgresLogCapture(slot=f"fuzz_{self.database}", chunk_rows=150, **settings)
        tables = [
            LogTable(Stream(name, PostgresStreamOptions(type="postgres", table=name), capture), key)
            for name, key in TABLES.items()
        ]
        patient = Policy(attempts=20, first_wait=0.05, longest_wait=0.2)
        source = PostgresSource(**{**self.server.settings(self.database), "port": wire.port, "resilience": patient})
        log = Watched(source, "fuzz", tables, capture)
        log.lake = self.lake
        return log

    def _split(self, now: Status, most: int, of_a_change: float) -> Split | None:
        """Read in two parts, first and every other time, however little there is; at any place, and not always all."""
        if now.slot is None or now.slot.confirmed is None or (self.rng.random() < 0.5 and self.splits):
            return None
        self.splits += 1
        length = now.insert - now.slot.confirmed
        middle = (now.slot.confirmed + round(self.rng.random() * length)) // 1024 * 1024 + 1536
        end = None if self.rng.random() < 0.5 else middle + round(self.rng.random() * length)
        return Split(middle, end, self.rng.choice([5, most]))

    def _first_look(self, wire: Wire) -> None:
        """Make the slot before anybody writes, so that the ledger and the log begin at the same place."""
        with suppress(KilledError):
            self.lake.follow(self.log(wire), _after(2, "committed"))

    def _read(self, wire: Wire) -> None:
        begun = time.monotonic()
        crashes = [begun + self.seconds * (n + 1) / (self.crashes + 1) for n in range(self.crashes)]
        while time.monotonic() < begun + (self.seconds if self.lake.kills > 3 else 4 * self.seconds):
            if crashes and time.monotonic() > crashes[0]:
                crashes.pop(0)
                self.server.stop(SIGQUIT)
                self.server.start()
            cut = threading.Timer(self.rng.random(), wire.break_now) if self.rng.random() < 0.2 else None
            if cut is not None:
                cut.start()
            try:
                killed = _after(self.rng.randint(1, 6), self.rng.choice(["given", "committed", "committed"]))
                self.lake.follow(self.log(wire, mode="continuous", every=0.01, lasts=2), killed)
            except KilledError:
                self.lake.kills += 1
            except UnavailableError:
                pass
            finally:
                if cut is not None:
                    cut.cancel()

    def _finish(self, wire: Wire) -> None:
        while True:
            self.lake.follow(self.log(wire), lambda _: None)
            if all(position["snapshot"] is None for position in self.lake.positions.values()):
                return

    def check(self) -> None:
        """Compare the log with the ledger, and its replay with the tables."""
        assert set(self.lake.swept) == set(TABLES)
        for name, key in TABLES.items():
            events = self.lake.events[name]
            names = Counter((row["_pos"], row["_seq"]) for row in events)
            assert not (doubled := [n for n, count in names.items() if count > 1]), f"{name}: doubled {doubled[:3]}"
            with self.server.connect(self.database) as connection:
                ledger = connection.execute(
                    "SELECT xid, sum(changes) FROM ledger WHERE name = %s GROUP BY 1 HAVING sum(changes) > 0", [name]
                ).fetchall()
                table = connection.execute(f"SELECT * FROM {name}").fetchall()
            told = Counter(row["_xid"] for row in events if row["_op"] != "read")
            assert told == {xid: int(count) for xid, count in ledger}, f"{name}: {len(told)} of {len(ledger)}"
            columns = ["id", "v", "big"] if name == "a" else ["x", "y", "v", "note"]
            state = replayed(events, key, columns)
            expected = {row[: len(key)]: row for row in table}
            wrong = {
                k: (state.get(k), expected.get(k))
                for k in state.keys() | expected.keys()
                if state.get(k) != expected.get(k)
            }
            assert not wrong, f"{name}: {len(wrong)} rows differ: {str(next(iter(wrong.items())))[:300]}"


def replayed(
    events: list[dict[str, Any]], key: tuple[str, ...], columns: list[str]
) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return the table that the events make, in the order of `(_pos, _seq)`."""
    state: dict[tuple[Any, ...], dict[str, Any]] = {}
    last: dict[tuple[Any, ...], dict[str, Any]] = {}
    for event in sorted(events, key=lambda row: (row["_pos"], row["_seq"])):
        if event["_op"] == "truncate":
            state.clear()
            continue
        k = tuple(event[name] for name in key)
        if event["_op"] == "delete":
            last[k] = state.pop(k, last.get(k, {}))
            continue
        row = {name: event[name] for name in columns}
        before = event["_before"]
        old = k if before is None else tuple(before[name] for name in key)
        source = state.get(k) or (last.get(old, {}) if old != k else {})
        for name in event["_unchanged"] or ():
            row[name] = source.get(name)
        state[k] = row
    return {k: tuple(row[name] for name in columns) for k, row in state.items()}


def _after(points: int, kind: str) -> Callable[[str], None]:
    """Return what kills the reader at one of the points of that kind."""
    left = iter(range(points))

    def point(here: str) -> None:
        if here == kind and next(left, None) is None:
            raise KilledError

    return point
