"""Tables of a real MariaDB, whose rows it hashes itself: no change is missed, and none is made up."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from etl_assets import table_diff_look
from etl_assets.bronze import Bronze
from etl_assets.table_diff import TableDiff
from etl_resources.exceptions import ConfigurationError, EtlError, RowsNotConservedError
from etl_resources.source import Snapshot, Stream
from etl_resources.sources import mysql_hashes
from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions
from etl_resources.sources.mysql_hashes import MysqlHashes
from tests.assets.cli.conftest import REPOSITORY
from tests.assets.diff_table import DiffTable
from tests.assets.doubles import new_run
from tests.servers.mysql import MysqlServer, shared_mysql
from tests.servers.proxy import wire_to
from tests.soaking import examples


class Case:
    """A database, and the log of its table `t`."""

    def __init__(self, folder: Path) -> None:
        self.server: MysqlServer = shared_mysql()
        self.database = self.server.database()
        self.table = DiffTable(folder, name="t")

    def do(self, *statements: str) -> list[tuple[Any, ...]]:
        return self.server.execute(self.database, "SET sql_mode = '', time_zone = '+00:00'", *statements)

    def source(self, port: int | None = None) -> MysqlSource:
        return MysqlSource(**self.server.settings(self.database, **({"port": port} if port else {})))

    def stream(self, **options: Any) -> Stream:
        return Stream("t", MysqlStreamOptions(type="mysql", **(options or {"table": "t"})), Snapshot())

    def look(
        self, key: tuple[str, ...] = ("id",), *, hashes: Any = "auto", port: int | None = None, **options: Any
    ) -> str:
        """Look at the table once; returns the account."""
        diff = TableDiff(Bronze(self.table.lake, "test", self.stream(**options)), key, self.table.engine, hashes=hashes)
        return str(diff.land(self.source(port), new_run()).account)

    def hashes(self) -> tuple[str, list[int]]:
        """Return what the rows are hashed by, and their hashes, in the order of their keys."""
        context = self.source().hashed(self.stream(), ("id",))
        assert context is not None
        with context as table:
            parts = [part for part, _ in table.hashes(1000)]
            found = {row["id"]: row["_hash"] for part in parts for row in part.to_pylist()}
            return table.hashed_by, [found[key] for key in sorted(found)]

    def hashed(self, **options: Any) -> AbstractContextManager[Any] | None:
        return self.source().hashed(self.stream(**options), ("id",))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


ODD = [
    ("varchar(9)", "''", "NULL", "'NULL'", "'-'", "'a'", "'A'", "'a '", "'á'", "'1:a'"),
    ("varchar(9) COLLATE utf8mb4_general_ci", "'s'", "'S'", "'ß'", "'ss'", "_utf8mb4 x'65cc81'", "_utf8mb4 x'c3a9'"),
    ("varchar(9) CHARACTER SET latin1", "'a'", "'ä'", "'Ä'", "'€'"),
    ("char(5)", "'a'", "'b'", "''", "NULL"),
    ("text", "'x'", "'x '", "'x\\n'", "''", "NULL"),
    ("longtext", "''", "NULL", "'d41d8cd98f00b204e9800998ecf8427e'", "REPEAT('y', 300000)", "REPEAT('Y', 300000)"),
    ("longblob", "''", "NULL", "'-'", "REPEAT('y', 300000)", "CONCAT(REPEAT('y', 300000), x'00')"),
    ("varbinary(9)", "''", "x'00'", "x'0000'", "'a'", "'A'", "NULL", "x'ff'"),
    ("binary(3)", "'a'", "'b'", "x'000000'", "NULL"),
    ("bigint", "0", "-5", "4294967291", "4294967297", "-9223372036854775808", "NULL"),
    ("bigint unsigned", "18446744073709551615", "18446744073709551614", "0"),
    ("int(5) zerofill", "42", "43", "NULL"),
    ("tinyint(1)", "0", "1", "NULL"),
    ("bit(9)", "b'1'", "b'100000001'", "b'0'", "NULL"),
    ("bit(64)", "b'1'", "18446744073709551615", "18446744073709551614"),
    ("year", "2024", "2025", "0"),
    ("decimal(10, 2)", "1.0", "1.01", "-1.01", "0", "NULL"),
    ("decimal(38, 8)", "-1", "1", "123456789012345678901234567890.12345678", "123456789012345678901234567890.12345679"),
    ("decimal(65, 30)", "1.5", "1.500000000000000000000000000001"),
    ("float", "16777216", "16777218", "1.1", "1.1000001", "1e-40", "NULL"),
    ("double", "0.3e0", "0.1e0+0.2e0", "1e300", "5e-324", "9007199254740992", "9007199254740994", "NULL"),
    ("date", "'2024-01-01'", "'2024-01-02'", "NULL", "'0001-01-01'"),
    ("datetime(6)", "'2024-01-01'", "'2024-01-01 00:00:00.000001'", "'9999-12-31 23:59:59.999999'", "NULL"),
    ("timestamp(6) NULL", "'2024-10-27 00:30:00'", "'2024-10-27 01:30:00'", "'2024-10-27 00:30:00.000001'", "NULL"),
    ("time(6)", "'12:00'", "'12:00:00.000001'", "'-12:00'", "'-838:59:59'"),
    ("enum('a', 'A', '') COLLATE utf8mb4_bin", "'a'", "'A'", "''", "NULL"),
    ("set('x', 'y', 'z')", "'x'", "'x,y'", "''", "NULL"),
    ("json", "'{\"a\": 1}'", "'{\"a\": 1.0}'", "'{\"a\":1}'", "'null'", "NULL"),
    ("uuid", "'00000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-0000-000000000002'", "NULL"),
    ("inet6", "'::1'", "'::2'", "NULL"),
    ("geometry", "POINT(0, 0)", "POINT(0, 1)", "NULL"),
]


def test_values_that_are_equal_to_the_server_and_do_not_look_the_same(case: Case) -> None:
    """All columns of one table take their values, step by step: just the rows that changed get new hashes."""
    columns = [(f"c{at}", kind, values) for at, (kind, *values) in enumerate(ODD)]
    declared = ", ".join(f"{name} {kind}" for name, kind, _ in columns)
    case.do(f"CREATE TABLE t (id int PRIMARY KEY, {declared}, twice varchar(50) AS (CONCAT(c0, c0)) VIRTUAL)")
    case.do(*(f"INSERT INTO t (id, {name}) VALUES ({at}, {values[0]})" for at, (name, _, values) in enumerate(columns)))
    case.look()
    _, before = case.hashes()
    for step in range(1, max(len(values) for _, _, values in columns)):
        changed = {at: (name, values[step]) for at, (name, _, values) in enumerate(columns) if step < len(values)}
        case.do(*(f"UPDATE t SET {name} = {value} WHERE id = {at}" for at, (name, value) in changed.items()))
        _, after = case.hashes()
        assert {at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new} == changed.keys()
        before = after
    assert case.look() == f"inserted {len(ODD)}"
    assert case.look(hashes="here") == f"unchanged {len(ODD)}", "the events hold what the table does"


def broken(replace: dict[str, str]) -> Callable[[Any, Any], str]:
    form = mysql_hashes.hashed_form

    def changed(column: Any, field: Any) -> str:
        text = form(column, field)
        for old, new in replace.items():
            text = text.replace(old, new)
        return text

    return changed


RAW = {" USING utf8mb4": "", "CHAR_LENGTH(": "LEFT('', "}
MUTANTS = [
    ("null is the empty string", broken({"'-'": "'0:'"}), "v varchar(9)", "NULL", "''"),
    ("a and A are one", broken({"CONVERT(": "LOWER(", **RAW}), "v varchar(9)", "'a'", "'A'"),
    ("blanks at the end", broken({"CONVERT(": "TRIM(", **RAW}), "v varchar(9)", "'a'", "'a '"),
    ("no separator", broken({", ','": ""}), "v int, w int", "1, 11", "11, 1"),
    ("no length", broken({"CHAR_LENGTH(": "LEFT('', "}), "v varchar(9), w varchar(9)", "'a:', 'b'", "'a', ':b'"),
    ("floats as they are shown", broken({" * 1e0": ""}), "v float", "16777216", "16777218"),
    ("null if too long", broken({"IF(t.`v` IS NULL": "IF(LENGTH(t.`v`) > 3"}), "v varchar(9)", "'abcd'", "'efgh'"),
]  # fmt: skip


@pytest.mark.parametrize(("mutant", "columns", "old", "new"), [pytest.param(*m, id=name) for name, *m in MUTANTS])
def test_a_hash_that_is_broken_on_purpose_misses_a_change(
    case: Case, monkeypatch: pytest.MonkeyPatch, mutant: Any, columns: str, old: str, new: str
) -> None:
    """And the hash as it is does not."""
    case.do(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")

    def hashes() -> list[int]:
        found = []
        for values in (old, new):
            case.do(f"REPLACE INTO t VALUES (1, {values})")
            found += case.hashes()[1]
        return found

    one, other = hashes()
    assert one != other
    monkeypatch.setattr(mysql_hashes, "hashed_form", mutant)
    one, other = hashes()
    assert one == other


def test_a_row_that_the_server_cannot_hash_is_an_error(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text is longer than `max_allowed_packet`: the server says NULL, and only warns."""
    monkeypatch.setattr(mysql_hashes, "_LONG", 1 << 40)
    case.do(
        "CREATE TABLE t (id int PRIMARY KEY, v longtext, w longtext)",
        "INSERT INTO t VALUES (1, REPEAT('x', 9000000), REPEAT('y', 9000000)), (2, 'a', 'b')",
    )
    with pytest.raises(ConfigurationError, match="max_allowed_packet"):
        case.hashes()
    monkeypatch.undo()  # each of them has a hash of its own, as long as it has to be
    one, two = case.hashes()[1]
    case.do("UPDATE t SET w = CONCAT(LEFT(w, 8999999), 'z') WHERE id = 1")
    other, same = case.hashes()[1]
    assert one != other
    assert two == same


