"""Writing PostgreSQL: all or nothing, nothing twice, no row lost, and only what differs is written."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from etl_resources.exceptions import (
    ConfigurationError,
    EngineError,
    ErrorBudgetExceededError,
    RowsNotConservedError,
    SchemaConflictError,
    UnavailableError,
)
from etl_resources.postgres_session import Session
from etl_resources.target import CommitToken, Counts, Load, Mode
from etl_resources.targets import postgres_commits, postgres_refusals, postgres_staging
from etl_resources.targets.postgres import PostgresTarget, PostgresTargetOptions
from tests.forks import KILLED, Forks, forking
from tests.servers.postgres import PostgresServer

__all__ = ["forking"]


class Table:
    """A table of the test's own database, and loads into it."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.client = server.connect(database)
        self.target = PostgresTarget(**server.settings(database))
        self.version = 0
        self.refused: list[dict[str, str]] = []

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        cursor = self.client.execute(statement)
        return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[tuple[Any, ...]]:
        return self.sql("SELECT * FROM t ORDER BY 1")

    def load(self, data: pa.Table, mode: Mode, *, key: tuple[str, ...] = ("id",), rows: int = 10_000) -> Counts:
        self.version += 1
        return self.target.write(self.make(data.schema, mode, key), data.to_batches(max_chunksize=rows))

    def make(self, schema: pa.Schema, mode: Mode, key: tuple[str, ...], table: str = "t") -> Load:
        def keep(rows: pa.Table) -> None:
            self.refused += rows.to_pylist()

        token = CommitToken("app", self.version, f"run {self.version}")
        return Load(PostgresTargetOptions(type="postgres", table=table), schema, mode, token, key, keep)


@pytest.fixture
def table(postgres_server: PostgresServer, postgres_database: str) -> Iterator[Table]:
    made = Table(postgres_server, postgres_database)
    yield made
    made.client.close()


def data(*rows: tuple[int | None, str | None]) -> pa.Table:
    return pa.table(
        {"id": pa.array([r[0] for r in rows], pa.int64()), "name": pa.array([r[1] for r in rows], pa.string())}
    )


def many(rows: int, name: str = "name", first: int = 0) -> pa.Table:
    return pa.table({"id": pa.arange(first, first + rows), "name": pa.array([name] * rows)})


@pytest.mark.parametrize("mode", ["upsert", "replace"])
def test_unchanged_rows_are_not_written_again(table: Table, mode: Mode) -> None:
    """A row version that stays costs no WAL, no bloat and no trigger: its ctid and xmin are what they were."""
    table.load(data((1, "a"), (2, "b"), (3, None)), mode)
    before = dict(table.sql("SELECT id, (ctid, xmin)::text FROM t"))
    counts = table.load(data((1, "a"), (2, "B"), (3, None), (4, "d")), mode)
    after = dict(table.sql("SELECT id, (ctid, xmin)::text FROM t"))
    assert (counts.inserted, counts.updated, counts.unchanged, counts.deleted) == (1, 1, 2, 0)
    assert [after[n] == before[n] for n in (1, 2, 3)] == [True, False, True]
    assert table.rows() == [(1, "a"), (2, "B"), (3, None), (4, "d")]


def test_differences_are_seen_in_every_type(table: Table) -> None:
    """Also in those that have no equality, and where the equality of the type says that there is none."""
    table.sql("CREATE TABLE t (id bigint PRIMARY KEY, j json, f float8, c varchar(9))")
    schema = pa.schema([("id", pa.int64()), ("j", pa.string()), ("f", pa.float64()), ("c", pa.string())])
    nan = float("nan")
    rows = [{"id": 1, "j": '{"a":1}', "f": nan, "c": "a"}, {"id": 2, "j": None, "f": None, "c": None}]
    table.load(pa.Table.from_pylist(rows, schema=schema), "upsert")
    assert table.load(pa.Table.from_pylist(rows, schema=schema), "upsert").unchanged == 2
    changed = [{**rows[0], "j": '{"a":2}'}, {**rows[1], "c": ""}]
    assert table.load(pa.Table.from_pylist(changed, schema=schema), "upsert").updated == 2


