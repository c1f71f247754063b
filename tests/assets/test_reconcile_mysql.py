"""A captured table held against MariaDB: whatever is wrong in the lake is found, and a busy writer is no reason."""

from __future__ import annotations

import json
import random
import struct
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from etl_assets.cli.location import Location, load_location
from etl_assets.components.reconcile_checks import compared
from etl_assets.reconcile import Reconciled
from etl_resources.changes import mysql_compared
from etl_resources.changes.mysql_position import Cursor
from etl_resources.exceptions import ConfigurationError
from etl_resources.lake import Lake
from etl_resources.sources.mysql import MysqlSource
from tests.assets.cli.conftest import Shop
from tests.assets.doubles import new_run
from tests.assets.test_capture_mysql import CONNECTIONS
from tests.resources.mysql_log_landing import log_of
from tests.resources.test_mysql_log_types import MARIADB, VALUES, fill
from tests.servers.mysql import MysqlServer, shared_mysql
from tests.soaking import some

PIPELINE = """
type: etl_assets.components.Pipeline
attributes:
  name: sales
  streams:
    orders:
      source: {type: mysql, connection: shop, table: orders}
      capture: {log: {}}
      key: [id, part]
    t:
      source: {type: mysql, connection: shop, table: t}
      capture: {log: {}}
      key: [id]
"""


class Case:
    """A database, and a pipeline that follows its log and has run once."""

    def __init__(self, folder: Path) -> None:
        self.server: MysqlServer = shared_mysql()
        self.database = self.server.database()
        self.do(
            "CREATE TABLE orders (id int, part varchar(20), amount decimal(12, 2), note text, day date,"
            " PRIMARY KEY (id, part))",
            "INSERT INTO orders SELECT seq, ELT(1 + seq % 3, 'a', 'ü:1', ''), seq, REPEAT('x', seq), NULL"
            " FROM seq_1_to_50",
        )
        self.odd = fill(self.server, self.database, VALUES | MARIADB)
        self.do(*(statement.replace("{start}", "0") for statement in self.odd))
        self.shop = Shop(folder)
        settings = json.dumps({"type": "mysql", **self.server.settings(self.database)}, default=str)
        self.shop.write("defs/connections/defs.yaml", CONNECTIONS.format(settings=settings))
        self.shop.write("defs/sales/defs.yaml", PIPELINE)
        self.run()

    def run(self) -> None:
        ended = self.shop.etl("run", "sales")
        assert ended.code == 0, ended.out + ended.err

    def do(self, *statements: str) -> list[tuple[Any, ...]]:
        return self.server.execute(self.database, "SET sql_mode = ''", *statements)

    def handle(self, layer: str = "bronze", table: str = "orders") -> Any:
        opened = Lake(uri=str(self.shop.root / ".lake")).table(layer, "sales", table).open()
        assert opened is not None
        return opened

    def look(self, stream: str = "orders") -> Reconciled:
        """Compare a table, in this process."""
        location = loaded(self.shop.root)
        (log,) = location.logs("sales")
        (one,) = [one for one in log.streams if one.name == stream]
        lake = Lake(uri=str(self.shop.root / ".lake"))
        return compared(log, one, location.resource(log.connection), lake, location.engine, new_run())


