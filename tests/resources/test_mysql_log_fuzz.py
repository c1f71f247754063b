"""Writers with a ledger of what they changed, beside a reader that is killed anywhere: every change once, in order.

The tests of the tests: a log with a known mistake in it has to fail.
"""

from __future__ import annotations

import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pymysql
import pytest

from etl_resources.changes import mysql_changes, mysql_follow, mysql_moment, mysql_pending, mysql_reading
from etl_resources.exceptions import EtlError, UnavailableError
from etl_resources.sources.mysql import MysqlSource
from tests.resources.mysql_log_landing import KilledError, Lake, log_of, rows_of
from tests.servers.mysql import MysqlServer, running_mysql
from tests.soaking import SOAK, some

# Many files end in the few rounds of `make test`; of files that are this small `name_of_a_later_file` is not found.
SAFE = {"sync-binlog": "1", "innodb-flush-log-at-trx-commit": "1", "max-binlog-size": "65536" if SOAK else "16384"}
TABLES = {"t": ["id"], "u": ["id"]}
OLD_ROWS = 300


@pytest.fixture(scope="module")
def server() -> Iterator[MysqlServer]:
    with running_mysql(SAFE) as running:
        yield running


class Writers:
    """Transactions of some changes each, on a few hot keys; each also writes down how many changes it made.

    Between two transactions each writer rests for `rest` seconds.
    """

    def __init__(self, server: MysqlServer, database: str, seed: int, *, count: int = 2, rest: float = 0.002) -> None:
        self.server, self.database, self.stopped, self.rest = server, database, threading.Event(), rest
        self.threads = [threading.Thread(target=self._write, args=(seed * 100 + n,)) for n in range(count)]
        self.errors: list[BaseException] = []

    def __enter__(self) -> Writers:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        assert not self.errors

    def _write(self, seed: int) -> None:
        chance = random.Random(seed)
        try:
            while not self.stopped.is_set():
                # The server may be down, or two writers in each other's way.
                with (
                    suppress(pymysql.Error, OSError),
                    self.server.connect(self.database, autocommit=False) as connection,
                ):
                    while not self.stopped.is_set():
                        self._transaction(connection, chance)
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits for this one
            self.errors.append(error)

    def _transaction(self, connection: Any, chance: random.Random) -> None:
        made = dict.fromkeys(TABLES, 0)
        with connection.cursor() as cursor:
            for _ in range(chance.choice((1, 2, 3, 40))):
                table, key = chance.choice(list(TABLES)), chance.randint(1, OLD_ROWS + 40)
                statement = chance.choice((
                    f"INSERT IGNORE INTO {table} VALUES ({key}, 1, 'ü')",
                    f"UPDATE {table} SET n = n + 1 WHERE id = {key}",
                    f"UPDATE {table} SET n = n + 1, v = REPEAT('x', n) WHERE id BETWEEN {key} AND {key + 3}",
                    f"DELETE FROM {table} WHERE id = {key}",
                ))  # fmt: skip
                made[table] += cursor.execute(statement)
            if chance.random() < 0.1:
                connection.rollback()
                return
            for table, changes in made.items():
                cursor.execute(f"INSERT INTO ledger (name, changes) VALUES ('{table}', {changes})")
        connection.commit()
        time.sleep(self.rest)


def filled(server: MysqlServer) -> tuple[str, MysqlSource]:
    """Make a database with the tables, full of old rows, and the ledger."""
    database = server.database()
    source = MysqlSource(**server.settings(database, resilience={"attempts": 1, "timeout": 20, "silence": 20}))
    server.execute(database, "CREATE TABLE ledger (id int AUTO_INCREMENT PRIMARY KEY, name varchar(9), changes int)")
    for name in TABLES:
        server.execute(
            database, f"CREATE TABLE {name} (id int PRIMARY KEY, n int, v varchar(400))",
            f"INSERT INTO {name} VALUES " + ", ".join(f"({key}, 0, 'old')" for key in range(1, OLD_ROWS + 1)),
        )  # fmt: skip
    return database, source


