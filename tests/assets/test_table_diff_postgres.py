"""Tables of a real PostgreSQL, whose rows it hashes itself: no change is missed, and none is made up."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from etl_assets import table_diff_look
from etl_assets.bronze import Bronze
from etl_assets.table_diff import TableDiff
from etl_resources.exceptions import EtlError, RowsNotConservedError
from etl_resources.source import Snapshot, Stream
from etl_resources.sources import postgres_hashes
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from tests.assets.cli.conftest import REPOSITORY, Shop
from tests.assets.diff_table import DiffTable
from tests.assets.doubles import new_run
from tests.assets.test_capture_postgres import CONNECTIONS
from tests.conformance.cases import TYPE_CASES, TypeCase
from tests.conformance.implementations.postgres import PostgresSourceHarness
from tests.servers.postgres import PostgresServer, shared_postgres
from tests.servers.proxy import wire_to
from tests.soaking import some


class Case:
    """A database, and the log of its table `t`."""

    def __init__(self, folder: Path) -> None:
        self.server: PostgresServer = shared_postgres()
        self.database = self.server.database()
        self.client = self.server.connect(self.database)
        self.table = DiffTable(folder, name="t")

    def do(self, *statements: str) -> None:
        for statement in statements:
            self.client.execute(statement)

    def look(
        self, key: tuple[str, ...] = ("id",), *, hashes: Any = "auto", port: int | None = None, **options: Any
    ) -> str:
        """Look at the table once; returns the account."""
        settings = self.server.settings(self.database, **({"port": port} if port else {}))
        stream = Stream("t", PostgresStreamOptions(type="postgres", **(options or {"table": "t"})), Snapshot())
        diff = TableDiff(Bronze(self.table.lake, "test", stream), key, self.table.engine, hashes=hashes)
        return str(diff.land(PostgresSource(**settings), new_run()).account)

    def agree(self, *columns: str) -> None:
        """Fail unless silver is what the database has."""
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        there = self.client.execute(sql.SQL("SELECT {} FROM t").format(names)).fetchall()
        here = [tuple(row[name] for name in columns) for row in self.table.state()]
        assert sorted(map(repr, here)) == sorted(map(repr, there))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresSourceHarness]:
    made = PostgresSourceHarness(tmp_path_factory.mktemp("harness"))
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("type_case", some(TYPE_CASES, 2), ids=lambda one: one.name)
def test_every_type_of_the_conformance_suite(
    harness: PostgresSourceHarness, tmp_path: Path, type_case: TypeCase
) -> None:
    """Nothing changed: no event. Each value moved to the next row: an event where it is another, and nowhere else."""
    name, values = f"diff_{type_case.name}", list(type_case.values)
    source, stream = harness.fill(name, type_case.table())
    assert isinstance(source, PostgresSource)
    log = DiffTable(tmp_path)
    diff = TableDiff(Bronze(log.lake, "test", Stream("things", stream.options, Snapshot())), ("id",), log.engine)

    def look() -> Any:
        return diff.land(source, new_run()).account

    assert look().inserted == len(values)
    assert str(look()) == f"unchanged {len(values)}"
    moved = [*values[1:], values[0]]
    with harness.server.connect(harness.database) as client:
        client.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(name)))
    harness.extend(name, TypeCase(name, type_case.type, tuple(moved)).table())
    different = sum(repr(old) != repr(new) for old, new in zip(values, moved, strict=True))
    assert look().inserted == different
    assert str(look()) == f"unchanged {len(values)}"


ODD = [
    ("double precision", "'NaN'", "'0'", "'-0'", "'Infinity'"),
    ("real", "'-0'", "'0'", "'0.1'"),
    ("numeric", "1.0", "1.00", "1", "'NaN'"),
    ("numeric(10, 2)", "1.0", "1.01", "-1.01"),
    ("int8", "-5", "4294967291", "0", "4294967297"),
    ("timestamp", "'2000-01-01'", "'2000-01-01 01:11:34.967297'"),
    ("timestamptz", "'2000-01-01 00:00+00'", "'2000-01-01 01:11:34.967297+00'"),
    ("text", "''", "NULL", "'NULL'", "'a'", "'A'"),
    ("text", "'A'", "'a '", "E'e\\u0301'", "'é'"),
    ("char(3)", "'a'", "'b'", "''", "NULL"),
    ("interval", "'24 hours'", "'1 day'", "'1 mon'", "'30 days'"),
    ("jsonb", "'{\"a\": 1.0}'", "'{\"a\": 1.00}'", "'null'", "NULL"),
    ("json", "'{\"a\":1}'", "'{\"a\": 1}'"),
    ("numeric[]", "'{1.0}'", "'{1.00}'", "'{}'", "'{NULL}'", "NULL"),
    ("text[]", "'{a,b}'", "'{\"a,b\"}'", "'{NULL}'", "'{\"NULL\"}'"),
    ("float8[]", "'{0}'", "'{-0}'"),
    ("numrange", "'[1.0,2)'", "'[1.00,2)'", "'empty'"),
    ("bytea", "''", "'\\x00'", "NULL"),
    ("uuid", "'00000000-0000-0000-0000-000000000000'", "NULL"),
    ("inet", "'10.0.0.1'", "'10.0.0.1/8'"),
    ("money", "1.00", "1.01"),
    ("xml", "'<a/>'", "'<a></a>'"),
    ("point", "'(0,0)'", "'(-0,0)'"),
    ("bit(3)", "'101'", "'100'"),
    ("time", "'12:00'", "'12:00:00.000001'"),
    ("timetz", "'12:00+00'", "'13:00+01'"),
    ("mood", "'good'", "'bad'"),
    ("pair", "ROW(1.0, 'x')", "ROW(1.00, 'x')", "ROW(NULL, NULL)", "NULL"),
    ("price", "1.5", "1.6"),
    ("loose", "'a'", "'A'"),
]
TYPES = """
    CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TYPE pair AS (a numeric, b text);
    CREATE DOMAIN price AS numeric(8, 2);
    CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE DOMAIN loose AS text COLLATE blind;