@cache
def loaded(root: Path) -> Location:
    return load_location(root)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Tests may change the source, and restore what they break in the lake."""
    return Case(tmp_path_factory.mktemp("reconcile"))


def said(found: Reconciled) -> list[tuple[str, str]]:
    return [(str(one.key[0]), one.what) for one in found.differences]


def test_every_type_is_compared(case: Case) -> None:
    """Of the first load, of the log, and after changes under another time zone."""
    case.do(*(statement.replace("{start}", "100") for statement in case.odd))
    case.do("SET time_zone = '+05:00'", "UPDATE t SET id = 50 WHERE id = 0", "DELETE FROM t WHERE id = 1")
    found = case.look("t")
    assert (found.left_out, said(found)) == ({}, [])
    assert found.rows == case.do("SELECT COUNT(*) FROM t")[0][0]


@pytest.mark.soak
def test_no_column_is_left_out(case: Case) -> None:
    version = case.handle(table="t").version
    for name in [name for name in case.handle(table="t").schema().names if name[0] == "c"]:
        (row,) = case.do(f"SELECT MIN(id) FROM t WHERE {name} IS NOT NULL")[0]
        case.handle(table="t").delta.update({name: "NULL"}, predicate=f"id = {row}")
        assert (str(row), "other values in the lake") in said(case.look("t")), name
        case.handle(table="t").delta.restore(version)


def test_what_is_wrong_in_the_lake_is_found_and_nothing_else(case: Case) -> None:
    case.do("UPDATE orders SET amount = -1 WHERE id = 7", "DELETE FROM orders WHERE id = 48")
    case.do("INSERT INTO orders VALUES (99, 'A', 1, 'new', '2024-02-29')")
    found = case.look()
    assert found.agrees, found
    assert found.rows == 50
    version = case.handle().version
    for change, expected in {
        "": ("5", "missing in the lake"),
        "note = 'other'": ("6", "other values in the lake"),
        "part = 'B'": ("6", "not in the source"),
        "amount = -1.01": ("6", "other values in the lake"),
    }.items():
        if change:
            column, _, value = change.partition(" = ")
            case.handle().delta.update({column: value}, predicate="id = 6")
        else:
            case.handle().delta.delete("id = 5")
        assert expected in said(case.look()), change
        case.handle().delta.restore(version)


def test_a_transaction_that_is_landed_and_not_in_the_snapshot_is_no_difference(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = mysql_compared.MysqlCompared.segments

    def meanwhile(self: Any, *given: Any) -> Any:
        done = segments(self, *given)
        case.do("UPDATE orders SET amount = amount + 1", "DELETE FROM orders WHERE id = 3", "FLUSH BINARY LOGS")
        return done

    monkeypatch.setattr(mysql_compared.MysqlCompared, "segments", meanwhile)
    assert case.look().agrees
    monkeypatch.setattr(mysql_compared.MysqlCompared, "seen", lambda *_: "true")
    assert not case.look().agrees


def test_a_busy_writer_gives_no_false_alarm(case: Case) -> None:
    stop, errors = threading.Event(), []

    def write(number: int) -> None:
        try:
            with case.server.connect(case.database, autocommit=False) as client, client.cursor() as cursor:
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")  # no locks of gaps
                turn = 0
                while not stop.wait(0.005):
                    turn += 1
                    at = (number + 1) * 1000 + turn % 40
                    cursor.execute("DELETE FROM orders WHERE id = %s", [at])
                    cursor.execute("INSERT INTO orders VALUES (%s, 'a', %s, 'busy', NULL)", [at, turn])
                    cursor.execute("UPDATE orders SET amount = amount + 1 WHERE id = %s", [1 + turn % 20 + 20 * number])
                    client.commit()
        except BaseException as error:
            errors.append(error)
            raise

    writers = [threading.Thread(target=write, args=[number]) for number in (0, 1)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(2):
            found = case.look()
            assert found.agrees, found.differences
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert errors == []


MUTANTS: dict[str, tuple[str, str, list[tuple[str, str]]]] = {
    "text as a collation sees it": ("'a'", "'A'", [("CONVERT(", "LOWER("), (" USING utf8mb4", "")]),
    "null is the empty string": ("NULL", "''", [("'-'", "'0:'")]),
}


@pytest.mark.parametrize("name", some(MUTANTS, 1))
def test_a_checksum_that_is_broken_on_purpose_is_found(case: Case, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The lake has another value than the source; a checksum that does not see that disagrees elsewhere at once."""
    old, new, changes = MUTANTS[name]
    case.do(f"REPLACE INTO orders VALUES (70, '', 1, {old}, NULL)")
    case.look()  # it is landed
    version = case.handle().version
    case.handle().delta.update({"note": new}, predicate="id = 70")
    assert said(case.look()) == [("70", "other values in the lake")]
    case.handle().delta.restore(version)
    row = mysql_compared.MysqlCompared._row

    def broken(self: Any, names: Any) -> str:
        text = row(self, names)
        for one, other in changes:
            text = text.replace(one, other)
        return text

    monkeypatch.setattr(mysql_compared.MysqlCompared, "_row", broken)
    case.do("REPLACE INTO orders VALUES (71, '', 1, 'MiXed', NULL)")
    assert not case.look().agrees