def fuzz(server: MysqlServer, seed: int, *, rounds: int, crashes: bool = False, rest: float = 0.002) -> Lake:
    """Read while writers write, with kills; return the lake, which is compared with the truth."""
    (database, source), chance = filled(server), random.Random(seed)
    log, lake = log_of(source, TABLES, snapshot_rows=60, commit_rows=20), Lake.empty(*TABLES)
    lake.land(log, boundaries=1)
    with Writers(server, database, seed, rest=rest):
        for round_ in range(rounds):
            how = chance.randint(0, 3)
            with suppress(KilledError):
                try:
                    if how == 0:
                        lake.land(log, items=chance.randint(1, 12))
                    elif how == 1:
                        lake.land(log, kill_between=True)
                    else:
                        lake.land(log, boundaries=chance.randint(1, 4))
                except UnavailableError:
                    assert crashes
            if crashes and round_ % 6 == 5:
                server.stop(signal.SIGKILL)
                server.start()
    lake.land(log)
    check(server, database, source, lake)
    return lake


def check(server: MysqlServer, database: str, source: MysqlSource, lake: Lake) -> None:
    """Compare with the source, with the ledger, and with the life of each row."""
    for name, key in TABLES.items():
        assert lake.state(name, *key) == rows_of(source, name, key)
        (told,) = server.execute(database, f"SELECT COALESCE(SUM(changes), 0) FROM ledger WHERE name = '{name}'")
        assert len(lake.changes(name)) == int(told[0]), "as many events as changes were made"
        last: dict[int, int] = {}
        for row in sorted(lake.events[name], key=lambda row: (row["_pos"], row["_seq"])):
            if row["_op"] == "read":
                assert row["n"] == last.get(row["id"], row["n"]), "a snapshot shows a row as it was at its place"
                last[row["id"]] = row["n"]
                continue
            before = row["_before"]
            if row["_op"] == "update":
                assert row["n"] == before["n"] + 1
            if before is not None and row["id"] in last:
                assert before["n"] == last[row["id"]], "no change of the row is missing, and none is out of order"
            last[row["id"]] = row["n"] if row["_op"] != "delete" else -1
        read = [row for row in lake.events[name] if row["_op"] == "read"]
        assert len({row["id"] for row in read}) == len(read)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches end within transactions."""
    monkeypatch.setattr(mysql_pending, "MOST_EVENTS", 3)


def test_killed_anywhere_beside_writers_every_change_is_there_once(server: MysqlServer, small_batches: None) -> None:
    lake = fuzz(server, 1, rounds=12)
    assert sum(lake.repeated.values()) > 0, "one stream was behind the other"
    assert len({position["file"] for b in lake.boundaries for position in b.positions.values()}) > 2, "files ended"


def pieces(server: MysqlServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Lake]:
    """Arrange that writes come right before and right after each moment of a snapshot; return what reads it all."""
    database, source = filled(server)
    taken, turns = mysql_moment._snapshot_of_mariadb, itertools.count(1)

    def write() -> None:
        turn = next(turns)
        for name in TABLES:
            with server.connect(database, autocommit=False) as connection, connection.cursor() as cursor:
                changes = cursor.execute(f"UPDATE {name} SET n = n + 1 WHERE id % 3 = {turn % 3}")
                changes += cursor.execute(f"DELETE FROM {name} WHERE id = {turn * 7}")
                changes += cursor.execute(f"INSERT INTO {name} VALUES ({OLD_ROWS + turn}, 0, 'ü')")
                cursor.execute(f"INSERT INTO ledger (name, changes) VALUES ('{name}', {changes})")
                connection.commit()

    def beside_writers(session: Any) -> Any:
        write()
        found = taken(session)
        write()
        return found

    def read() -> Lake:
        log, lake = log_of(source, TABLES, snapshot_rows=100, commit_rows=20), Lake.empty(*TABLES)
        for _ in range(3):
            lake.land(log, boundaries=2)
        lake.land(log)
        check(server, database, source, lake)
        return lake

    monkeypatch.setattr(mysql_moment, "_snapshot_of_mariadb", beside_writers)
    return read


def test_a_piece_of_a_snapshot_between_two_writes_joins_the_log(
    server: MysqlServer, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = pieces(server, monkeypatch)()
    for name in TABLES:
        moments = {row["_pos"] for row in lake.events[name] if row["_op"] == "read"}
        assert len(moments) >= OLD_ROWS // 100, "each piece was read at another place"


@pytest.mark.soak  # on a busy machine the reader may never catch up
def test_a_snapshot_in_pieces_beside_writers_joins_the_log(server: MysqlServer, small_batches: None) -> None:
    """The reader catches up now and then, as it has to for a piece."""
    lake = fuzz(server, 4, rounds=10, rest=0.06)
    moments = {row["_pos"] for name in TABLES for row in lake.events[name] if row["_op"] == "read"}
    assert len(moments) > 3, "pieces were read between changes"


@pytest.mark.soak
def test_with_crashes_of_the_server_as_well(server: MysqlServer, small_batches: None) -> None:
    fuzz(server, 2, rounds=13, crashes=True)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10, 20))
def test_for_long(server: MysqlServer, small_batches: None, seed: int) -> None:
    fuzz(server, seed, rounds=150, crashes=seed % 2 == 0)


def cut_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql_follow.Follower, "between", property(lambda self: True))


def number_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr(
        mysql_changes.Streamed, "_numbered", lambda self, rows, decoded, which: np.arange(len(rows.starts)) * 100
    )


def trust_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql_changes.Streamed, "repeats", lambda self, transaction: False)


def name_of_a_later_file(monkeypatch: pytest.MonkeyPatch) -> None:
    rotate = mysql_follow.Follower._rotate

    def late(self: Any, event: Any) -> None:
        place = self.place
        rotate(self, event)
        self.place = max(place, self.place)

    monkeypatch.setattr(mysql_follow.Follower, "_rotate", late)


def snapshot_somewhere_near(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = mysql_moment._snapshot_of_mariadb

    def near(session: Any) -> Any:
        from dataclasses import replace

        found = taken(session)
        file, place = session.rows("SHOW MASTER STATUS")[0][:2]
        return replace(found, file=str(file), place=int(place))

    monkeypatch.setattr(mysql_moment, "_snapshot_of_mariadb", near)


def snapshot_before_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    up_to = mysql_reading.Reading._up_to
    monkeypatch.setattr(
        mysql_reading.Reading,
        "_up_to",
        lambda self, pos, *, boundaries: up_to(self, pos, boundaries=True) if boundaries else iter(()),
    )


def lose_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql_changes.Streamed, "changes", _losing(mysql_changes.Streamed.changes))


def _losing(changes: Any) -> Any:
    """Return a decoder that loses every second batch, and counts it."""
    state = {"n": 0}

    def mutant(self: Any, rows: Any) -> Any:
        state["n"] += 1
        found = changes(self, rows)
        if state["n"] % 2:
            return found
        from dataclasses import replace

        return replace(found, batch=replace(found.batch, data=found.batch.data.slice(0, 0)))

    return mutant


@pytest.mark.parametrize(
    "mutant",
    some([cut_anywhere, trust_the_server, number_by_batch, name_of_a_later_file, lose_batches], 1),
)  # fmt: skip
def test_a_log_with_a_mistake_does_not_pass(
    server: MysqlServer, small_batches: None, monkeypatch: pytest.MonkeyPatch, mutant: Callable[[Any], None]
) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, EtlError)) as caught:
        fuzz(server, 3, rounds=12)
    # The server was there all the time; what may end is the wait for a place that its log never comes to.
    assert not isinstance(caught.value, UnavailableError) or "no snapshot could be taken" in caught.value.what


@pytest.mark.parametrize("mutant", [snapshot_somewhere_near, snapshot_before_its_log])
def test_a_piece_of_a_snapshot_at_another_place_does_not_pass(
    server: MysqlServer, small_batches: None, monkeypatch: pytest.MonkeyPatch, mutant: Callable[[Any], None]
) -> None:
    read = pieces(server, monkeypatch)
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        read()
