"""However the messages are cut into pieces, the events are the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl_resources.changes import pgoutput_transactions
from etl_resources.changes.pgoutput import Committed, Decoder
from tests.resources.pgoutput_log import Log, events, follow
from tests.servers.postgres import PostgresServer, shared_postgres
from tests.soaking import SOAK, examples

KEYS = {"t": ("id",), "u": ("id",), "p": ("id", "part")}
BIG = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300) n)"
SCRIPT = f"""
    CREATE TABLE t (id int PRIMARY KEY, v text, big text); CREATE TABLE u (id bigint PRIMARY KEY, n numeric(5, 1)[]);
    CREATE TABLE p (id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
    CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
    CREATE TABLE ignored (id int PRIMARY KEY);
    SELECT pg_replication_origin_create('origin of the test');
    BEGIN; INSERT INTO t VALUES (1, 'a', {BIG}), (2, NULL, ''); INSERT INTO u VALUES (1, '{{1.5,NULL}}'); COMMIT;
    UPDATE t SET v = 'b' WHERE id = 1;
    BEGIN; INSERT INTO ignored VALUES (1), (2); UPDATE t SET id = id + 10; INSERT INTO p VALUES (1, 1), (2, 2);
        SELECT pg_logical_emit_message(true, 'within', ''); DELETE FROM ignored; UPDATE p SET part = 2; COMMIT;
    SELECT pg_logical_emit_message(true, 'beat', '');
    SELECT pg_replication_origin_session_setup('origin of the test');
    BEGIN; INSERT INTO t VALUES (3, 'c', ''); ALTER TABLE t ADD w int DEFAULT 5; INSERT INTO t VALUES (4, 'd', '', 6);
        TRUNCATE u, p; INSERT INTO u VALUES (2, '{{}}'), (3, '{{{{1}}}}'); COMMIT;
    SELECT pg_replication_origin_session_reset();
    ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET v = 'e'; ALTER TABLE t RENAME v TO renamed; DELETE FROM t;
"""


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    server: PostgresServer = shared_postgres()
    with follow(server, server.emptied_database()) as found:
        for statement in SCRIPT.split(";\n"):
            if statement.strip():
                found.sql(*([statement] if "BEGIN" in statement else statement.split("; ")))
        yield found


@pytest.fixture(scope="module")
def messages(log: Log) -> list[bytes]:
    found = log.messages().to_pylist()
    log.sql("SELECT pg_replication_origin_drop('origin of the test')")
    return found


Told = tuple[dict[str, list[dict[str, Any]]], dict[str, list[str]], dict[str, int], list[Committed | None]]


def decode(decoder: Decoder, pieces: Sequence[Sequence[bytes]]) -> Told:
    """Return by stream the events, the unreadable ones and their number, and what was committed at the end."""
    rows: dict[str, list[dict[str, Any]]] = {}
    unreadable: dict[str, list[str]] = {}
    read: dict[str, int] = {}
    for piece in pieces:
        for made in decoder.decode(pa.array(piece, pa.binary())):
            rows.setdefault(made.stream, []).extend(events([made]))
            unreadable.setdefault(made.stream, []).extend(str(r) for r in (made.unreadable or pa.table({})).to_pylist())
            read[made.stream] = read.get(made.stream, 0) + made.read
    return rows, unreadable, read, [decoder.committed]


def cut(messages: list[bytes], places: Sequence[int]) -> list[list[bytes]]:
    return [messages[a:b] for a, b in itertools.pairwise([0, *sorted(places), len(messages)])]


@pytest.fixture(scope="module")
def whole(log: Log, messages: list[bytes]) -> Told:
    found = decode(log.decoder(0, **KEYS), [messages])
    assert {stream: len(rows) for stream, rows in found[0].items()} == {"t": 17, "u": 3, "p": 6}
    assert {stream: len(rows) for stream, rows in found[1].items()} == {"t": 0, "u": 1, "p": 0}
    return found


def test_every_border_may_be_a_border_of_a_piece(log: Log, messages: list[bytes], whole: Told) -> None:
    """One message at a time, and cut in two at every third place (`make soak`: at every place)."""
    assert decode(log.decoder(0, **KEYS), [[message] for message in messages]) == whole
    for place in range(0, len(messages) + 1, 1 if SOAK else 3):
        assert decode(log.decoder(0, **KEYS), cut(messages, [place])) == whole


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(10))
@given(data=st.data())
def test_any_cutting_gives_the_same_events(data: st.DataObject) -> None:
    messages, whole = _SHARED["messages"], _SHARED["whole"]
    places = data.draw(st.lists(st.integers(0, len(messages)), max_size=12))
    assert decode(_SHARED["log"].decoder(0, **KEYS), cut(messages, places)) == whole


_SHARED: dict[str, Any] = {}


@pytest.fixture(scope="module", autouse=True)
def _shared(log: Log, messages: list[bytes], whole: Told) -> Iterator[None]:
    _SHARED.update(log=log, messages=messages, whole=whole)
    yield
    _SHARED.clear()


def test_events_are_named_once_and_in_order(whole: Told) -> None:
    """(_pos, _seq) names an event of a stream, and grows."""
    for rows in whole[0].values():
        names = [(row["_pos"], row["_seq"]) for row in rows]
        assert names == sorted(set(names))


def test_it_is_open_within_a_transaction_and_nowhere_else(log: Log, messages: list[bytes]) -> None:
    decoder, inside = log.decoder(0, **KEYS), False
    for message in messages:
        decoder.decode(pa.array([message], pa.binary()))
        inside = {b"B": True, b"C": False}.get(message[:1], inside)
        assert decoder.open == inside


def test_a_replay_from_anywhere_gives_the_same_names(log: Log, messages: list[bytes], whole: Told) -> None:
    """A server that sends its relation messages again, and transactions that the lake has, names events as before."""
    relations = [message for message in messages if message[:1] == b"R"]
    last: dict[bytes, bytes] = {}
    starts = []
    for n, message in enumerate(messages):
        if message[:1] == b"R":
            last[message[1:5]] = message
        if message[:1] == b"B":
            starts.append((n, list(last.values())))
    assert len(starts) > 6
    assert len(relations) > 6
    for start, known in starts:
        rest = messages[start : start + 1] + known + messages[start + 1 :]
        found = decode(log.decoder(0, **KEYS), [rest])
        for stream, rows in found[0].items():
            assert rows == whole[0][stream][len(whole[0][stream]) - len(rows) :]


def test_places_that_are_counted_per_piece_would_be_noticed(
    log: Log, messages: list[bytes], whole: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test of the tests: `_seq` that begins anew with each piece makes them fail."""
    real = pgoutput_transactions.Transactions

    def forgetful(wire: Any, ongoing: Any) -> Any:
        from dataclasses import replace

        return real(wire, ongoing and replace(ongoing, events=0))

    monkeypatch.setattr("etl_resources.changes.pgoutput.Transactions", forgetful)
    assert decode(log.decoder(0, **KEYS), [[message] for message in messages]) != whole
