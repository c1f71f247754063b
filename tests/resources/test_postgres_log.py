"""The change log of PostgreSQL against a real server: what it promises, broken on purpose."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from etl_resources.change_log import Boundary, Changes, LogTable
from etl_resources.changes import postgres_history, postgres_reading, postgres_rows
from etl_resources.changes.postgres import PostgresLog
from etl_resources.changes.postgres_settings import PostgresLogCapture
from etl_resources.changes.postgres_setup import set_up
from etl_resources.changes.postgres_slot import default_name
from etl_resources.changes.postgres_visibility import View
from etl_resources.exceptions import UnavailableError
from etl_resources.resilience import Policy
from etl_resources.source import Stream
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from tests.resources.postgres_fuzz import replayed
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import wire_to
from tests.soaking import some

QUICK = Policy(attempts=2, first_wait=0.05, silence=10.0)
IMPATIENT = Policy(attempts=1, silence=1.0)


class Shop:
    """A database with tables, and a reader of its log with a lake in memory."""

    def __init__(self, server: PostgresServer, database: str, **tables: str) -> None:
        self.server, self.database = server, database
        self.client = server.connect(database)
        self.tables = {name: tuple(key.split(",")) for name, key in tables.items()}
        self.positions: dict[str, Any] = {}
        self.events: dict[str, list[dict[str, Any]]] = {name: [] for name in tables}
        self.swept: dict[str, int] = {}
        self.boundaries: list[Boundary] = []

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        cursor = self.client.execute(statement)
        return cursor.fetchall() if cursor.description else []

    def log(
        self, options: Mapping[str, Any] | None = None, source: Mapping[str, Any] | None = None, **capture: Any
    ) -> PostgresLog:
        settings = PostgresLogCapture(**capture)
        tables = [
            LogTable(
                Stream(name, PostgresStreamOptions(type="postgres", **{"table": name, **(options or {})}), settings),
                key,
            )
            for name, key in self.tables.items()
        ]
        given = {"resilience": QUICK, **self.server.settings(self.database), **(source or {})}
        log = PostgresSource(**given).change_log("shop", tables, settings)
        assert isinstance(log, PostgresLog)
        return log

    def read(self, log: PostgresLog | None = None, **capture: Any) -> list[dict[str, Any]]:
        """Read to the end, commit and acknowledge; return the new events of the first table."""
        log = log or self.log(**capture)
        first = next(iter(self.tables))
        before = len(self.events[first])
        for item in log.read({name: self.positions.get(name) for name in self.tables}):
            self.land(log, item)
        return self.events[first][before:]

    def land(self, log: PostgresLog, item: Changes | Boundary) -> None:
        if isinstance(item, Changes):
            self.events[item.stream] += item.batch.data.to_pylist()
            return
        self.boundaries.append(item)
        self.swept |= item.swept
        self.positions |= json.loads(json.dumps(item.positions))
        log.acknowledge(self.positions)

    def state(self, name: str, *columns: str) -> dict[Any, Any]:
        return replayed(self.events[name], self.tables[name], list(columns))

    def slot(self) -> dict[str, Any]:
        rows = self.sql("SELECT row_to_json(s) FROM pg_replication_slots s WHERE slot_name = 'etl_shop'")
        return rows[0][0] if rows else {}


@pytest.fixture
def shop(postgres_server: PostgresServer, postgres_database: str) -> Iterator[Shop]:
    """A table `t` with three rows."""
    shop = Shop(postgres_server, postgres_database, t="id")
    shop.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    shop.sql("INSERT INTO t VALUES (1, 10), (2, 20), (3, 30)")
    yield shop
    with postgres_server.connect(postgres_database) as client:
        client.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
        with suppress(psycopg.Error):
            client.execute("DROP PUBLICATION etl_shop")
    shop.client.close()


@contextmanager
def hidden_commits(server: PostgresServer) -> Iterator[None]:
    """Commits are in the log, and invisible, as long as this goes on: they wait for a standby."""
    with server.connect() as client:
        client.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        client.execute("SELECT pg_reload_conf()")
        time.sleep(0.1)
        try:
            yield
        finally:
            client.execute("ALTER SYSTEM RESET synchronous_standby_names")
            client.execute("SELECT pg_reload_conf()")
            client.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")


def in_background(server: PostgresServer, database: str, statement: str) -> threading.Thread:
    def run() -> None:
        with server.connect(database) as client:
            client.execute(statement)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 5
    with server.connect() as client:
        while not client.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    return thread


def test_first_load_and_changes_join(shop: Shop) -> None:
    """Rows of the snapshot come first, with negative numbers; then each change once, and nothing twice."""
    rows = shop.read()
    assert [(r["_op"], r["id"], r["v"], r["_seq"]) for r in rows] == [
        ("read", 1, 10, -3),
        ("read", 2, 20, -2),
        ("read", 3, 30, -1),
    ]
    assert set(shop.swept) == {"t"}
    assert all(r["_pos"] >= shop.swept["t"] for r in rows)
    shop.sql("UPDATE t SET v = 11 WHERE id = 1")
    shop.sql("DELETE FROM t WHERE id = 2")
    assert [(r["_op"], r["id"], r["v"]) for r in shop.read()] == [("update", 1, 11), ("delete", 2, None)]
    assert shop.read() == []
    assert shop.boundaries[-1].caught_up


def test_types_of_snapshot_and_events_are_those_of_the_source(shop: Shop) -> None:
    shop.sql("ALTER TABLE t ADD n numeric(10, 2), ADD at timestamptz, ADD u uuid, ADD l int[], ADD j jsonb")
    shop.sql("UPDATE t SET n = 1.5, at = now(), u = gen_random_uuid(), l = '{1,2}', j = '{}'")
    log = shop.log()
    schemas = []
    for _ in range(2):
        for item in log.read(dict(shop.positions) or {"t": None}):
            if isinstance(item, Changes):
                schemas.append(item.batch.data.schema)
            shop.land(log, item)
        shop.sql("UPDATE t SET v = v + 1")
    source = PostgresSource(**shop.server.settings(shop.database))
    row = source.read_schema(log.tables[0].stream)
    assert len(schemas) == 2
    assert schemas[0] == schemas[1]
    assert pa.schema(list(schemas[0])[: len(row)]) == row


def test_generated_columns_are_left_out_everywhere(shop: Shop) -> None:
    """The log does not have them: a snapshot's value would stay for ever."""
    shop.sql("ALTER TABLE t ADD double int GENERATED ALWAYS AS (v * 2) STORED")
    assert "double" not in shop.read()[0]
    log = shop.log()
    assert log.tables[0].stream.capture is not None
    schema = PostgresSource(**shop.server.settings(shop.database)).read_schema(log.tables[0].stream)
    assert schema.names == ["id", "v"]
    assert any("generated" in f.what and f.level == "warning" for f in log.preflight())