def test_the_last_version_of_a_key_wins_and_the_others_are_counted(table: Table) -> None:
    counts = table.load(data((1, "a"), (2, "b"), (1, "c"), (1, "d")), "upsert")
    assert (counts.read, counts.inserted, counts.superseded) == (4, 2, 2)
    assert table.rows() == [(1, "d"), (2, "b")]


def test_replace_by_key_deletes_what_is_not_in_the_load(table: Table) -> None:
    table.load(data((1, "a"), (2, "b"), (3, "c")), "replace")
    counts = table.load(data((2, "b"), (4, "d")), "replace")
    assert (counts.inserted, counts.unchanged, counts.deleted) == (1, 1, 2)
    assert table.rows() == [(2, "b"), (4, "d")]


def test_replace_without_a_key_replaces_all(table: Table) -> None:
    table.load(data((1, "a"), (1, "a")), "replace", key=())
    counts = table.load(data((1, "a"), (2, "b")), "replace", key=())
    assert (counts.inserted, counts.deleted) == (2, 2)
    assert table.rows() == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("key", [(), ("id",)])
def test_a_reader_never_sees_an_empty_or_half_table(table: Table, postgres_server: PostgresServer, key: Any) -> None:
    """Neither during a replace, nor with a snapshot that is older than it."""
    table.load(many(1_500, "v0"), "replace", key=key)
    seen: set[tuple[int, int]] = set()
    done = threading.Event()

    def watch() -> None:
        with psycopg.connect(postgres_server.dsn(table.target.database), autocommit=True) as c:
            while not done.is_set():
                seen.add(c.execute("SELECT count(*), count(DISTINCT name) FROM t").fetchone())  # type: ignore[arg-type]

    watcher = threading.Thread(target=watch)
    with psycopg.connect(postgres_server.dsn(table.target.database)) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT 1")
        watcher.start()
        for n in range(1, 4):
            table.load(many(1_500, f"v{n}"), "replace", key=key)
        done.set()
        watcher.join()
        assert old.execute("SELECT count(*), min(name) FROM t").fetchone() == (1_500, "v0")
    assert seen == {(1_500, 1)}


def test_the_token_and_the_account_are_in_the_transaction_of_the_rows(table: Table) -> None:
    counts = table.load(data((1, "a"), (1, "b"), (2, "c")), "upsert")
    ((app, version, run, name, mode, account),) = table.sql(
        "SELECT app_id, version, run_id, target, mode, account FROM _etl_commits"
    )
    assert (app, version, run, name, mode) == ("app", 1, "run 1", "t", "upsert")
    assert account == {
        "read": 3, "inserted": 2, "updated": 0, "unchanged": 0, "superseded": 1, "deleted": 0, "rejected": {},
    }  # fmt: skip
    assert counts.read == account["read"]


def test_two_loads_of_one_token_at_once_are_applied_once(table: Table) -> None:
    table.load(data((0, "x")), "append", key=())
    table.version += 1
    load = table.make(data().schema, "append", ())
    results: list[Counts] = []
    threads = [
        threading.Thread(target=lambda: results.append(table.target.write(load, many(5000, first=1).to_batches())))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts.already_committed for counts in results) == [False, True, True, True]
    assert table.sql("SELECT count(*) FROM t") == [(5001,)]


def test_first_loads_into_one_schema_at_once_all_succeed(table: Table) -> None:
    """All of them find that `_etl_commits` is not there."""
    errors: list[BaseException] = []

    def write(n: int) -> None:
        options = PostgresTargetOptions(type="postgres", table=f"t{n}")
        try:
            table.target.write(
                Load(options, data().schema, "append", CommitToken(f"app {n}", 1, "r")), data((n, "")).to_batches()
            )
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert table.sql("SELECT count(*) FROM _etl_commits") == [(4,)]