def test_only_what_has_changed_is_moved(case: Case) -> None:
    case.do(
        "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t SELECT seq, REPEAT('x', 500) FROM seq_1_to_8000"
    )
    case.look()
    case.do("UPDATE t SET v = 'changed' WHERE id % 400 = 0")
    with wire_to(case.server.port) as wire:
        assert case.look(port=wire.port) == "inserted 20 + unchanged 7980"
        assert wire.received < 400_000, "500 bytes a row would be ten times as much"


KEYS: dict[str, list[Any]] = {
    "int": ["1", "-2", "3"],
    "bigint unsigned": ["18446744073709551615", "0"],
    "varchar(30)": ["''", "'\"'", "'\\\\'", "'\\''", "'NULL'", "'a'", "'á'"],
    "varchar(30) CHARACTER SET latin1": ["'Ä'", "'b'"],
    "decimal(20, 7)": ["0", "0.0000001", "-1.5"],
    "binary(2)": ["x'0001'", "'a'"],
    "varbinary(9)": ["''", "x'ff00'"],
    "timestamp(6)": ["'2024-01-01 00:00:00.000001'"],
    "datetime(3)": ["'0001-01-01 00:00:00'"],
    "date": ["'2024-02-29'"],
    "time(2)": ["'-25:00:00.5'"],
    "year": ["2024", "0"],
    "bit(9)": ["b'100000001'"],
    "bit(1)": ["b'1'", "b'0'"],
    "tinyint(1)": ["1", "0"],
    "enum('x', '')": ["'x'", "''"],
    "uuid": ["'00000000-0000-0000-0000-000000000001'"],
}
FLOATS: dict[str, list[Any]] = {"float": ["0.1", "1"], "double": ["0.1", "1e300"]}