def test_only_chosen_columns(shop: Shop) -> None:
    log = shop.log(options={"columns": ("id",)})
    assert "v" not in shop.read(log)[0]
    shop.sql("UPDATE t SET v = 5 WHERE id = 1")
    assert "v" not in shop.read(log)[0]


def test_a_killed_reader_gives_the_same_again(shop: Shop) -> None:
    shop.read()
    shop.sql("UPDATE t SET v = v + 1")
    with closing(shop.log().read(dict(shop.positions))) as items:
        given = next(items)
    assert isinstance(given, Changes)
    assert shop.read() == given.batch.data.to_pylist()


def test_what_the_lake_holds_is_not_given_again_although_the_slot_is_behind(shop: Shop) -> None:
    """A kill between the commit and its acknowledgement."""
    shop.read()
    shop.sql("UPDATE t SET v = v + 1")
    position = None
    for item in shop.log().read(dict(shop.positions)):
        if isinstance(item, Boundary):
            position = json.loads(json.dumps(item.positions["t"]))
    shop.sql("INSERT INTO t VALUES (4, 40)")
    repeated = 0
    ops = []
    for item in shop.log().read({"t": position}):
        if isinstance(item, Changes):
            repeated += item.batch.repeated
            ops += item.batch.data["_op"].to_pylist()
            assert item.batch.rows_read == len(ops) + repeated
    assert (repeated, ops) == (3, ["insert"])