"""


@pytest.mark.parametrize(
    "from_14",
    [pytest.param(True, id="hash_record_extended"), pytest.param(False, id="before 14", marks=pytest.mark.soak)],
)
def test_values_that_are_equal_and_do_not_look_the_same(
    case: Case, monkeypatch: pytest.MonkeyPatch, from_14: bool
) -> None:
    """All columns of one table at a time: the values of each go round, one step per look."""
    if not from_14:
        monkeypatch.setattr(postgres_hashes, "RECORDS_SINCE", 99)
    columns = [(f"c{at}", kind, values) for at, (kind, *values) in enumerate(ODD)]
    case.do(TYPES, f"CREATE TABLE t (id int PRIMARY KEY, {', '.join(f'{name} {kind}' for name, kind, _ in columns)})")
    for at, (name, _, values) in enumerate(columns):
        case.do(f"INSERT INTO t (id, {name}) VALUES ({at}, {values[0]})")
    case.look()
    for step in range(1, max(len(values) for _, _, values in columns)):
        changed = [(at, name, values[step]) for at, (name, _, values) in enumerate(columns) if step < len(values)]
        for at, name, value in changed:
            case.do(f"UPDATE t SET {name} = {value} WHERE id = {at}")
        found, events = case.look(), case.table.events()
        newest = max(event[2] for event in events)
        assert {event[0] for event in events if event[2] == newest} == {at for at, _, _ in changed}, found
    assert case.look() == f"unchanged {len(columns)}"


@pytest.mark.parametrize(
    ("kind", "old", "new"), some([("float8", "0", "'-0'"), ("int8", "-5", "4294967291"), ("numeric", "1", "-1")], 1)
)
def test_hashing_columns_as_they_are_would_miss_changes(
    case: Case, monkeypatch: pytest.MonkeyPatch, kind: str, old: str, new: str
) -> None:
    """A mutant, and the reason for `hashed_form`."""
    monkeypatch.setattr(postgres_hashes, "hashed_form", lambda column: f't."{column.name}"')
    case.do(f"CREATE TABLE t (id int, v {kind})", f"INSERT INTO t VALUES (1, {old})")
    case.look()
    case.do(f"UPDATE t SET v = {new}")
    assert case.look() == "unchanged 1"


def test_only_what_has_changed_is_moved(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.do("CREATE TABLE t AS SELECT n AS id, repeat('x', 500) AS v FROM generate_series(1, 8000) n")
    case.look()
    case.do("UPDATE t SET v = 'changed' WHERE id % 400 = 0")
    with wire_to(case.server.port) as wire:
        assert case.look(port=wire.port) == "inserted 20 + unchanged 7980"
        assert wire.received < 400_000, "500 bytes a row would be ten times as much"


KEYS: dict[str, list[Any]] = {
    "int4": [1, -2, 3],
    "text": ["", '"', "\\", "'", "a,b", "{}", "NULL"],
    "uuid": ["00000000-0000-0000-0000-000000000001"],
    "numeric": ["1.0", "1.5"],
    "timestamptz": ["2024-01-01 00:00:00.000001+00"],
    "date": ["2024-02-29"],
    "char(3)": ["a", "b"],
    "bytea": [b"\x00", b"a"],
    "float8": [0.1, 1.0],
}


@pytest.mark.parametrize(
    "kinds", some([pytest.param(kinds, id=" ".join(kinds)) for kinds in [tuple(KEYS), *((kind,) for kind in KEYS)]], 1)
)
def test_rows_are_found_again_by_keys_of_any_type(case: Case, kinds: tuple[str, ...]) -> None:
    """Of all types together: a part of the key that does not come back as it was hides every row."""
    columns = [f"k{at}" for at in range(len(kinds))]
    rows = max(len(KEYS[kind]) for kind in kinds)
    declared = ", ".join(f"{name} {kind}" for name, kind in zip(columns, kinds, strict=True))
    case.do(f"CREATE TABLE t ({declared}, part int, v int, PRIMARY KEY ({', '.join(columns)}))")
    for row in range(rows):
        values = [KEYS[kind][row % len(KEYS[kind])] for kind in kinds]
        case.client.execute(f"INSERT INTO t VALUES ({', '.join('%s' for _ in kinds)}, 1, 1)", values)
    case.look((*columns, "part"))
    case.do("UPDATE t SET v = 2")
    assert case.look((*columns, "part")) == f"inserted {rows}"
    assert case.look((*columns, "part")) == f"unchanged {rows}"


def test_duplicates_nulls_and_rows_that_cannot_be_read(case: Case) -> None:
    case.do("CREATE TABLE t (id int, v timestamp)", "INSERT INTO t SELECT n, '2024-01-01' FROM generate_series(1, 5) n")
    case.look()
    case.do("INSERT INTO t VALUES (1, NULL), (NULL, NULL)", "UPDATE t SET v = 'infinity' WHERE id = 3")
    for _ in range(2):
        assert case.look() == "unchanged 3 + rejected:unreadable 4"
        assert case.table.errors() == {"bronze/test/t": 4}
    assert len(case.table.state()) == 5, "none of them is gone"
    case.do("DELETE FROM t WHERE id IS NULL OR id = 3 OR v IS NULL")
    assert case.look() == "inserted 1 + unchanged 4"
    assert case.table.errors() == {}
    case.agree("id", "v")


def test_another_server_version_or_other_columns_are_compared_by_value_once(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.do("CREATE TABLE t (id int, v text, w text)", "INSERT INTO t SELECT n, n FROM generate_series(1, 50) n")
    case.look()
    case.do("ALTER TABLE t ADD COLUMN x int", "UPDATE t SET x = 1 WHERE id = 1")
    assert case.look() == "inserted 1 + unchanged 49"
    case.do("ALTER TABLE t DROP COLUMN x")
    assert case.look() == "unchanged 50"
    monkeypatch.setattr(postgres_hashes, "RECORDS_SINCE", 99)
    case.do("UPDATE t SET w = '' WHERE id = 2")
    assert case.look() == "inserted 1 + unchanged 49"
    assert case.look() == "unchanged 50"
    case.do("UPDATE t SET w = 'new' WHERE id = 3")
    assert case.look() == "inserted 1 + unchanged 49", "hashed as before 14, a change is seen"
    assert case.look(hashes="here") == "unchanged 50", "and where they are hashed makes no difference either"
    assert case.look() == "unchanged 50"


def test_columns_in_another_order_change_no_row(case: Case) -> None:
    case.do("CREATE TABLE t (id int, v int, w int)", "INSERT INTO t VALUES (1, 1, 2)")
    case.look(table="t", columns=("id", "v", "w"))
    assert case.look(table="t", columns=("w", "v", "id")) == "unchanged 1"


def test_views_and_queries(case: Case) -> None:
    case.do(
        "CREATE TABLE t (id int, v int)", "INSERT INTO t VALUES (1, 1), (2, 2)", "CREATE VIEW seen AS SELECT * FROM t"
    )
    query = "SELECT id, sum(v) AS v FROM t GROUP BY id -- all\n"
    assert case.look(query=query) == "inserted 2"
    case.do("UPDATE t SET v = 3 WHERE id = 2")
    assert case.look(query=query) == "inserted 1 + unchanged 1"
    assert case.look(table="seen") == "unchanged 2"


def test_a_connection_that_breaks_deletes_nothing(case: Case) -> None:
    case.do("CREATE TABLE t AS SELECT n AS id, md5(n::text) AS v FROM generate_series(1, 30000) n")
    case.look()
    for after in (2_000, 200_000):
        with wire_to(case.server.port, cut_after=after) as wire, pytest.raises(EtlError):
            case.look(port=wire.port)
    assert {event[1] for event in case.table.events()} == {"read"}
    assert case.look() == "unchanged 30000"


def test_hashes_that_get_lost_on_the_way_are_noticed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.do("CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 10) n")
    case.look()
    hashes = postgres_hashes.PostgresHashes.hashes
    monkeypatch.setattr(
        postgres_hashes.PostgresHashes, "hashes", lambda *a: ((one.slice(1), bad) for one, bad in hashes(*a))
    )
    with pytest.raises(RowsNotConservedError, match="has 10 rows, and 9 came"):
        case.look()


def test_writers_that_go_on_are_seen_at_one_moment(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transaction moves an amount from one account to another: every look has to see the same sum."""
    case.do(
        "CREATE TABLE t AS SELECT n AS id, 100 AS v FROM generate_series(1, 200) n",
        "ALTER TABLE t ADD PRIMARY KEY (id)",
    )
    case.look()
    monkeypatch.setattr(table_diff_look, "PICKED_SHARE", 0.5)
    stop = threading.Event()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        with psycopg.connect(case.server.dsn(case.database)) as client:
            while not stop.wait(0.01):
                one, other = sorted(chance.sample(range(1, 201), 2))
                client.execute("UPDATE t SET v = v - 1 WHERE id = %s", [one])
                client.execute("UPDATE t SET v = v + 1 WHERE id = %s", [other])
                client.commit()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            case.look()
            assert sum(row["v"] for row in case.table.state()) == 20_000
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    case.look()
    case.agree("id", "v")