@pytest.mark.parametrize("keys", [pytest.param(KEYS, id="looked up"), pytest.param(FLOATS, id="read with all")])
def test_rows_are_found_again_by_keys_of_any_type(
    case: Case, monkeypatch: pytest.MonkeyPatch, keys: dict[str, list[Any]]
) -> None:
    """Of all types together: a part of the key that does not come back as it was hides every row."""
    monkeypatch.setattr(mysql_hashes, "PICKED", 3)
    columns, rows = [f"k{at}" for at in range(len(keys))], max(map(len, keys.values()))
    declared = ", ".join(f"{name} {kind} NOT NULL" for name, kind in zip(columns, keys, strict=True))
    case.do(f"CREATE TABLE t ({declared}, part int UNIQUE, v int)")
    for row in range(rows):
        values = [values[row % len(values)] for values in keys.values()]
        case.do(f"INSERT INTO t VALUES ({', '.join(values)}, {row}, 1)")
    assert case.look((*columns, "part")) == f"inserted {rows}"
    case.do("UPDATE t SET v = 2")
    assert case.look((*columns, "part")) == f"inserted {rows}"
    assert case.look((*columns, "part")) == f"unchanged {rows}"


def test_keys_that_a_collation_takes_for_one_are_two(case: Case) -> None:
    """The look-up gives both; only the one that was asked for counts."""
    case.do(
        "CREATE TABLE t (id varchar(9) COLLATE utf8mb4_general_ci, v int, KEY (id))",
        "INSERT INTO t VALUES ('a', 1), ('A', 1), ('a ', 1), ('á', 1)",
    )
    assert case.look() == "inserted 4"
    case.do("UPDATE t SET v = 2 WHERE id = BINARY 'A'", "DELETE FROM t WHERE BINARY id = 'á'")
    assert case.look() == "inserted 2 + unchanged 2"
    assert sorted((row["id"], row["v"]) for row in case.table.state()) == [("A", 2), ("a", 1), ("a ", 1)]