def test_the_slot_goes_no_further_than_the_lake(shop: Shop) -> None:
    shop.read()
    before = shop.slot()["confirmed_flush_lsn"]
    shop.sql("UPDATE t SET v = v + 1")
    for _ in shop.log().read(dict(shop.positions)):
        pass
    assert shop.slot()["confirmed_flush_lsn"] == before
    shop.read()
    assert shop.slot()["confirmed_flush_lsn"] != before


def test_the_slot_follows_the_slowest_stream(shop: Shop) -> None:
    shop.sql("CREATE TABLE u (id int PRIMARY KEY)")
    shop.tables["u"], shop.events["u"] = ("id",), []
    shop.read()
    before, old = shop.slot()["confirmed_flush_lsn"], dict(shop.positions)
    shop.sql("UPDATE t SET v = v + 1")
    log = shop.log()
    last = [item for item in log.read(old) if isinstance(item, Boundary)][-1]
    log.acknowledge({"t": last.positions["t"], "u": old["u"]})
    assert shop.slot()["confirmed_flush_lsn"] == before
    # The next read begins with the slowest, and gives the other nothing twice.
    again = [item for item in shop.log().read({"t": last.positions["t"], "u": old["u"]}) if isinstance(item, Changes)]
    assert [(c.stream, c.batch.data.num_rows, c.batch.repeated) for c in again] == [("t", 0, 3)]


def test_the_slot_moves_on_although_the_tables_are_quiet(shop: Shop) -> None:
    """The heartbeat: without it, what others write would be kept for ever."""
    shop.read()
    shop.sql("CREATE TABLE others (x text)")
    shop.sql("INSERT INTO others SELECT repeat('x', 100) FROM generate_series(1, 20000)")
    before = shop.slot()["confirmed_flush_lsn"]
    shop.read(heartbeat=False)
    quiet = shop.slot()["confirmed_flush_lsn"]
    shop.read()
    now = shop.slot()["confirmed_flush_lsn"]
    moved = f"SELECT '{quiet}'::pg_lsn - '{before}' > 1000, '{now}'::pg_lsn - '{before}' > 1000"
    assert shop.sql(moved) == [(False, True)]


def test_an_idle_server_has_no_news(shop: Shop) -> None:
    """Neither our own heartbeat nor what the server writes by itself starts another run."""
    assert shop.log().state({"t": None}).state == "none"
    shop.read()
    shop.sql("CHECKPOINT")
    state = shop.log().state(shop.positions)
    assert (state.state, state.news, state.lag.bytes) == ("ok", False, 0)
    shop.sql("UPDATE t SET v = 1")
    state = shop.log().state(shop.positions)
    assert state.news
    assert (state.lag.bytes or 0) > 0


def test_latest_differs_when_something_was_written_and_writes_nothing(shop: Shop) -> None:
    stream = shop.log().tables[0].stream
    source = PostgresSource(**shop.server.settings(shop.database))
    first = source.latest(stream)
    assert source.latest(stream) == first
    shop.sql("UPDATE t SET v = 1")
    assert source.latest(stream) != first


def test_an_open_transaction_is_not_passed_over(shop: Shop) -> None:
    shop.read()
    with shop.server.connect(shop.database) as other:
        other.execute("BEGIN")
        other.execute("UPDATE t SET v = 99 WHERE id = 1")
        shop.sql("UPDATE t SET v = 98 WHERE id = 2")
        assert [r["v"] for r in shop.read()] == [98]
        other.execute("COMMIT")
    assert [r["v"] for r in shop.read()] == [99]


def test_snapshot_goes_on_where_it_was(shop: Shop) -> None:
    shop.sql("INSERT INTO t SELECT g, g FROM generate_series(4, 100) g")
    log = shop.log(chunk_rows=30)
    with closing(log.read({"t": None})) as items:
        for item in items:
            shop.land(log, item)
            if isinstance(item, Boundary) and len(shop.events["t"]) >= 60:
                break
    assert shop.positions["t"]["snapshot"]["after"] == ["60"]
    shop.sql("UPDATE t SET v = -1 WHERE id IN (5, 80)")
    shop.read(chunk_rows=30)
    ids = [r["id"] for r in shop.events["t"] if r["_op"] == "read"]
    assert sorted(ids) == list(range(1, 101)), "a row was read twice, or not at all"
    assert shop.state("t", "id", "v") == {
        (i,): (i, -1 if i in (5, 80) else 10 * i if i < 4 else i) for i in range(1, 101)
    }


