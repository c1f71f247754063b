"""The change log of PostgreSQL when another server takes the place of the one that was followed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from etl_resources.changes import postgres_history, postgres_preflight, postgres_slot
from etl_resources.changes.postgres_link import Link
from etl_resources.changes.postgres_position import Cursor, Server
from etl_resources.changes.postgres_slot import Status
from etl_resources.changes.postgres_slot_findings import slot_findings
from etl_resources.changes.postgres_visibility import View
from etl_resources.exceptions import ConfigurationError, LogLostError
from tests.resources import test_postgres_log
from tests.resources.test_postgres_log import Shop
from tests.servers.postgres import PostgresServer, running_postgres, running_replica

shop = test_postgres_log.shop


@pytest.fixture
def pair() -> Iterator[tuple[Shop, PostgresServer]]:
    """A primary with a table that was read, and a standby of it."""
    with running_postgres() as primary:
        made = Shop(primary, "postgres", t="id")
        made.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
        made.sql("INSERT INTO t VALUES (1, 10), (2, 20), (3, 30)")
        with running_replica(primary) as standby:
            made.read()
            yield made, standby
            made.client.close()


def caught_up(shop: Shop, standby: PostgresServer) -> None:
    """Wait until the standby has all that the primary has."""
    place = shop.sql("SELECT pg_current_wal_lsn()::text")[0][0]
    deadline = time.monotonic() + 10
    with standby.connect() as client:
        while client.execute("SELECT pg_last_wal_replay_lsn() < %s::pg_lsn", [place]).fetchone() != (False,):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def promote(server: PostgresServer) -> None:
    with server.connect() as client:
        client.execute("SELECT pg_promote(true, 20)")


def moved(shop: Shop, server: PostgresServer) -> None:
    """Let the shop's reader go to another server."""
    shop.client.close()
    shop.server, shop.client = server, server.connect(shop.database)


def test_a_standby_is_refused_and_its_primary_recommended(pair: tuple[Shop, PostgresServer]) -> None:
    shop, standby = pair
    assert any("there are standbys" in f.what for f in shop.log().preflight() if f.level == "warning")
    caught_up(shop, standby)
    moved(shop, standby)
    (error,) = [f for f in shop.log().preflight() if f.level == "error"]
    assert "is a standby" in error.what
    with pytest.raises(ConfigurationError, match="is a standby") as refused:
        shop.read()
    assert refused.value.fix == "connect to the primary"


def test_a_standby_that_was_promoted_has_no_slot_and_is_read_anew(pair: tuple[Shop, PostgresServer]) -> None:
    """What was changed in between is found, the deletes too; and what was read before is not taken twice."""
    shop, standby = pair
    shop.sql("UPDATE t SET v = 11 WHERE id = 1")
    shop.read()
    shop.sql("DELETE FROM t WHERE id = 3")
    caught_up(shop, standby)
    promote(standby)
    moved(shop, standby)
    shop.sql("INSERT INTO t VALUES (4, 40)")
    assert shop.log().state(shop.positions).state == "lost"
    with pytest.raises(
        LogLostError, match=r"slot etl_shop is gone \(the server was promoted .*timeline 1, now 2"
    ) as lost:
        shop.read()
    assert "etl capture resnapshot" in lost.value.fix
    before = dict(shop.positions["t"])
    shop.positions["t"] = shop.log().renewed(before)
    shop.swept = {}
    rows = shop.read()
    assert {(r["_op"], r["id"]) for r in rows} == {("read", 1), ("read", 2), ("read", 4)}
    assert min(r["_pos"] for r in rows) >= shop.swept["t"] > before["lsn"]
    shop.sql("UPDATE t SET v = 0")
    assert [r["_op"] for r in shop.read()] == ["update"] * 3


def test_only_what_was_read_before_the_promotion_is_part_of_the_new_history(pair: tuple[Shop, PostgresServer]) -> None:
    """As the server itself tells it: a position behind the place where the histories part is of the other one."""
    shop, standby = pair
    caught_up(shop, standby)
    promote(standby)
    # The old primary goes on by itself, and is followed: its newest changes are nowhere else.
    common = Cursor.from_position(shop.positions["t"])
    shop.sql("UPDATE t SET v = 0")
    shop.read()
    apart = Cursor.from_position(shop.positions["t"])
    moved(shop, standby)
    with closing(Link(shop.log().connection)) as link:
        now = postgres_slot.status(link, "etl_shop").server
    assert (common.server.timeline, now.timeline) == (1, 2)
    postgres_history.check(common, now, shop.log().connection, "t")
    with pytest.raises(LogLostError, match="not part of its history") as lost:
        postgres_history.check(apart, now, shop.log().connection, "t")
    assert lost.value.streams == ("t",)
    # Read anew, its events come behind those of the history that was left.
    shop.positions["t"] = shop.log().renewed(shop.positions["t"])
    assert min(row["_pos"] for row in shop.read()) > apart.lsn