@pytest.mark.soak
def test_duplicates_nulls_and_rows_that_cannot_be_read(case: Case) -> None:
    case.do("CREATE TABLE t (id int, v date)", "INSERT INTO t SELECT seq, '2024-01-01' FROM seq_1_to_5")
    case.look()
    case.do("INSERT INTO t VALUES (1, NULL), (NULL, NULL)", "UPDATE t SET v = '0000-00-00' WHERE id = 3")
    for _ in range(2):
        assert case.look() == "unchanged 3 + rejected:unreadable 4"
        assert case.table.errors() == {"bronze/test/t": 4}
    assert len(case.table.state()) == 5, "none of them is gone"
    case.do("DELETE FROM t WHERE id IS NULL OR id = 3 OR v IS NULL")
    assert case.look() == "inserted 1 + unchanged 4"
    assert case.table.errors() == {}


def test_a_table_that_was_altered_is_compared_by_value_once(case: Case) -> None:
    """Hashes of before would say that every row has changed."""
    case.do(
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(9), w datetime, z int)",
        "INSERT INTO t SELECT seq, 'ä', '2024-01-01', seq FROM seq_1_to_50",
    )
    case.look()
    case.do("ALTER TABLE t ADD COLUMN x int", "UPDATE t SET x = 1 WHERE id = 1")
    assert case.look() == "inserted 1 + unchanged 49"
    assert case.look(hashes="here") == case.look() == "unchanged 50", "where they are hashed makes no difference"


def test_no_alteration_makes_rows_look_changed_that_are_not(case: Case) -> None:
    """Either the hashes are the same, or they are known to be made in another way."""
    case.do(
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(9), w datetime, z int, y float)",
        "INSERT INTO t VALUES (1, 'ä', '2024-01-01', 1, 1.5)",
    )
    seen = case.hashes()
    for change in (
        "MODIFY w datetime(6)", "MODIFY z int(9) zerofill", "MODIFY z int(9) zerofill FIRST", "MODIFY z bigint",
        "CONVERT TO CHARACTER SET latin1", "MODIFY v longtext CHARACTER SET latin1", "MODIFY y double",
        "MODIFY v enum('ä')", "ENGINE = InnoDB ROW_FORMAT = COMPRESSED",
    ):  # fmt: skip
        case.do(f"ALTER TABLE t {change}")
        before, seen = seen, case.hashes()
        assert seen[0] != before[0] or seen[1] == before[1], change