@pytest.mark.parametrize(
    ("key", "values"),
    some([
        ("k text", "SELECT chr(65 + g % 26) || '''\\' || g FROM generate_series(1, 50) g"),
        ("k int, l text", "SELECT g % 5, md5(g::text) FROM generate_series(1, 50) g"),
        ("k timestamptz", "SELECT '2020-01-01'::timestamptz + g * interval '1 minute' FROM generate_series(-25, 25) g"),
        ("k numeric", "SELECT g / 7.0 FROM generate_series(-25, 25) g UNION ALL SELECT 'NaN'"),
        ('k text COLLATE "C"', "SELECT chr(200 + g) FROM generate_series(1, 50) g"),
        ("k uuid", "SELECT md5(g::text)::uuid FROM generate_series(1, 50) g"),
        ("k bytea", "SELECT decode(md5(g::text), 'hex') FROM generate_series(1, 50) g"),
        ("k float8", "SELECT exp(g) FROM generate_series(-25, 25) g UNION ALL SELECT '-infinity'"),
    ], 2),
)  # fmt: skip
def test_snapshot_in_pieces_by_any_key(shop: Shop, key: str, values: str) -> None:
    names = [part.split()[0] for part in key.split(", ")]
    shop.sql(f"CREATE TABLE k ({key}, PRIMARY KEY ({', '.join(names)}))")
    shop.sql(f"INSERT INTO k {values}")
    shop.sql("SET timezone = 'America/New_York'")
    shop.tables, shop.events = {"k": tuple(names)}, {"k": []}
    rows = shop.read(chunk_rows=7)
    given = [tuple(str(row[name]) for name in names) for row in rows]
    assert len(given) == len(set(given)) == shop.sql("SELECT count(*) FROM k")[0][0]


def test_a_row_that_a_snapshot_does_not_see_yet_is_put_before_the_event(shop: Shop) -> None:
    """The commit record of the change stands before the mark of the piece, and its effect is not in the piece."""
    log = shop.log()
    with closing(log.read({"t": None})) as items:
        shop.land(log, next(items))  # caught up: the next look has a piece
        with hidden_commits(shop.server):
            thread = in_background(shop.server, shop.database, "UPDATE t SET v = 99 WHERE id = 2")
            shop.land(log, next(items))
            shop.land(log, next(items))
            shop.land(log, next(items))
        thread.join()
    rows = {(r["_op"], r["id"]): r for r in shop.events["t"]}
    assert rows["read", 2]["v"] == 20
    assert rows["read", 2]["_pos"] == rows["update", 2]["_pos"] < rows["read", 1]["_pos"]
    assert rows["read", 2]["_seq"] < 0
    assert shop.state("t", "id", "v")[2,] == (2, 99)


def test_a_piece_waits_for_transactions_that_an_earlier_look_gave(shop: Shop) -> None:
    """Their events are in the lake already: a row without them would come after them."""
    log = shop.log()
    with closing(log.read({"t": None})) as items:
        with hidden_commits(shop.server):
            with log.linked() as link:
                set_up(link, log, {"t": None})
            thread = in_background(shop.server, shop.database, "UPDATE t SET v = 99 WHERE id = 2")
            looks = [next(items)]
            while not isinstance(looks[-1], Boundary):
                looks.append(next(items))
            for item in looks:
                shop.land(log, item)
            assert [r["_op"] for r in shop.events["t"]] == ["update"]
            assert len(shop.positions["t"]["unseen"]) == 1
            shop.land(log, next(items))
            assert [r["_op"] for r in shop.events["t"]] == ["update"], "the piece did not wait"
        thread.join()
        for item in items:
            shop.land(log, item)
    assert shop.state("t", "id", "v")[2,] == (2, 99)
    assert shop.positions["t"]["snapshot"] is None


