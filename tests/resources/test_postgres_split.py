"""A log that is read from two places at once is the log: where they meet, nothing is missing, and nothing twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from etl_resources.changes import postgres_slot, postgres_split
from etl_resources.changes.postgres_link import Link
from etl_resources.changes.postgres_position import lsn
from etl_resources.changes.postgres_split import OF_A_CHANGE, Split, peek_split, split
from etl_resources.exceptions import EtlError, UnavailableError
from etl_resources.postgres_session import Session
from etl_resources.sources.postgres import PostgresSource
from tests.resources.pgoutput_log import PUBLICATION, SLOT, Log, follow
from tests.servers.postgres import PostgresServer

MANY = 1 << 29
PEEKING = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%slot_peek%'"


@pytest.fixture
def log(postgres_server: PostgresServer, postgres_database: str) -> Iterator[Log]:
    with follow(postgres_server, postgres_database) as found:
        yield found


def begin_of(log: Log) -> int:
    return lsn(log.rows(f"SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = '{SLOT}'")[0][0])


def end_of(log: Log) -> int:
    return lsn(log.rows("SELECT pg_current_wal_insert_lsn()::text")[0][0])


def told(log: Log, parts: Split, *, server: int = 140000) -> list[bytes]:
    """Return the messages of both parts, but for descriptions of tables, which each part begins with."""
    with log.source.session() as session:
        found = peek_split(log.source, session, SLOT, PUBLICATION, parts, server=server)
        return [m for piece in found for m in piece.to_pylist() if m[:1] not in b"RY"]


def whole(log: Log) -> list[bytes]:
    return [m for m in log.messages().to_pylist() if m[:1] not in b"RY"]


def at(place: int) -> int:
    return place // 1024 * 1024 + 512


def write(log: Log) -> None:
    """Write transactions of all kinds: nested, long, beside others, of another version, rolled back, prepared."""
    log.sql("CREATE TABLE t (id int PRIMARY KEY, v text)", "CREATE TABLE u (id int)", "CREATE TABLE w (id int)")
    with log.server.connect(log.database) as long:
        long.autocommit = False
        long.execute("INSERT INTO u VALUES (1)")
        for n in range(60):
            log.sql(
                f"INSERT INTO t SELECT g, repeat('x', {17 * n % 400}) FROM generate_series({10 * n}, {10 * n + 5}) g",
                f"SELECT pg_logical_emit_message({n % 2 == 0}, 'app', '{n}')",
                f"BEGIN; SAVEPOINT a; UPDATE t SET v = '{n}'; ROLLBACK TO a; DELETE FROM t WHERE id = {n}; END",
            )
            if n % 20 == 7:
                log.sql(f"ALTER TABLE t ADD c{n} int DEFAULT {n}", "TRUNCATE w")
            if n == 30:
                long.commit()
                long.execute("INSERT INTO u VALUES (2)")
                log.sql("BEGIN; INSERT INTO u VALUES (3); PREPARE TRANSACTION 'parts'")
            if n == 40:
                log.sql("COMMIT PREPARED 'parts'", "CHECKPOINT")
                long.rollback()


def places(log: Log, step: int) -> Iterator[int]:
    yield from range(at(begin_of(log)) + 1024, end_of(log) + 2048, step)


def differing(log: Log, step: int) -> Iterator[int]:
    expected = whole(log)
    yield from (place for place in places(log, step) if told(log, Split(place, None, MANY)) != expected)


def test_wherever_the_middle_is_both_parts_are_the_log(log: Log) -> None:
    write(log)
    assert len(list(places(log, 40_960))) > 10
    assert not list(differing(log, 40_960))


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_at_every_place_both_parts_are_the_log(log: Log) -> None:
    write(log)
    assert not list(differing(log, 1024))


def _ends_early(patch: pytest.MonkeyPatch) -> None:
    text = postgres_split.text_of
    calls: list[int] = []

    def earlier(place: int) -> str:
        calls.append(place)
        return text(place - 4096 if len(calls) % 2 else place)

    patch.setattr(postgres_split, "text_of", earlier)


def _begins_late(patch: pytest.MonkeyPatch) -> None:
    second = postgres_split._second

    def later(connection: Any, slot: str, publication: str, parts: Split, *, server: int) -> Any:
        moved = Split(parts.middle + 4096, parts.end, parts.most)
        return second(connection, slot, publication, moved, server=server)

    patch.setattr(postgres_split, "_second", later)


def _not_advanced(patch: pytest.MonkeyPatch) -> None:
    rows = Session.rows

    def idle(self: Session, query: str) -> list[tuple[Any, ...]]:
        return [] if "slot_advance" in query else rows(self, query)

    patch.setattr(Session, "rows", idle)


@pytest.mark.parametrize("mutant", [_ends_early, _begins_late, _not_advanced])
def test_the_comparison_notices(
    log: Log, monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """A test of the test above."""
    write(log)
    mutant(monkeypatch)
    assert next(differing(log, 32_768), None) is not None


def test_a_transaction_that_comes_twice_is_refused(log: Log) -> None:
    """Where the parts overlapped, the decoder would see it."""
    log.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
    messages = log.messages()
    decoder = log.decoder(t=("id",))
    decoder.decode(messages)
    with pytest.raises(EtlError, match="not in the order of their commits"):
        decoder.decode(messages)
    twice = pa.concat_arrays([messages, messages])
    with pytest.raises(EtlError, match="not in the order of their commits"):
        log.decoder(t=("id",)).decode(twice)


def test_the_first_part_alone_where_it_has_more_than_its_share(log: Log) -> None:
    write(log)
    expected = whole(log)
    found = told(log, Split(at(end_of(log)) - 2048, None, 100))
    assert 100 <= len(found) < len(expected)
    assert found == expected[: len(found)]
    assert found[-1][:1] == b"C"


def test_the_second_part_ends_where_it_is_told(log: Log) -> None:
    write(log)
    begin, end = begin_of(log), end_of(log)
    third = (end - begin) // 3
    expected, found = whole(log), told(log, Split(at(begin + third), begin + 2 * third, MANY))
    assert len(expected) / 3 < len(found) < len(expected)
    assert found == expected[: len(found)]


def test_where_there_is_no_room_for_another_slot_the_first_part_is_read(log: Log) -> None:
    write(log)
    parts = Split(at((begin_of(log) + end_of(log)) // 2), None, MANY)
    with log.server.connect(log.database) as other:
        free = other.execute(
            "SELECT current_setting('max_replication_slots')::int - count(*)::int FROM pg_replication_slots"
        ).fetchone()
        assert free is not None
        for n in range(free[0]):
            other.execute("SELECT pg_create_physical_replication_slot(%s, false, true)", [f"full_{n}"])
        found = told(log, parts)
    expected = whole(log)
    assert 0 < len(found) < len(expected)
    assert found == expected[: len(found)]


def test_where_slots_may_not_be_copied_the_first_part_is_read(log: Log) -> None:
    write(log)
    function = "FUNCTION pg_catalog.pg_copy_logical_replication_slot(name, name, boolean)"
    log.sql("CREATE ROLE split_reader LOGIN REPLICATION", f"REVOKE EXECUTE ON {function} FROM PUBLIC")
    try:
        log.source = PostgresSource(**log.server.settings(log.database, user="split_reader"))
        middle = at((begin_of(log) + end_of(log)) // 2)
        found, expected = told(log, Split(middle, None, MANY)), whole(log)
    finally:
        log.sql(f"GRANT EXECUTE ON {function} TO PUBLIC", "DROP ROLE split_reader")
    assert 0 < len(found) < len(expected)
    assert found == expected[: len(found)]


def test_the_copy_is_gone_when_the_reader_stops_early(log: Log) -> None:
    write(log)
    with log.source.session() as session:
        found = peek_split(log.source, session, SLOT, PUBLICATION, Split(at(end_of(log)), None, MANY), server=140000)
        next(found)
        until(lambda: copies(log) == 1)
        found.close()
        assert session.value("SELECT 1") == 1
    until(lambda: copies(log) == 0)


def test_a_second_part_that_breaks_off_is_an_error_and_not_an_end(log: Log) -> None:
    write(log)
    parts = Split(at(end_of(log)), None, MANY)
    # Several times what fits into the buffers of a connection: the server cannot have sent all of it.
    log.sql("INSERT INTO t (id, v) SELECT n, repeat('x', 400) FROM generate_series(10000, 110000) n")
    with (
        log.source.session() as session,
        closing(peek_split(log.source, session, SLOT, PUBLICATION, parts, server=140000)) as found,
    ):
        next(found)
        # Before that, the server would only have refused the copy.
        until(lambda: copies(log, f"AND active_pid IN ({PEEKING})") == 1)
        log.sql("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE temporary")
        with pytest.raises(UnavailableError):
            list(found)
    assert told(log, parts) == whole(log)


def copies(log: Log, more: str = "") -> int:
    return int(log.rows(f"SELECT count(*) FROM pg_replication_slots WHERE temporary {more}")[0][0])


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_only_what_is_long_and_mostly_new_is_worth_it(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    write(log)
    link = Link(log.source)
    try:
        now = postgres_slot.status(link, SLOT)
        missing = postgres_slot.status(link, "no_such_slot")
    finally:
        link.close()
    assert now.slot is not None
    assert now.slot.confirmed is not None
    assert split(now, MANY, OF_A_CHANGE) is None
    assert split(missing, MANY, OF_A_CHANGE) is None
    monkeypatch.setattr(postgres_split, "LONG", 10_000)
    length = now.insert - now.slot.confirmed
    found = split(now, MANY, OF_A_CHANGE)
    assert found is not None
    assert found.end is None
    assert abs(found.middle - now.slot.confirmed - 0.4 * length) <= 1024
    assert found.most == MANY
    limited = split(now, 1000, 64.0)
    assert limited is not None
    assert abs(limited.middle - now.slot.confirmed - 0.4 * 64_000) <= 1024
    assert limited.end == now.slot.confirmed + 64_000
    assert not now.slot.failover
    assert split(replace(now, slot=replace(now.slot, failover=True)), MANY, OF_A_CHANGE) is None
    before = replace(now, slot=replace(now.slot, restart=now.slot.confirmed - length - 1))
    assert split(before, MANY, OF_A_CHANGE) is None


def test_both_parts_are_decoded_at_once(log: Log) -> None:
    """The second part is at work before the first has given anything."""
    log.sql("CREATE TABLE t (id int PRIMARY KEY)")
    for n in range(4):
        log.sql(f"INSERT INTO t SELECT generate_series({n * 100_000}, {n * 100_000 + 99_999})")
    begin = begin_of(log)
    parts = Split(at((begin + end_of(log)) // 2), None, MANY)
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        with log.server.connect(log.database) as client:
            while not done.is_set():
                query = "SELECT active_pid FROM pg_replication_slots s JOIN pg_stat_activity ON pid = active_pid"
                active = client.execute(f"{query} WHERE s.database = current_database() AND state = 'active'")
                seen.add(len(active.fetchall()))
                time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert told(log, parts) == whole(log)
    finally:
        done.set()
        watcher.join()
    assert 2 in seen
