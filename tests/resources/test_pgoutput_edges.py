"""What PostgreSQL's log does at its edges: TOAST, keys, truncates, versions of a table, origins, replays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from etl_resources.exceptions import EngineError, NotFoundError
from tests.resources.pgoutput_log import Log, events, follow, short
from tests.servers.postgres import PostgresServer

BIG = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 500) n)"


@pytest.fixture
def log(postgres_server: PostgresServer, postgres_database: str) -> Iterator[Log]:
    with follow(postgres_server, postgres_database) as found:
        yield found


def test_inserts_updates_and_deletes_in_the_order_of_the_log(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    log.sql(
        "INSERT INTO t VALUES (1, 'a'), (2, NULL)", "UPDATE t SET v = 'b' WHERE id = 1", "DELETE FROM t WHERE id = 2"
    )
    found = log.events()
    assert short(found, "id", "v", "_seq") == [
        ("insert", 1, "a", 1), ("insert", 2, None, 2), ("update", 1, "b", 1), ("delete", 2, None, 1),
    ]  # fmt: skip
    assert found[3]["_before"] == {"id": 2, "v": None}
    assert [event["_before"] for event in found[:3]] == [None] * 3
    assert [event["_unchanged"] for event in found] == [None] * 4
    assert found[0]["_pos"] == found[1]["_pos"] < found[2]["_pos"] < found[3]["_pos"]


def test_what_is_said_about_the_transaction_is_what_the_server_says(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY)")
    ((before, xid),) = log.rows(
        "WITH w AS (INSERT INTO t VALUES (1))"
        " SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, pg_current_xact_id()::text"
    )
    ((after,),) = log.rows("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    decoder = log.decoder(t=("id",))
    assert (decoder.committed, decoder.open) == (None, False)
    (event,) = events(decoder.decode(log.messages()))
    assert event["_xid"] == xid
    assert before <= event["_pos"] < after
    assert abs(event["_commit_ts"] - datetime.now(UTC)) < timedelta(minutes=1)
    assert decoder.committed is not None
    assert (decoder.committed.pos, str(decoder.committed.xid)) == (event["_pos"], xid)
    assert event["_pos"] < decoder.committed.end <= after
    assert decoder.committed.at == event["_commit_ts"]


def test_an_unchanged_toast_value_is_marked_and_never_just_null(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY, v int, big text, other text)")
    log.sql(f"INSERT INTO t VALUES (1, 1, {BIG}, {BIG})", "UPDATE t SET v = 2", f"UPDATE t SET big = {BIG} || 'x'")
    log.sql("UPDATE t SET big = NULL")
    found = log.events()
    assert [event["_unchanged"] for event in found] == [None, ["big", "other"], ["other"], ["other"]]
    assert [event["big"] is None for event in found] == [False, True, False, True]


def test_with_a_full_identity_the_unchanged_value_comes_from_the_old_row(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY, v int, big text)", "ALTER TABLE t REPLICA IDENTITY FULL")
    log.sql(f"INSERT INTO t VALUES (1, 1, {BIG})", "UPDATE t SET v = 2", "DELETE FROM t")
    inserted, updated, deleted = log.events()
    assert (updated["_unchanged"], updated["v"], updated["big"]) == (None, 2, inserted["big"])
    assert updated["_before"] == {"id": 1, "v": 1, "big": inserted["big"]}
    assert (deleted["id"], deleted["v"], deleted["big"]) == (1, None, None)
    assert deleted["_before"] == {"id": 1, "v": 2, "big": inserted["big"]}


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_change_of_the_key_is_a_delete_and_an_update(log: Log, identity: str) -> None:
    log.sql("CREATE TABLE t (a int, b text, v int, PRIMARY KEY (a, b))", f"ALTER TABLE t REPLICA IDENTITY {identity}")
    log.sql(
        "INSERT INTO t VALUES (1, 'x', 1), (2, 'y', 2)", "UPDATE t SET a = a + 10", "UPDATE t SET v = 3 WHERE a = 11"
    )
    found = log.events(t=("a", "b"))
    assert short(found, "a", "b", "v", "_seq") == [
        ("insert", 1, "x", 1, 1), ("insert", 2, "y", 2, 2),
        ("delete", 1, "x", None, 1), ("update", 11, "x", 1, 2), ("delete", 2, "y", None, 3), ("update", 12, "y", 2, 4),
        ("update", 11, "x", 3, 1 if identity == "DEFAULT" else 2),
    ]  # fmt: skip
    old = {"a": 1, "b": "x", "v": 1 if identity == "FULL" else None}
    assert found[2]["_before"] == found[3]["_before"] == old


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_key_too_large_for_its_row_stays_known_where_it_does_not_change(log: Log, identity: str) -> None:
    """The log leaves such a key out of the new row, and has it in the old one."""
    key = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 75) n)"
    log.sql("CREATE TABLE t (id text, n int, v int, PRIMARY KEY (id, n))", f"ALTER TABLE t REPLICA IDENTITY {identity}")
    log.sql("ALTER TABLE t ALTER id SET STORAGE EXTERNAL", "ALTER TABLE t SET (toast_tuple_target = 128)")
    log.sql(f"INSERT INTO t VALUES ({key}, 1, 1)", "UPDATE t SET v = 2", "UPDATE t SET n = 7", "DELETE FROM t")
    found = log.events(t=("id", "n"))
    assert [(event["_op"], event["n"]) for event in found] == [
        ("insert", 1), ("update", 1), ("delete", 1), ("update", 7), ("delete", 7),
    ]  # fmt: skip
    assert {event["id"] for event in found} == {found[0]["id"]}
    assert {tuple(event["_unchanged"] or ()) for event in found} == {()}


def test_truncates_are_events_of_each_table_in_their_place(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY, v int)", "CREATE TABLE u (id int PRIMARY KEY)")
    log.sql("INSERT INTO t VALUES (1, 1)", "INSERT INTO u VALUES (1)")
    log.sql("BEGIN; INSERT INTO t VALUES (2, 2); TRUNCATE t, u; INSERT INTO t VALUES (3, 3), (4, 4); COMMIT")
    t, u = (log.events(**{name: ("id",)}) for name in "tu")
    assert short(t, "id", "v") == [
        ("insert", 1, 1), ("insert", 2, 2), ("truncate", None, None), ("insert", 3, 3), ("insert", 4, 4),
    ]  # fmt: skip
    assert [event["_seq"] for event in t] == [1, 1, t[2]["_seq"], 4, 5]
    assert sorted((t[2]["_seq"], u[1]["_seq"])) == [2, 3]
    assert (u[1]["_op"], t[2]["_before"], t[2]["_unchanged"]) == ("truncate", None, None)
    assert [piece.stream for piece in log.decoded(t=("id",), u=("id",))] == ["t", "u"]


def test_places_in_a_transaction_do_not_depend_on_which_tables_are_captured(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY, v int)", "CREATE TABLE u (id int PRIMARY KEY)")
    log.sql("""
        BEGIN; INSERT INTO u SELECT generate_series(1, 3); INSERT INTO t VALUES (1, 1); UPDATE u SET id = id + 10;
        INSERT INTO t VALUES (2, 2); SAVEPOINT s; INSERT INTO t VALUES (99, 99); ROLLBACK TO s; DELETE FROM u;
        INSERT INTO t VALUES (3, 3); COMMIT
    """)
    alone, both = log.events(t=("id",)), log.decoded(t=("id",), u=("id",))
    assert [event["_seq"] for event in alone] == [4, 11, 15]
    assert events([piece for piece in both if piece.stream == "t"]) == alone


def test_a_table_that_changes_within_a_transaction_comes_in_pieces_of_one_version_each(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY, v int, w text)")
    log.sql("""
        BEGIN; INSERT INTO t VALUES (1, 1, 'a'); ALTER TABLE t ADD n bigint DEFAULT 7;
        INSERT INTO t VALUES (2, 2, 'b', 8); ALTER TABLE t DROP w; INSERT INTO t VALUES (3, 3, 9);
        ALTER TABLE t RENAME v TO v2;
        INSERT INTO t VALUES (4, 4, 10); COMMIT
    """)
    log.sql("ALTER TABLE t ALTER v2 TYPE bigint", "UPDATE t SET v2 = 5000000000 WHERE id = 4")
    log.sql("ALTER TABLE t ALTER n TYPE smallint", "INSERT INTO t VALUES (5, 5, 11)")
    pieces = log.decoded(t=("id",))
    shapes = [{f.name: f.type for f in piece.data.schema if not f.name.startswith("_")} for piece in pieces]
    i2, i4, i8, text = pa.int16(), pa.int32(), pa.int64(), pa.string()
    assert [(list(shape.items()), piece.data.num_rows) for shape, piece in zip(shapes, pieces, strict=True)] == [
        ([("id", i4), ("v", i4), ("w", text)], 1), ([("id", i4), ("v", i4), ("w", text), ("n", i8)], 1),
        ([("id", i4), ("v", i4), ("n", i8)], 1), ([("id", i4), ("v2", i4), ("n", i8)], 1),
        ([("id", i4), ("v2", i8), ("n", i8)], 1), ([("id", i4), ("v2", i8), ("n", i2)], 1),
    ]  # fmt: skip
    assert [event["id"] for event in events(pieces)] == [1, 2, 3, 4, 4, 5]
    assert [event["_seq"] for event in events(pieces)] == [1, 2, 3, 4, 1, 1], "relation messages do not count"
    assert len(log.described) == 6


def test_a_relation_that_is_told_again_unchanged_is_not_a_new_version(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)", "CREATE INDEX again ON t (id)")
    log.sql("INSERT INTO t VALUES (2)", "ALTER TABLE t SET (fillfactor = 50)", "INSERT INTO t VALUES (3)")
    messages = log.messages()
    assert sum(message[:1] == b"R" for message in messages.to_pylist()) > 1
    decoder = log.decoder(t=("id",))
    (piece,) = decoder.decode(messages)
    assert len(log.described) == 1
    other = log.decoder(t=("id",))
    one_by_one = [made for n in range(len(messages)) for made in other.decode(messages.slice(n, 1))]
    assert pa.Table.from_batches([made.data for made in one_by_one]).equals(pa.Table.from_batches([piece.data]))
    assert len(log.described) == 2


def test_a_table_that_takes_the_name_of_another_is_followed_and_the_other_is_not(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)", "ALTER TABLE t RENAME TO old")
    log.sql("INSERT INTO old VALUES (2)", "CREATE TABLE t (id bigint PRIMARY KEY)", "INSERT INTO t VALUES (3)")
    assert [event["id"] for event in log.events()] == [1, 3]


def test_a_partitioned_table_is_one_stream(log: Log) -> None:
    log.sql("CREATE TABLE t (id int, p int, PRIMARY KEY (id, p)) PARTITION BY LIST (p)")
    log.sql("CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)", "CREATE TABLE t2 (p int, x int, id int NOT NULL)")
    log.sql(
        "ALTER TABLE t2 DROP x",
        "ALTER TABLE t2 ADD PRIMARY KEY (id, p)",
        "ALTER TABLE t ATTACH PARTITION t2 FOR VALUES IN (2)",
    )
    log.sql(
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, 1)", "UPDATE t SET p = 2 WHERE id = 1", "DELETE FROM t WHERE id = 2"
    )
    log.sql("TRUNCATE t")
    assert short(log.events(t=("id", "p")), "id", "p") == [
        ("insert", 1, 1), ("insert", 2, 2), ("insert", 3, 1), ("delete", 1, 1), ("insert", 1, 2), ("delete", 2, 2),
        ("truncate", None, None),
    ]  # fmt: skip


def test_the_origin_of_a_replicated_transaction_is_told_and_that_of_others_is_null(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY)", "SELECT pg_replication_origin_create('elsewhere')")
    log.sql("INSERT INTO t VALUES (1)", "SELECT pg_replication_origin_session_setup('elsewhere')")
    log.sql("INSERT INTO t VALUES (2), (3)", "SELECT pg_replication_origin_session_reset()", "INSERT INTO t VALUES (4)")
    messages = log.messages()
    log.sql("SELECT pg_replication_origin_drop('elsewhere')")
    found = events(log.decoder(t=("id",)).decode(messages))
    assert [event["_origin"] for event in found] == [None, "elsewhere", "elsewhere", None]


def test_heartbeats_move_the_commit_and_are_no_events(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    decoder = log.decoder(t=("id",))
    first = log.messages()
    decoder.decode(first)
    before = decoder.committed
    log.sql("SELECT pg_logical_emit_message(true, 'beat', 'x')", "SELECT pg_logical_emit_message(false, 'beat', 'x')")
    log.sql(
        "BEGIN; INSERT INTO t VALUES (2); SELECT pg_logical_emit_message(true, 'b', '');"
        " INSERT INTO t VALUES (3); COMMIT"
    )
    messages = log.messages().slice(len(first))
    assert sum(message[:1] == b"M" for message in messages.to_pylist()) == 3
    (piece,) = decoder.decode(messages)
    assert piece.data.column("_seq").to_pylist() == [1, 2]
    assert before is not None
    assert decoder.committed is not None
    assert before.end <= decoder.committed.pos


def test_events_at_or_before_the_cursor_are_left_out_and_counted(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1), (2, 2)")
    log.sql("UPDATE t SET id = 3 WHERE id = 1", "TRUNCATE t", "INSERT INTO t VALUES (4, 4)")
    every = log.events()
    for n, cursor in (
        (0, 0),
        (2, every[0]["_pos"]),
        (4, every[2]["_pos"]),
        (5, every[4]["_pos"]),
        (6, every[5]["_pos"]),
    ):
        (piece,) = log.decoder(cursor, t=("id",)).decode(log.messages())
        assert (events([piece]), piece.repeated, piece.read) == (every[n:], n, 6)


def test_a_delete_whose_key_the_log_does_not_have_is_set_apart(log: Log) -> None:
    log.sql("CREATE TABLE t (id int, other int PRIMARY KEY)", "INSERT INTO t VALUES (1, 10)", "DELETE FROM t")
    inserted, deleted = log.decoded(t=("id",)), None
    (piece,) = inserted
    assert short(events([piece]), "id") == [("insert", 1)]
    assert piece.unreadable is not None
    (deleted,) = piece.unreadable.to_pylist()
    assert deleted["reason"].startswith("id: the log does not have it")


def test_a_key_that_is_no_longer_in_the_log_is_an_error_that_names_it(log: Log) -> None:
    log.sql("CREATE TABLE t (idd int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with pytest.raises(NotFoundError, match=r"(?s)no column id .*did you mean idd"):
        log.events()


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_messages_that_are_cut_short_are_not_guessed_at(log: Log, cut: int) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'value')")
    messages = [m[:-cut] if m[:1] == b"I" else m for m in log.messages().to_pylist()]
    with pytest.raises(EngineError, match="was not understood"):
        log.decoder(t=("id",)).decode(pa.array(messages, pa.binary()))


@pytest.mark.parametrize("message", [b"S\0\0\0\0\0", b"I\0\0\0\1N\0\1n"])
def test_messages_out_of_place_are_not_guessed_at(log: Log, message: bytes) -> None:
    with pytest.raises(EngineError, match="was not understood"):
        log.decoder(t=("id",)).decode(pa.array([message], pa.binary()))


def test_text_that_is_no_utf8_is_not_guessed_at(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'value')")
    messages = [m.replace(b"value", b"val\xff\xfe") for m in log.messages().to_pylist()]
    with pytest.raises(EngineError, match="no UTF-8"):
        log.decoder(0, t=("id",)).decode(pa.array(messages, pa.binary()))