@pytest.mark.parametrize("mutant", ["low watermark", "unseen forgotten"])
def test_these_tests_notice_positions_that_are_taken_for_visibility(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, mutant: str
) -> None:
    """A test of the two tests above."""
    if mutant == "low watermark":
        monkeypatch.setattr(postgres_rows.Ranking, "note", lambda self, events: None)
        with pytest.raises(AssertionError):
            test_a_row_that_a_snapshot_does_not_see_yet_is_put_before_the_event(shop)
    else:
        monkeypatch.setattr(View, "unseen", lambda self, xids: [])
        with pytest.raises(AssertionError):
            test_a_piece_waits_for_transactions_that_an_earlier_look_gave(shop)


def test_a_table_that_is_emptied_while_it_is_read(shop: Shop) -> None:
    log = shop.log()
    with closing(log.read({"t": None})) as items:
        shop.land(log, next(items))
        shop.sql("TRUNCATE t")
        shop.sql("INSERT INTO t VALUES (1, 1)")
        for item in items:
            shop.land(log, item)
    assert shop.state("t", "id", "v") == {(1,): (1, 1)}


def test_snapshot_says_which_transaction_it_waits_for(shop: Shop) -> None:
    """A transaction that wrote before the table was watched: what it wrote is in no event."""
    shop.sql("CREATE TABLE u (id int PRIMARY KEY)")
    shop.read()
    shop.tables["u"], shop.events["u"] = ("id",), []
    with shop.server.connect(shop.database) as other:
        other.execute("BEGIN")
        other.execute("INSERT INTO u VALUES (1)")
        with pytest.raises(UnavailableError, match=r"waits for transactions to end .*process"):
            shop.read(shop.log(source={"resilience": IMPATIENT}))
        other.execute("COMMIT")
    shop.read()
    assert shop.state("u", "id") == {(1,): (1,)}


def test_a_new_slot_says_which_transaction_it_waits_for(shop: Shop) -> None:
    with shop.server.connect(shop.database) as other:
        other.execute("BEGIN")
        other.execute("INSERT INTO t VALUES (9, 9)")
        with pytest.raises(UnavailableError, match=r"could not be made within 1 s.*process"):
            shop.read(shop.log(source={"resilience": IMPATIENT}))
    assert shop.slot() == {}, "half a slot stayed behind"


def test_partitioned_tables_come_as_one(shop: Shop) -> None:
    shop.sql("CREATE TABLE p (id int, day date, v int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)")
    shop.sql("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')")
    shop.sql("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')")
    shop.sql("INSERT INTO p VALUES (1, '2020-05-05', 1), (2, '2021-05-05', 2)")
    shop.tables, shop.events = {"p": ("id", "day")}, {"p": []}
    shop.read()
    shop.sql("UPDATE p SET day = '2021-06-06' WHERE id = 1")
    shop.sql("CREATE TABLE p3 PARTITION OF p FOR VALUES FROM ('2022-01-01') TO ('2023-01-01')")
    shop.sql("INSERT INTO p VALUES (3, '2022-05-05', 3)")
    shop.read()
    assert sorted(k[0] for k in shop.state("p", "id", "day", "v")) == [1, 2, 3]


def test_rows_of_inheriting_tables_are_not_taken_for_the_table(shop: Shop) -> None:
    shop.sql("CREATE TABLE child () INHERITS (t)")
    shop.sql("INSERT INTO child VALUES (50, 50)")
    assert {r["id"] for r in shop.read()} == {1, 2, 3}
    shop.sql("INSERT INTO child VALUES (51, 51)")
    assert shop.read() == []
    assert any("inherit" in f.what for f in shop.log().preflight())


def test_another_run_is_said_to_follow_the_slot(shop: Shop) -> None:
    shop.read()
    with psycopg.connect(shop.server.dsn(shop.database), replication="database", autocommit=True) as other:
        command = b"START_REPLICATION SLOT etl_shop LOGICAL 0/0 (proto_version '1', publication_names 'etl_shop')"
        assert other.pgconn.exec_(command).status == psycopg.pq.ExecStatus.COPY_BOTH
        with pytest.raises(UnavailableError, match=r"another run follows slot etl_shop"):
            shop.read()
        other.pgconn.finish()
    shop.sql("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active")
    assert shop.read() == []


