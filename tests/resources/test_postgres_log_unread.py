"""Changes that no column can hold, beside a snapshot of the same table: which is the newer truth of a key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pyarrow as pa
import pytest

from etl_resources.change_log import Boundary, Changes
from etl_resources.changes.postgres import PostgresLog
from etl_resources.changes.postgres_beside import Beside
from tests.resources import test_postgres_log
from tests.resources.test_postgres_log import Shop, hidden_commits, in_background

base = test_postgres_log.shop


@pytest.fixture(name="shop")
def dated(base: Shop) -> Shop:
    base.sql("ALTER TABLE t ADD d date DEFAULT '2024-01-01'")
    return base


class Told:
    """What a log gives: rows and events that can be read, and those that cannot, by key."""

    def __init__(self) -> None:
        self.rows: dict[Any, dict[str, Any]] = {}
        self.unread: dict[Any, list[dict[str, Any]]] = {}

    def take(self, item: Changes | Boundary) -> None:
        if isinstance(item, Changes):
            self.rows |= {row["id"]: row for row in item.batch.data.to_pylist() if row["_op"] == "read"}
            apart: pa.RecordBatch | None = item.batch.unreadable
            for raw in [] if apart is None else apart["raw"].to_pylist():
                event = json.loads(raw)
                self.unread.setdefault(event["key"]["id"], []).append(event)


def beside(shop: Shop, statement: str, *, seen: bool, log: PostgresLog | None = None) -> Told:
    """Let the first piece of a snapshot see a change, or not see it although its commit is in the log before it."""
    told, log = Told(), log or shop.log()
    with closing(log.read({"t": shop.positions.get("t")})) as items:
        shop.land(log, next(items))  # caught up: the next look has a piece
        if seen:
            shop.sql(statement)
            _look(shop, log, items, told)
        else:
            with hidden_commits(shop.server):
                thread = in_background(shop.server, shop.database, statement)
                _look(shop, log, items, told)
            thread.join()
    return told


def _look(shop: Shop, log: PostgresLog, items: Iterator[Changes | Boundary], told: Told) -> None:
    for item in items:
        told.take(item)
        shop.land(log, item)
        if isinstance(item, Boundary):
            return


def test_a_row_that_does_not_have_an_unreadable_change_yet_is_older_than_it(shop: Shop) -> None:
    told = beside(shop, "UPDATE t SET d = 'infinity' WHERE id = 2", seen=False)
    (event,) = told.unread[2]
    row = told.rows[2]
    assert row["d"] is not None
    assert (row["_pos"], row["_seq"]) < (event["pos"], event["seq"])
    assert (told.rows[1]["_pos"], told.rows[1]["_seq"]) > (event["pos"], event["seq"])


def test_a_row_that_has_an_unreadable_change_behind_it_is_newer(shop: Shop) -> None:
    told = beside(
        shop, "UPDATE t SET d = 'infinity' WHERE id = 2; UPDATE t SET d = '2024-02-02' WHERE id = 2", seen=True
    )
    (event,) = told.unread[2]
    assert (told.rows[2]["_pos"], told.rows[2]["_seq"]) > (event["pos"], event["seq"])


@pytest.mark.parametrize("seen", [True, False])
def test_a_row_that_cannot_be_read_has_its_place_as_well(shop: Shop, seen: bool) -> None:
    """Beside a change that can be read: what is newer closes the error, and what is older does not."""
    shop.sql("UPDATE t SET d = 'infinity' WHERE id = 2")
    told = beside(shop, "UPDATE t SET v = 9, d = '2024-02-02' WHERE id = 2", seen=seen)
    change = next(r for r in shop.events["t"] if r["_op"] == "update")
    if seen:
        assert not told.unread
    else:
        (row,) = told.unread[2]
        assert (row["op"], row["pos"]) == ("read", change["_pos"])
        assert row["seq"] < change["_seq"]


def test_these_tests_notice_rows_that_are_ranked_without_unreadable_changes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test of the tests above."""
    monkeypatch.setattr(Beside, "note", lambda self, decoded: self._note(decoded.data))
    with pytest.raises(AssertionError):
        test_a_row_that_does_not_have_an_unreadable_change_yet_is_older_than_it(shop)


def test_a_row_whose_key_moves_in_an_unreadable_change_is_read_once_more(shop: Shop) -> None:
    """Else it would be nowhere: not under the key that was read already, and not under the new one."""
    shop.sql("INSERT INTO t SELECT n, n FROM generate_series(10, 60) n")
    shop.sql("ALTER TABLE t ADD big text")
    shop.sql("ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    shop.sql("UPDATE t SET big = repeat('x', 4000) WHERE id = 60")
    log = shop.log(chunk_rows=20)
    told = Told()
    with closing(log.read({"t": None})) as items:
        shop.land(log, next(items))
        _look(shop, log, items, told)
        assert 60 not in told.rows
        shop.sql("UPDATE t SET id = 4, d = 'infinity' WHERE id = 60")
        shop.sql("UPDATE t SET d = '2024-03-03' WHERE id = 4")
        for item in items:
            told.take(item)
            shop.land(log, item)
    assert [event["op"] for event in told.unread[4]] == ["update"]
    assert told.rows[4]["big"] == "x" * 4000
    assert (told.rows[4]["_pos"], told.rows[4]["_seq"]) > (told.unread[4][0]["pos"], told.unread[4][0]["seq"])


def test_places_of_another_server_are_moved_on_for_unreadable_changes_too(shop: Shop) -> None:
    shop.read()
    position = shop.positions["t"]
    position["system"], position["lsn"], position["end"] = "1", position["lsn"] + 10**12, position["end"] + 10**12
    shop.positions["t"] = shop.log().renewed(position)
    shop.read()
    shop.sql("UPDATE t SET d = 'infinity' WHERE id = 2")
    told = Told()
    for item in shop.log().read(dict(shop.positions)):
        told.take(item)
    assert told.unread[2][0]["pos"] > 10**12