def documented() -> str:
    """Return the pipeline that docs/cdc.md shows."""
    text = (REPOSITORY / "docs" / "cdc.md").read_text("utf-8").split("## Without access to the log", 1)[1]
    return text.split("```yaml\n", 1)[1].split("```", 1)[0]


def test_the_pipeline_of_the_page_all_the_way(case: Case, tmp_path: Path) -> None:
    for name in ("orders", "customers"):
        case.do(
            f"CREATE TABLE {name} (id int PRIMARY KEY, v text, updated_at timestamptz DEFAULT now())",
            f"INSERT INTO {name} SELECT n, n FROM generate_series(1, 20) n",
        )
    shop = Shop(tmp_path)
    shop.write("defs/connections/defs.yaml", CONNECTIONS.format(port=case.server.port, database=case.database))
    shop.write("defs/shop/defs.yaml", documented())

    def run(*more: str) -> dict[str, dict[str, int]]:
        ended = shop.etl("run", "shop", "--json", *more)
        assert ended.code == 0, ended.out + ended.err
        return {table["table"].replace("/shop/", "/"): table for table in ended.data["tables"]}

    tables = run()
    assert tables["silver/orders"]["inserted"] == tables["silver/customers"]["inserted"] == 20
    for name in ("orders", "customers"):
        case.do(f"DELETE FROM {name} WHERE id > 15", f"UPDATE {name} SET v = '', updated_at = now() WHERE id = 1")
    tables = run()
    assert (tables["bronze/orders"]["inserted"], tables["bronze/orders"]["unchanged"]) == (6, 14)
    assert (tables["silver/orders"]["updated"], tables["silver/orders"]["deleted"]) == (1, 5)
    assert (tables["bronze/customers"]["inserted"], tables["silver/customers"]["rows"]) == (1, 20)


def test_nothing_is_committed_by_a_look_that_finds_no_key(case: Case) -> None:
    case.do("CREATE TABLE t (v int)")
    with pytest.raises(EtlError, match="there is no column id"):
        case.look()
    assert case.table.bronze.table.open() is None


def test_empty_tables(case: Case) -> None:
    case.do("CREATE TABLE t (id int, v int)")
    assert case.look() == "0"
    case.do("INSERT INTO t VALUES (1, 1)")
    assert case.look() == "inserted 1"
    case.do("DELETE FROM t")
    assert case.look() == "inserted 1"
    assert case.table.state() == []