def test_batches_end_where_a_transaction_ends(shop: Shop) -> None:
    shop.read()
    for _ in range(5):
        shop.sql("UPDATE t SET v = v + 1")
    before = len(shop.boundaries)
    shop.read(max_changes=4)
    assert len(shop.boundaries) - before >= 5
    assert [r["_seq"] for r in shop.events["t"][-3:]] == sorted(r["_seq"] for r in shop.events["t"][-3:])
    assert shop.state("t", "id", "v")[1,] == (1, 15)


def test_what_took_as_long_as_the_rest_does_not_put_off_the_next_look(shop: Shop) -> None:
    """As a merge after a look does."""
    shop.read()
    log, looks, delays = shop.log(mode="continuous", every=1.0, lasts=60.0), 0, []
    began = time.monotonic()
    with closing(log.read(dict(shop.positions))) as items:
        for item in items:
            shop.land(log, item)
            if isinstance(item, Changes):
                delays.append(time.monotonic() - began)
                if len(delays) == 3:
                    break
            else:
                looks += 1
                shop.sql("UPDATE t SET v = v + 1")
                time.sleep(1.0)
                began = time.monotonic()
    assert looks == 3
    assert max(delays) < 0.5


def test_who_is_idle_asks_for_news_once_in_a_while(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.read()
    asked: list[float] = []
    has_news = postgres_reading.has_news

    def noted(*given: Any) -> bool:
        asked.append(time.monotonic())
        return has_news(*given)

    monkeypatch.setattr(postgres_reading, "has_news", noted)
    log = shop.log(mode="continuous", every=0.4, lasts=2.0)
    for item in log.read(dict(shop.positions)):
        shop.land(log, item)
    assert 3 <= len(asked) <= 6
    assert all(later - at > 0.35 for at, later in itertools.pairwise(asked[:-1]))


def test_continuous_mode_gives_what_comes_while_it_runs(shop: Shop) -> None:
    shop.read()
    seen = []
    threading.Timer(0.4, lambda: shop.sql("UPDATE t SET v = 77 WHERE id = 1")).start()
    log = shop.log(mode="continuous", every=0.05, lasts=1.5)
    begun = time.monotonic()
    for item in log.read(dict(shop.positions)):
        if isinstance(item, Changes):
            seen.append((time.monotonic() - begun, item.batch.data["v"].to_pylist()))
        shop.land(log, item)
    assert [values for _, values in seen] == [[77]]
    assert seen[0][0] < 1.2
    assert shop.boundaries[-1].caught_up


def test_a_cut_connection_is_made_again_between_two_looks(shop: Shop) -> None:
    shop.read()
    with wire_to(shop.server.port) as wire:
        log = shop.log(source={"port": wire.port}, mode="continuous", every=0.05, lasts=1.5)
        before, looks = len(shop.events["t"]), 0
        for item in log.read(dict(shop.positions)):
            shop.land(log, item)
            looks += isinstance(item, Boundary)
            if isinstance(item, Boundary) and looks == 1:
                wire.break_now()
                shop.sql("UPDATE t SET v = 77 WHERE id = 1")
        assert [r["v"] for r in shop.events["t"][before:]] == [77]


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="drop_beyond_cap"):
        PostgresLogCapture(drop_beyond_cap=True)
    with pytest.raises(ValueError, match="pattern"):
        PostgresLogCapture(slot="Has-Capitals")


def test_names_of_slots_stay_different() -> None:
    names = [default_name(name) for name in ("shop", "Shop", "sh-op", "sh_op", "x" * 80, "x" * 81)]
    assert names[0] == "etl_shop"
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for name in names)


def test_visibility_minds_the_wrap_of_transaction_numbers() -> None:
    view = View.parse(f"{2**33 + 5}:{2**33 + 20}:{2**33 + 5},{2**33 + 7}")
    assert view.unseen([4, 5, 6, 7, 19, 20, 2**32 - 1]) == [2**33 + 5, 2**33 + 7, 2**33 + 20]
    assert View.parse(str(view)) == view


def test_history_of_timelines_is_read() -> None:
    text = "1\t0/5000000\tno recovery target specified\n\n2\t1/A000060\tafter LSN\n"
    assert postgres_history.parsed(text) == {1: 0x5000000, 2: 0x10A000060}