def test_a_server_that_keeps_its_slot_over_a_promotion_is_followed_on() -> None:
    """Restored and promoted in its own place: another timeline, the same history, nothing missing."""
    with running_postgres() as server:
        shop = Shop(server, "postgres", t="id")
        shop.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
        shop.sql("INSERT INTO t VALUES (1, 10)")
        shop.read()
        shop.sql("UPDATE t SET v = 11")
        server.stop()
        (server.data / "standby.signal").touch()
        server.start()
        promote(server)
        moved(shop, server)
        shop.sql("INSERT INTO t VALUES (2, 20)")
        assert shop.positions["t"]["timeline"] == 1
        assert [(r["_op"], r["id"]) for r in shop.read()] == [("update", 1), ("insert", 2)]
        assert shop.positions["t"]["timeline"] == 2
        shop.client.close()


def test_all_streams_that_lost_something_are_named_and_only_they_have_to_be_read_anew(shop: Shop) -> None:
    shop.sql("CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE w (id int PRIMARY KEY)")
    for name in ("u", "w"):
        shop.tables[name], shop.events[name] = ("id",), []
    shop.read()
    for name in ("t", "w"):
        shop.positions[name] = json.loads(json.dumps(shop.positions[name] | {"timeline": 77}))
    with pytest.raises(LogLostError, match=r"stream t: .*promoted[\s\S]*stream w: .*promoted") as lost:
        shop.read()
    assert lost.value.streams == ("t", "w")
    log = shop.log()
    for name in lost.value.streams:
        shop.positions[name] = log.renewed(shop.positions[name])
    shop.sql("INSERT INTO u VALUES (1)")
    shop.read()
    assert [row["_op"] for row in shop.events["u"]] == ["insert"], "a stream that had lost nothing was read anew"


def told(shop: Shop) -> dict[str, str]:
    return {finding.what: finding.level for finding in shop.log().preflight()}


def test_preflight_tells_of_memory_and_of_long_transactions_by_process_and_age(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ok" in [level for what, level in told(shop).items() if "logical_decoding_work_mem" in what]
    shop.sql(f"ALTER DATABASE {shop.database} SET logical_decoding_work_mem = '1MB'")
    try:
        assert (
            told(shop)[
                "transactions of more than 1024 kB are decoded by way of the server's disk (logical_decoding_work_mem)"
            ]
            == "warning"
        )
    finally:
        shop.sql(f"ALTER DATABASE {shop.database} RESET logical_decoding_work_mem")
    with shop.server.connect(shop.database) as other:
        other.execute("BEGIN; INSERT INTO t VALUES (9, 9)")
        assert not [what for what in told(shop) if "transactions write" in what]
        monkeypatch.setattr(postgres_preflight, "_LONG", 0.0)
        (what,) = [what for what in told(shop) if "transactions write" in what]
        assert f"process {other.info.backend_pid} of postgres, idle in transaction, for 00:00:0" in what
        other.execute("ROLLBACK")


NOW = Status(170002, Server("1", 1, "d"), False, View(1, 1, frozenset()), 5000, None)
SLOT = postgres_slot.Slot("pgoutput", "d", None, "reserved", None, 1000, 2000)


@pytest.mark.parametrize(
    ("version", "slot", "standbys", "expected"),
    [
        (150000, {}, False, []),
        (150000, {"slot_name": "s"}, True, [("warning", "not on them", "before PostgreSQL 17")]),
        (170000, {"failover": False}, True, [("warning", "not on them", "(FAILOVER true)")]),
        (170000, {"failover": True}, True, [("ok", "kept on the standbys", "")]),
        (170000, {"failover": False}, False, []),
        (170000, {"inactive_since": "2026-01-01T10:00:00.5+00:00"}, False, [("ok", "was last read at", "")]),
        (170000, {"inactive_since": "2025-12-30T11:00:00+00:00"}, False, [("warning", "for 48 hours: it", "run the")]),
        (170000, {"inactive_since": None}, False, []),
    ],
)  # fmt: skip
def test_what_newer_servers_tell_about_a_slot(
    version: int, slot: dict[str, Any], standbys: bool, expected: list[tuple[str, str, str]]
) -> None:
    """Made by hand: these columns are of PostgreSQL 17, which was not run."""
    now = replace(NOW, version=version, slot=SLOT)
    found = list(slot_findings("s", now, slot, standbys=standbys, clock=datetime(2026, 1, 1, 11, tzinfo=UTC)))
    assert len(found) == len(expected)
    for finding, (level, what, fix) in zip(found, expected, strict=True):
        assert finding.level == level
        assert what in finding.what
        assert fix in finding.fix