@pytest.mark.parametrize("key", [("id",), pytest.param((), marks=pytest.mark.soak)])
def test_a_connection_that_breaks_at_any_statement_leaves_all_or_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch, key: Any
) -> None:
    """The server ends the session before the first, the second … the last statement; then the load is run again."""
    table.load(data((1, "old"), (9, "old")), "replace", key=key)
    new = data((1, "new"), (2, "new"))
    calls = {"left": 0, "made": 0}

    def breaking(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(session: Session, *args: Any) -> Any:
            calls["made"] += 1
            if calls["made"] == calls["left"]:
                table.sql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'etl'")
            return method(session, *args)

        return run

    for name in ("execute", "rows", "copy"):
        monkeypatch.setattr(Session, name, breaking(getattr(Session, name)))
    for n in range(1, 200):
        table.version = 2
        calls.update(left=n, made=0)
        try:
            counts = table.target.write(table.make(new.schema, "replace", key), new.to_batches())
        except UnavailableError:
            assert table.rows() == [(1, "old"), (9, "old")]
            assert table.sql("SELECT max(version) FROM _etl_commits") == [(1,)]
        else:
            break
    assert calls["made"] < n, "the last round ran undisturbed"
    assert n > 10
    assert (counts.read, counts.deleted) == (2, 1 if key else 2)
    assert table.rows() == [(1, "new"), (2, "new")]


def load_and_die(settings: dict[str, Any]) -> None:
    """Run in a process of its own: load until nothing is left to do but to commit."""
    record = postgres_commits.record

    def die(*given: Any) -> None:
        record(*given)
        os.kill(os.getpid(), signal.SIGKILL)

    postgres_commits.record = die  # type: ignore[assignment]
    schema = data().schema
    batches = (batch for n in range(3) for batch in many(10_000, "new", n * 10_000).to_batches())
    options = PostgresTargetOptions(type="postgres", table="t")
    load = Load(options, schema, "replace", CommitToken("app", 2, "r"), ("id",))
    PostgresTarget(**settings).write(load, batches)


def test_a_client_that_is_killed_before_the_commit_leaves_nothing(
    table: Table, postgres_server: PostgresServer, forks: Forks
) -> None:
    table.load(data((1, "old")), "replace")
    assert forks.start(load_and_die, settings=postgres_server.settings(table.target.database)).wait() == KILLED
    for _ in range(500):  # the server notices that the client is gone, and rolls back
        if table.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'etl'") == [(0,)]:
            break
        time.sleep(0.02)
    assert table.rows() == [(1, "old")]
    assert table.sql("SELECT max(version) FROM _etl_commits") == [(1,)]
    assert table.sql("SELECT relname FROM pg_class WHERE relname IN ('_etl_stage', '_etl_wire')") == []


REFUSALS: list[tuple[str, str, str]] = [
    ("id bigint, name text CHECK (name <> 'bad')", "bad", "check.t_name_check"),
    ("id bigint, name text UNIQUE", "good 5", "unique.t_name_key"),
    ("id bigint, name varchar(9)", "bad: too long", "length"),
    ("id bigint, name char(6)", "bad: too long", "length"),
    ("id bigint, name text NOT NULL", "", "not_null.name"),
    ("id bigint, name mood", "bad", "format"),
    ("id bigint, name short", "bad: too long", "length"),
    ("id bigint, name text REFERENCES parents", "bad", "foreign_key.t_name_fkey"),
    ("id bigint, name text", "bad \x00 byte", "encoding"),
]


def _refusals() -> Iterator[Any]:
    """Yield every rule for an append, and two of them for an upsert as well; the soak has all for both."""
    for number, (columns, bad, rule) in enumerate(REFUSALS):
        for key in ((), ("id",)):
            marks = [pytest.mark.soak] if key and number > 1 else []
            yield pytest.param(columns, bad, rule, key, marks=marks, id=f"{columns}-{'upsert' if key else 'append'}")


@pytest.mark.parametrize(("columns", "bad", "rule", "key"), _refusals())
def test_a_refused_row_is_handed_over_and_all_others_load(
    table: Table, columns: str, bad: str, rule: str, key: Any
) -> None:
    table.sql("CREATE TYPE mood AS ENUM ('good 0', 'good 1', 'good 2', 'good 3', 'good 4', 'good 5', 'good 6')")
    table.sql("CREATE DOMAIN short AS varchar(9)")
    table.sql("CREATE TABLE parents (name text PRIMARY KEY)")
    table.sql("INSERT INTO parents SELECT 'good ' || n FROM generate_series(0, 999) n")
    table.sql(f"CREATE TABLE t ({columns}, PRIMARY KEY (id))" if key else f"CREATE TABLE t ({columns})")
    rows: list[tuple[int | None, str | None]] = [(n, f"good {n % 7}") for n in range(7)]
    rows.insert(6, (100, bad or None))
    counts = table.load(data(*rows), "upsert" if key else "append", key=key)
    assert (counts.read, counts.inserted, counts.rejected) == (8, 7, {rule: 1})
    assert [str(name).strip() for (name,) in table.sql("SELECT name::text FROM t ORDER BY id")] == [
        f"good {n}" for n in range(7)
    ]
    (refused,) = table.refused
    assert refused["rule"] == rule
    assert refused["reason"]
    assert json.loads(refused["record"]) == {"id": 100, "name": bad or None}


def test_many_refused_rows_among_many_good_ones(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when they are spread over several COPYs; the good ones are not inserted one by one."""
    monkeypatch.setattr(postgres_staging, "_COPY_ROWS", 6_000)
    table.sql("CREATE TABLE t (id bigint PRIMARY KEY, name text, CHECK (id % 1997 <> 5))")
    bad = list(range(5, 10_000, 1997))
    for mode in ("append", "upsert"):
        table.sql("TRUNCATE t")
        table.refused.clear()
        counts = table.load(many(10_000), mode)  # type: ignore[arg-type]
        assert (counts.inserted, counts.rejected) == (10_000 - len(bad), {"check.t_id_check": len(bad)})
        assert sorted(json.loads(r["record"])["id"] for r in table.refused) == bad


def test_a_refused_update_keeps_the_row_in_an_upsert_and_drops_it_in_a_replace(table: Table) -> None:
    """What a table holds after a replace depends on the load alone."""
    table.sql("CREATE TABLE t (id bigint PRIMARY KEY, name text CHECK (name <> 'bad'))")
    table.load(data((1, "a"), (2, "b")), "upsert")
    assert table.load(data((1, "bad"), (2, "c")), "upsert").rejected == {"check.t_name_check": 1}
    assert table.rows() == [(1, "a"), (2, "c")]
    counts = table.load(data((1, "bad"), (2, "c")), "replace")
    assert (counts.unchanged, counts.deleted, sum(counts.rejected.values())) == (1, 1, 1)
    assert table.rows() == [(2, "c")]


def test_a_row_that_no_key_identifies_is_refused(table: Table) -> None:
    counts = table.load(data((None, "a"), (1, "b")), "upsert")
    assert (counts.inserted, counts.rejected) == (1, {"not_null.id": 1})
    assert json.loads(table.refused[0]["record"]) == {"id": None, "name": "a"}


def test_rows_that_need_each_other_are_not_refused(table: Table) -> None:
    """A child before its parent, beside a row that is really bad; a unique value that another row gives up."""
    table.sql("CREATE TABLE t (id bigint PRIMARY KEY, parent bigint REFERENCES t, CHECK (id <> 5))")
    schema = pa.schema([("id", pa.int64()), ("parent", pa.int64())])
    rows = [{"id": 1, "parent": 9}, {"id": 2, "parent": 1}, {"id": 5, "parent": None}, {"id": 9, "parent": None}]
    counts = table.load(pa.Table.from_pylist(rows, schema=schema), "upsert")
    assert (counts.inserted, counts.rejected) == (3, {"check.t_id_check": 1})
    table.sql("DROP TABLE t; CREATE TABLE t (id bigint PRIMARY KEY, name text UNIQUE)")
    table.load(data((1, "a"), (2, "b"), (3, "c")), "upsert")
    counts = table.load(data((1, "b"), (2, "c"), (3, "d")), "upsert")
    assert (counts.updated, counts.rejected) == (3, {})


def test_a_refused_row_that_nobody_takes_fails_the_load(table: Table) -> None:
    table.sql("CREATE TABLE t (id bigint, name text CHECK (name <> 'bad'))")
    options = PostgresTargetOptions(type="postgres", table="t")
    rows = data((1, "a"), (2, "bad"))
    with pytest.raises(EngineError, match="t_name_check"):
        table.target.write(Load(options, rows.schema, "append", CommitToken("app", 1, "r")), rows.to_batches())
    assert table.rows() == []


def test_a_budget_of_refused_rows_stops_the_load_before_it_commits(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`on_refused` is called while the load goes on, not only at its end."""
    monkeypatch.setattr(postgres_refusals, "_HAND_OVER", 20)
    table.sql("CREATE TABLE t (id bigint CHECK (id < 0), name text)")
    handed: list[int] = []

    def spend(rows: pa.Table) -> None:
        handed.append(rows.num_rows)
        raise ErrorBudgetExceededError("too many", where="test")

    load = table.make(data().schema, "append", ())
    with pytest.raises(ErrorBudgetExceededError):
        table.target.write(Load(load.options, load.schema, "append", load.token, (), spend), many(40).to_batches())
    assert handed == [20]
    assert table.rows() == []


@pytest.mark.parametrize("key", [(), ("id",)])
def test_a_trigger_that_swallows_rows_fails_the_load(table: Table, key: Any) -> None:
    table.sql("CREATE TABLE t (id bigint PRIMARY KEY, name text)")
    table.sql("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    table.sql("CREATE TRIGGER s BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = 2) EXECUTE FUNCTION swallow()")
    with pytest.raises(RowsNotConservedError):
        table.load(data((1, "a"), (2, "b")), "upsert" if key else "append", key=key)
    assert table.rows() == []
    assert table.sql("SELECT to_regclass('_etl_commits')") == [(None,)]


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_missing_columns_are_added_and_none_is_dropped(table: Table, mode: Mode) -> None:
    table.sql("CREATE TABLE t (id bigint PRIMARY KEY, own text DEFAULT 'mine')")
    table.load(data((1, "a")), mode, key=() if mode == "append" else ("id",))
    assert table.sql("SELECT id, own, name FROM t") == [(1, "mine", "a")]


def test_a_reader_is_not_locked_out_while_rows_for_new_columns_arrive(table: Table) -> None:
    table.sql("CREATE TABLE t (id bigint)")
    rows = data((1, "a"))

    def batches() -> Iterator[pa.RecordBatch]:
        table.sql("SET lock_timeout = '2s'")
        assert table.sql("SELECT count(*) FROM t") == [(0,)]
        yield from rows.to_batches()
        assert table.sql("SELECT count(*) FROM t") == [(0,)]

    table.target.write(table.make(rows.schema, "append", ()), batches())
    assert table.rows() == [(1, "a")]


SERVERS_NAMES = {
    "timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone",
    "timestamp(0)": "timestamp(0) without time zone", "varchar(3)[]": "character varying(3)[]",
    "bigint GENERATED ALWAYS AS (1) STORED": "generated",
}  # fmt: skip
FITS = [
    # sent, column, value, what is stored (None: the conflict is raised)
    (pa.int64(), "integer", 7, "7"),
    (pa.int64(), "numeric(5,1)", 7, "7.0"),
    (pa.int64(), "double precision", 7, None),
    (pa.int32(), "double precision", 7, "7"),
    (pa.uint64(), "numeric", 2**64 - 1, str(2**64 - 1)),
    (pa.float64(), "real", 0.1, None),
    (pa.float64(), "numeric(10,2)", 0.1, None),
    (pa.float64(), "integer", 1.5, None),
    (pa.float32(), "double precision", 0.5, "0.5"),
    (pa.decimal128(10, 2), "numeric(12,2)", "1.25", "1.25"),
    (pa.decimal128(10, 2), "numeric(12,4)", "1.25", "1.2500"),
    (pa.decimal128(10, 4), "numeric(12,2)", "1.2345", None),
    (pa.decimal128(10, 0), "bigint", "7", "7"),
    (pa.decimal128(10, 2), "integer", "1.25", None),
    (pa.string(), "varchar(3)", "abc", "abc"),
    (pa.string(), "uuid", "6F0E9F0E-0000-4000-8000-000000000001", "6f0e9f0e-0000-4000-8000-000000000001"),
    (pa.string(), "jsonb", '{"a":1}', '{"a": 1}'),
    (pa.string(), "numeric", "1e-30", "0.000000000000000000000000000001"),
    (pa.string(), "numeric(10,2)", "1.239", None),
    (pa.string(), "integer", "7", None),
    (pa.string(), "timestamp", "2024-01-01", None),
    (pa.string(), "varchar(3)[]", "a", None),
    (pa.list_(pa.string()), "varchar(3)[]", ["a", "bc"], "{a,bc}"),
    (pa.list_(pa.int64()), "bigint[]", [1, None], "{1,NULL}"),
    (pa.list_(pa.int64()), "integer[]", [1, 2], "{1,2}"),
    (pa.list_(pa.int64()), "bigint", [1], None),
    (pa.timestamp("us"), "timestamp", datetime(2024, 1, 1), "2024-01-01 00:00:00"),
    (pa.timestamp("us"), "timestamptz", datetime(2024, 1, 1), None),
    (pa.timestamp("us", "UTC"), "timestamp", datetime(2024, 1, 1), None),
    (pa.timestamp("us"), "timestamp(0)", datetime(2024, 1, 1), None),
    (pa.timestamp("us"), "date", datetime(2024, 1, 1), None),
    (pa.date32(), "timestamp", datetime(2024, 1, 1).date(), "2024-01-01 00:00:00"),
    (pa.bool_(), "integer", True, None),
    (pa.binary(), "bytea", b"\x00\xff", "\\x00ff"),
    (pa.binary(), "text", b"a", None),
    (pa.int64(), "text", 7, "7"),
    (pa.struct([("a", pa.int64())]), "jsonb", {"a": 1}, '{"a": 1}'),
    (pa.struct([("a", pa.int64())]), "integer", {"a": 1}, None),
    (pa.dictionary(pa.int8(), pa.string()), "text", "x", "x"),
    (pa.large_string(), "text", "x", "x"),
    (pa.int64(), "bigint GENERATED ALWAYS AS (1) STORED", 1, None),
    (pa.int64(), "bigint GENERATED ALWAYS AS IDENTITY", 5, "5"),
]


def columns_of(*fits: tuple[pa.DataType, str, Any, str | None]) -> tuple[str, pa.Table]:
    """Return the columns of a table, and a row for it."""
    values = {
        f"v{n}": pa.array([value], pa.string()).cast(sent) if pa.types.is_decimal(sent) else pa.array([value], sent)
        for n, (sent, _, value, _) in enumerate(fits)
    }
    columns = ", ".join(f"v{n} {column}" for n, (_, column, _, _) in enumerate(fits))
    return f"id bigint PRIMARY KEY, {columns}", pa.table({"id": [1], **values})


@pytest.mark.parametrize("key", [(), ("id",)])
def test_a_value_that_fits_is_stored_as_it_is(table: Table, key: Any) -> None:
    fits = [fit for fit in FITS if fit[3] is not None]
    columns, row = columns_of(*fits)
    table.sql(f"CREATE TABLE t ({columns})")
    assert table.load(row, "upsert" if key else "append", key=key).inserted == 1
    texts = ", ".join(f"v{n}::text" for n in range(len(fits)))
    (found,) = table.sql(f"SELECT {texts} FROM t")
    assert [*zip(fits, found, strict=True)] == [(fit, fit[3]) for fit in fits]


@pytest.mark.parametrize("key", [(), ("id",)])
def test_a_value_that_does_not_fit_is_a_conflict_that_names_column_and_both_types(table: Table, key: Any) -> None:
    """What the server would round, cut or reinterpret in silence."""
    fits = [fit for fit in FITS if fit[3] is None]
    columns, row = columns_of(*fits)
    table.sql(f"CREATE TABLE t ({columns})")
    with pytest.raises(SchemaConflictError) as caught:
        table.load(row, "upsert" if key else "append", key=key)
    for n, (sent, column, _, _) in enumerate(fits):
        (told,) = [part for part in str(caught.value).split("column ") if part.startswith(f"v{n} is ")]
        assert str(sent) in told
        assert SERVERS_NAMES.get(column, column) in told
    assert table.rows() == []


@pytest.mark.parametrize("key", [(), ("id",)])
def test_moments_finer_than_the_servers_are_a_conflict(table: Table, key: Any) -> None:
    columns, row = columns_of((pa.timestamp("ns"), "timestamp", 1, None))
    table.sql(f"CREATE TABLE t ({columns})")
    with pytest.raises(SchemaConflictError, match=r"column v0: timestamp\[ns\] is finer"):
        table.load(row, "upsert" if key else "append", key=key)


def test_all_conflicts_are_told_at_once(table: Table) -> None:
    table.sql("CREATE TABLE t (id date, name integer)")
    with pytest.raises(SchemaConflictError, match=r"column id is int64 .* date .*column name is string .* integer"):
        table.load(data((1, "a")), "append")


def test_an_upsert_needs_a_key_that_the_database_backs(table: Table) -> None:
    with pytest.raises(ConfigurationError, match="needs a key"):
        table.load(data((1, "a")), "upsert", key=())
    table.sql("CREATE TABLE t (id bigint, name text)")
    table.sql("CREATE UNIQUE INDEX ON t (id) WHERE name IS NULL")
    with pytest.raises(ConfigurationError, match=r"nothing in public\.t says that id is unique") as caught:
        table.load(data((1, "a")), "upsert")
    table.sql(caught.value.fix)
    assert table.load(data((1, "a")), "upsert").inserted == 1


def test_names_that_need_quotes_are_quoted(table: Table) -> None:
    table.sql('CREATE SCHEMA "O\'Hara"')
    rows = pa.table({'x" {y}': [1], "from": ["it's \\ ok"]})
    load = table.make(rows.schema, "replace", ('x" {y}',), """O'Hara."a.b""{c}\"""")
    assert table.target.write(load, rows.to_batches()).inserted == 1
    assert table.sql("""SELECT "x"" {y}", "from" FROM "O'Hara"."a.b""{c}\"""") == [(1, "it's \\ ok")]
    assert table.target.committed_version(load.options, "app") == 0


def test_a_batch_with_other_columns_than_the_load_is_refused(table: Table) -> None:
    with pytest.raises(SchemaConflictError, match="a batch has the columns"):
        table.target.write(table.make(data().schema, "append", ()), pa.table({"id": [1]}).to_batches())
    assert table.sql("SELECT to_regclass('t')") == [(None,)]
