"""The change log of PostgreSQL: what is refused before anything is changed, and what is noticed when changes are
lost."""

from __future__ import annotations

import pytest

from etl_resources.exceptions import ConfigurationError, LogLostError
from etl_resources.secret import Secret
from tests.resources import test_postgres_log
from tests.resources.test_postgres_log import Shop
from tests.servers.postgres import running_postgres

shop = test_postgres_log.shop

_PARTITIONED = """
CREATE TABLE u (id int) PARTITION BY RANGE (id);
CREATE TABLE u1 (id int);
ALTER TABLE u ATTACH PARTITION u1 FOR VALUES FROM (1) TO (9)
"""
_MADE_ANEW = """
SELECT pg_drop_replication_slot('etl_shop');
UPDATE t SET v = 0;
SELECT pg_create_logical_replication_slot('etl_shop', 'pgoutput')
"""
_READ_BY_OTHERS = """
UPDATE t SET v = 0;
SELECT pg_logical_slot_get_binary_changes('etl_shop', NULL, NULL, 'proto_version', '1', 'publication_names', 'etl_shop')
"""


def renew(shop: Shop) -> None:
    log = shop.log()
    shop.positions = {name: log.renewed(position) for name, position in shop.positions.items()}


def check_refused(shop: Shop, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        shop.read()
    assert shop.sql("SELECT count(*) FROM pg_publication") == [(0,)], "something was changed all the same"
    assert shop.slot() == {}


def test_a_table_without_identity_is_refused_before_the_application_suffers(shop: Shop) -> None:
    shop.sql("CREATE TABLE u (id int)")
    shop.tables["u"] = ("id",)
    check_refused(shop, "refuses the application's")
    shop.sql("INSERT INTO u VALUES (1)")
    shop.sql("UPDATE u SET id = 2")


@pytest.mark.parametrize(
    ("statement", "key", "message"),
    [
        ("CREATE TABLE u (id int PRIMARY KEY DEFERRABLE)", "id", "no replica identity"),
        ("CREATE TABLE u (id int PRIMARY KEY); ALTER TABLE u REPLICA IDENTITY NOTHING", "id", "no replica identity"),
        ("CREATE TABLE u (id int PRIMARY KEY, o int NOT NULL)", "o", "which lacks o of the key"),
        ("CREATE UNLOGGED TABLE u (id int PRIMARY KEY)", "id", "unlogged"),
        ("CREATE VIEW u AS SELECT 1 AS id", "id", "a view"),
        ("CREATE TABLE u (id int); ALTER TABLE u REPLICA IDENTITY FULL", "id", "may be null"),
        ("CREATE TABLE u (id int PRIMARY KEY GENERATED ALWAYS AS (1) STORED)", "id", "is generated"),
        (_PARTITIONED, "id", "u1 has no replica identity"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_captured_are_refused(shop: Shop, statement: str, key: str, message: str) -> None:
    shop.sql(statement)
    shop.tables, shop.events = {"u": (key,)}, {"u": []}
    check_refused(shop, message)


def test_rows_hidden_from_the_user_are_not_taken_for_deleted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_PASSWORD", "geheim")
    shop.sql("DO $$BEGIN CREATE ROLE limited LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$")
    shop.sql("ALTER ROLE limited PASSWORD 'geheim' NOREPLICATION")
    shop.sql("GRANT SELECT ON t TO limited")
    limited = {"user": "limited", "password": Secret(env="LOG_PASSWORD")}
    try:
        errors = {f.what for f in shop.log(source=limited).preflight() if f.level == "error"}
        assert any("may not use replication slots" in what for what in errors)
        assert any("may not make one" in what for what in errors)
        shop.sql("ALTER ROLE limited REPLICATION")
        shop.sql("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
        shop.sql("CREATE PUBLICATION etl_shop FOR TABLE t")
        with pytest.raises(ConfigurationError, match="row security hides rows") as error:
            shop.read(shop.log(source=limited))
        assert "geheim" not in str(error.value) + repr(error.value)
        shop.sql("ALTER TABLE t DISABLE ROW LEVEL SECURITY")
        assert len(shop.read(shop.log(source=limited))) == 3, "a publication that somebody made is used"
        shop.sql("UPDATE t SET v = 0 WHERE id = 1")
        assert len(shop.read(shop.log(source=limited))) == 1
        shop.log().remove()
        assert shop.sql("SELECT count(*) FROM pg_publication") == [(1,)], "somebody else's publication was dropped"
    finally:
        shop.sql("DROP OWNED BY limited")
        shop.sql("ALTER ROLE limited NOREPLICATION")


@pytest.mark.parametrize(
    "options", ["FOR TABLE t WHERE (id > 1)", "FOR TABLE t (id)", "FOR TABLE t WITH (publish = 'insert')", ""]
)
def test_somebody_elses_publication_has_to_give_all(shop: Shop, options: str) -> None:
    shop.sql(f"CREATE PUBLICATION etl_shop {options}")
    with pytest.raises(ConfigurationError, match="made by somebody else and cannot be used"):
        shop.read()


def test_wal_level_and_standby(shop: Shop) -> None:
    with running_postgres({"wal_level": "replica"}) as server:
        other = Shop(server, "postgres", t="id")
        other.sql("CREATE TABLE t (id int PRIMARY KEY)")
        check_refused(other, "wal_level is replica")
        other.client.close()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        ("SELECT pg_drop_replication_slot('etl_shop')", "slot etl_shop is gone"),
        (_MADE_ANEW, "was made anew"),
        (_READ_BY_OTHERS, "somebody else has read from it"),
        ("ALTER PUBLICATION etl_shop DROP TABLE t; UPDATE t SET v = 0", "was taken out of publication"),
        ("DROP PUBLICATION etl_shop; UPDATE t SET v = 0", "was taken out of publication"),
        (
            "ALTER TABLE t RENAME TO old; CREATE TABLE t (LIKE old INCLUDING ALL); INSERT INTO t SELECT * FROM old",
            "was dropped and made anew",
        ),
    ],
)  # fmt: skip
def test_lost_changes_are_noticed_said_and_healed(shop: Shop, break_it: str, message: str) -> None:
    """Never silently: the error says what is lost, and after `renewed` the next read has everything again."""
    shop.read()
    for statement in break_it.split(";"):
        shop.sql(statement)
    shop.sql("DELETE FROM t WHERE id = 3")
    shop.sql("INSERT INTO t VALUES (4, 40)")
    for _ in range(2):
        with pytest.raises(LogLostError, match=message) as lost:
            shop.read()
        assert "resnapshot" in str(lost.value)
    renew(shop)
    before = shop.positions["t"]["lsn"]
    shop.swept = {}
    rows = shop.read()
    assert {r["id"] for r in rows if r["_op"] == "read"} == {1, 2, 4}
    assert all(r["_pos"] > before for r in rows)
    # What is to be swept: keys without an event since the snapshot began.
    events = shop.events["t"]
    assert {r["id"] for r in events} - {r["id"] for r in events if r["_pos"] >= shop.swept["t"]} <= {3}
    shop.sql("UPDATE t SET v = 1 WHERE id = 4")
    assert [r["_op"] for r in shop.read()] == ["update"], "it does not go on after it was renewed"


def test_another_server_is_noticed_and_its_positions_come_after(shop: Shop) -> None:
    shop.read()
    position = shop.positions["t"]
    position["system"], position["lsn"], position["end"] = "1", position["lsn"] + 10**12, position["end"] + 10**12
    with pytest.raises(LogLostError, match="another PostgreSQL cluster"):
        shop.read()
    renew(shop)
    rows = shop.read()
    assert min(r["_pos"] for r in rows) > position["lsn"]
    shop.sql("UPDATE t SET v = 1 WHERE id = 1")
    assert shop.read()[0]["_pos"] > max(r["_pos"] for r in rows)


def test_one_stream_can_be_read_anew_beside_others(shop: Shop) -> None:
    shop.sql("CREATE TABLE u (id int PRIMARY KEY)")
    shop.tables["u"], shop.events["u"] = ("id",), []
    shop.read()
    shop.positions["t"] = shop.log().renewed(shop.positions["t"])
    shop.sql("INSERT INTO u VALUES (1)")
    shop.sql("UPDATE t SET v = 5 WHERE id = 1")
    rows = shop.read()
    assert sorted(r["_op"] for r in rows) == ["read", "read", "read", "update"]
    assert [r["_op"] for r in shop.events["u"]] == ["insert"]
    assert shop.state("t", "id", "v")[1,] == (1, 5)


def test_a_slot_that_holds_back_too_much_is_dropped_if_the_user_says_so(shop: Shop) -> None:
    shop.read()
    shop.sql("CREATE TABLE others AS SELECT repeat('x', 100) AS x FROM generate_series(1, 20000)")
    state = shop.log(max_retained=100_000).state(shop.positions)
    assert state.state == "warning"
    assert any("max_retained" in note for note in state.notes)
    shop.read(max_retained=100)
    shop.sql("INSERT INTO others SELECT * FROM others")
    with pytest.raises(LogLostError, match="was dropped: it held back"):
        shop.read(max_retained=100_000, drop_beyond_cap=True)
    assert shop.slot() == {}
    assert shop.log().state(shop.positions).state == "lost"


def test_a_slot_that_the_server_gave_up_is_noticed_and_made_anew() -> None:
    settings = {"max_slot_wal_keep_size": "1MB"}
    with running_postgres(settings) as server:
        shop = Shop(server, "postgres", t="id")
        shop.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
        shop.sql("INSERT INTO t VALUES (1, 1)")
        shop.read()
        for _ in range(3):
            shop.sql("CREATE TABLE x AS SELECT 1 AS a")
            shop.sql("DROP TABLE x")
            shop.sql("SELECT pg_switch_wal()")
        state = shop.log().state(shop.positions)
        assert (state.state, any("last warning" in note for note in state.notes)) == ("warning", True)
        shop.sql("CHECKPOINT")
        assert shop.log().state(shop.positions).state == "lost"
        shop.sql("UPDATE t SET v = 2")
        with pytest.raises(LogLostError, match="is lost"):
            shop.read()
        renew(shop)
        assert [(r["_op"], r["v"]) for r in shop.read()] == [("read", 2)]
        assert shop.log().state(shop.positions).state == "ok"
        shop.client.close()


def test_a_table_that_is_added_later_has_its_snapshot_while_the_others_go_on(shop: Shop) -> None:
    shop.read()
    shop.sql("CREATE TABLE u (id int PRIMARY KEY)")
    shop.sql("INSERT INTO u SELECT generate_series(1, 10)")
    shop.tables["u"], shop.events["u"] = ("id",), []
    shop.sql("UPDATE t SET v = 0 WHERE id = 1")
    assert [r["_op"] for r in shop.read()] == ["update"]
    assert len(shop.events["u"]) == 10
    shop.sql("INSERT INTO u VALUES (11)")
    shop.read()
    assert [r["_op"] for r in shop.events["u"]][-1] == "insert"


def test_nothing_stays_behind(shop: Shop) -> None:
    shop.read()
    shop.log().remove()
    assert shop.slot() == {}
    assert shop.sql("SELECT count(*) FROM pg_publication") == [(0,)]
    shop.log().remove()


def test_a_query_and_a_table_twice_are_refused(shop: Shop) -> None:
    with pytest.raises(ConfigurationError, match="is a query"):
        shop.read(shop.log(options={"table": None, "query": "SELECT 1 AS id"}))
    shop.tables = {"a": ("id",), "b": ("id",)}
    with pytest.raises(ConfigurationError, match="the same table"):
        shop.log(options={"table": "t"})