def test_a_day_that_no_calendar_has_is_not_taken_for_null(case: Case) -> None:
    """It cannot be in the lake, and it is not the null that may be there."""
    case.do("UPDATE orders SET day = '0000-00-00' WHERE id = 10")
    assert said(case.look()) == [("10", "other values in the lake")]
    case.do("UPDATE orders SET day = NULL WHERE id = 10")
    assert case.look().agrees


def test_rows_that_the_server_cannot_hash_are_an_error(case: Case) -> None:
    """They would be left out of the totals without a word."""
    limit = case.do("SELECT @@GLOBAL.max_allowed_packet")[0][0]
    case.do("REPLACE INTO orders VALUES (80, '', 1, REPEAT('x', 4000), NULL)")
    assert case.look().agrees
    case.do("SET GLOBAL max_allowed_packet = 2048")
    try:
        with pytest.raises(ConfigurationError, match=r"cannot hash 1 rows.* max_allowed_packet"):
            case.look()
    finally:
        case.do(f"SET GLOBAL max_allowed_packet = {limit}")


def test_a_table_without_snapshots_is_refused(case: Case) -> None:
    case.do("CREATE TABLE old (id int PRIMARY KEY) ENGINE = MyISAM")
    log = log_of(MysqlSource(**case.server.settings(case.database)), {"old": ["id"]})
    with pytest.raises(ConfigurationError, match="an engine without transactions"), log.compared("old"):
        pass


def test_a_log_that_has_not_come_to_the_snapshot_or_is_of_another_server_is_refused(case: Case) -> None:
    """Else what is not there yet would be missing in the lake."""
    log = log_of(MysqlSource(**case.server.settings(case.database)), {"orders": ["id", "part"]})
    with log.compared("orders") as table:
        assert isinstance(table, mysql_compared.MysqlCompared)
        here = Cursor(table._server, 0, table._file, table._place)
        assert table.seen(here.to_position()) == f"coalesce(_pos <= {here.pos}, true)"
        assert str((1 << 40) * 7 + here.pos) in table.seen(replace(here, base=7).to_position())
        for wrong in (replace(here, place=here.place - 1), replace(here, server="2")):
            with pytest.raises(ConfigurationError, match="the log was read to"):
                table.seen(wrong.to_position())


def test_totals_are_the_same_in_however_many_parts_the_table_is_asked(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.do("CREATE TABLE parts (id int PRIMARY KEY)", "INSERT INTO parts SELECT seq * seq FROM seq_1_to_1000")
    log = log_of(MysqlSource(**case.server.settings(case.database)), {"parts": ["id"]})
    with log.compared("parts") as table:
        assert isinstance(table, mysql_compared.MysqlCompared)
        assert table._parts(9) == ["TRUE"]
        whole = table.segments(9, table.columns).sort_by("segment")
        monkeypatch.setattr(mysql_compared, "PART_SEGMENTS", 2)
        assert len(table._parts(9)) == 5
        assert table.segments(9, table.columns).sort_by("segment") == whole
        assert sum(whole["rows"].to_pylist()) == 1000


def test_a_table_that_was_not_read_to_its_end_is_refused_before_it_is_hashed(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("hashed for nothing")

    monkeypatch.setattr(mysql_compared.MysqlCompared, "segments", never)
    version = case.handle().version
    assert case.shop.etl("capture", "resnapshot", "sales", "orders").code == 0
    with pytest.raises(ConfigurationError, match="the snapshot of the table has not ended"):
        case.look()
    assert case.handle().version > version


def test_the_bytes_of_doubles_come_out_of_arithmetic() -> None:
    chance = random.Random(1)
    values = [0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 2.225073858507201e-308, 1.7976931348623157e308, 0.1, -1.0]
    for exponent in range(-1074, 1024):
        power = 2.0**exponent
        values += [power, -power * chance.uniform(1, 2), struct.unpack("<d", struct.pack("<q", _integer(power) - 1))[0]]
    values = [value for value in values if abs(value) != float("inf")]
    server = shared_mysql()
    database = server.database()
    server.execute(database, "CREATE TABLE t (id int, v double)")
    with server.connect(database) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(n, repr(value)) for n, value in enumerate(values)])
        cursor.execute(f"SELECT id, {mysql_compared._bits('v')} FROM t ORDER BY id")
        found = dict(cursor.fetchall())
    assert [value for n, value in enumerate(values) if found[n] != _integer(value)] == []


def _integer(value: float) -> int:
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    return int(bits)