@pytest.mark.soak
def test_the_time_zone_of_the_server_makes_no_difference(case: Case) -> None:
    case.do("CREATE TABLE t (id int PRIMARY KEY, v timestamp)", "INSERT INTO t VALUES (1, '2024-01-01 12:00:00')")
    case.look()
    zone = case.do("SELECT @@GLOBAL.time_zone")[0][0]
    try:
        case.do("SET GLOBAL time_zone = '+05:00'")
        assert case.look() == "unchanged 1"
    finally:
        case.do(f"SET GLOBAL time_zone = '{zone}'")


def test_what_has_no_snapshot_or_would_be_computed_again_is_read_whole(case: Case) -> None:
    case.do(
        "CREATE TABLE t (id int, v int)", "INSERT INTO t VALUES (1, 1), (2, 2)", "CREATE VIEW seen AS SELECT * FROM t",
        "CREATE TABLE old (id int, v int) ENGINE = MyISAM", "INSERT INTO old SELECT * FROM t",
    )  # fmt: skip
    assert case.look() == "inserted 2"
    others: list[dict[str, Any]] = [
        {"query": "SELECT id, SUM(v) AS v FROM t GROUP BY id"}, {"table": "seen"}, {"table": "old"},
    ]  # fmt: skip
    for options in others:
        assert case.hashed(**options) is None
        assert case.look(**options) == "unchanged 2"


def test_a_connection_that_breaks_deletes_nothing(case: Case) -> None:
    case.do("CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t SELECT seq, MD5(seq) FROM seq_1_to_30000")
    case.look()
    for after in (2_000, 200_000):
        with wire_to(case.server.port, cut_after=after) as wire, pytest.raises(EtlError):
            case.look(port=wire.port)
    assert {event[1] for event in case.table.events()} == {"read"}
    assert case.look() == "unchanged 30000"


def test_hashes_that_get_lost_on_the_way_are_noticed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.do("CREATE TABLE t (id int)", "INSERT INTO t SELECT seq FROM seq_1_to_10")
    case.look()
    hashes = MysqlHashes.hashes
    monkeypatch.setattr(MysqlHashes, "hashes", lambda *a: ((one.slice(1), bad) for one, bad in hashes(*a)))
    with pytest.raises(RowsNotConservedError, match="has 10 rows, and 9 came"):
        case.look()


def test_writers_that_go_on_are_seen_at_one_moment(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transaction moves an amount from one account to another: every look has to see the same sum."""
    case.do("CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t SELECT seq, 100 FROM seq_1_to_200")
    case.look()
    monkeypatch.setattr(table_diff_look, "PICKED_SHARE", 0.5)
    stop = threading.Event()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        with case.server.connect(case.database, autocommit=False) as client, client.cursor() as cursor:
            while not stop.wait(0.01):
                one, other = sorted(chance.sample(range(1, 201), 2))
                cursor.execute("UPDATE t SET v = v - 1 WHERE id = %s", [one])
                cursor.execute("UPDATE t SET v = v + 1 WHERE id = %s", [other])
                client.commit()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(examples(1)):
            case.look()
            assert sum(row["v"] for row in case.table.state()) == 20_000
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    case.look()
    assert sorted((row["id"], row["v"]) for row in case.table.state()) == sorted(case.do("SELECT id, v FROM t"))


@pytest.mark.soak
def test_empty_tables(case: Case) -> None:
    case.do("CREATE TABLE t (id int, v int)")
    assert case.look() == "0"
    case.do("INSERT INTO t VALUES (1, 1)")
    assert case.look() == "inserted 1"
    case.do("DELETE FROM t")
    assert case.look() == "inserted 1"
    assert case.table.state() == []


def test_nothing_is_committed_by_a_look_that_finds_no_key(case: Case) -> None:
    case.do("CREATE TABLE t (v int)")
    with pytest.raises(EtlError, match="there is no column id"):
        case.look()
    assert case.table.bronze.table.open() is None


def test_the_page_tells_how_many_keys_are_looked_up() -> None:
    page = (REPOSITORY / "docs" / "sources" / "mysql.md").read_text("utf-8")
    assert f"{mysql_hashes.PICKED:,} at a time" in page
