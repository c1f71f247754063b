"""Values come out of the log as a snapshot of the same table reads them: types, values, and what is set apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from etl_resources.exceptions import EngineError
from etl_resources.source import Stream
from etl_resources.sources.postgres import PostgresStreamOptions
from tests.resources.pgoutput_log import Log, follow
from tests.servers.postgres import PostgresServer

TYPES = (Path(__file__).parent / "pgoutput_types.sql").read_text()
HOSTILE = {
    "DateStyle": "SQL, DMY", "TimeZone": "Asia/Tokyo", "IntervalStyle": "postgres_verbose", "bytea_output": "escape",
    "extra_float_digits": "-10", "xmloption": "document",
}  # fmt: skip


@pytest.fixture
def log(postgres_server: PostgresServer, postgres_database: str) -> Iterator[Log]:
    with follow(postgres_server, postgres_database) as found:
        yield found


def snapshot(log: Log) -> tuple[pa.Table, dict[int, str]]:
    """Return the rows by id, and the reasons for those that cannot be read, as the source reads them."""
    options = PostgresStreamOptions(type="postgres", query="SELECT * FROM t ORDER BY id")
    batches = list(log.source.read(Stream("t", options), None))
    reasons: dict[int, str] = {}
    for batch in batches:
        for row in batch.unreadable.to_pylist() if batch.unreadable is not None else []:
            reasons[json.loads(row["raw"])["id"]] = row["reason"]
    return pa.Table.from_batches([batch.data for batch in batches]), reasons


def from_log(log: Log) -> tuple[pa.Table, dict[int, str]]:
    """Return the same from the log, without what is said about the events."""
    pieces = log.decoded(t=("id",))
    reasons: dict[int, str] = {}
    for piece in pieces:
        for row in piece.unreadable.to_pylist() if piece.unreadable is not None else []:
            raw = json.loads(row["raw"])
            reasons[raw["key"]["id"]] = row["reason"]
            assert (raw["op"], raw["values"]["id"], row["origin"]) == ("insert", str(raw["key"]["id"]), "public.t")
    table = pa.Table.from_batches([piece.data for piece in pieces])
    return table.select([name for name in table.column_names if not name.startswith("_")]), reasons


def differences(left: pa.Table, right: pa.Table) -> dict[str, tuple[object, object]]:
    """Return the columns that differ; NaN is taken for equal to NaN."""
    assert left.schema == right.schema
    pairs = {name: (repr(left[name].to_pylist()), repr(right[name].to_pylist())) for name in left.column_names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@pytest.mark.parametrize("settings", [{}, HOSTILE], ids=["plain settings", "hostile settings"])
def test_every_type_is_what_a_snapshot_reads(log: Log, settings: dict[str, str]) -> None:
    log.sql(TYPES)
    for name, value in settings.items():
        log.sql(f"ALTER DATABASE {log.database} SET {name} = '{value}'")
    try:
        (read, read_reasons), (decoded, reasons) = snapshot(log), from_log(log)
    finally:
        log.sql(f"ALTER DATABASE {log.database} RESET ALL")
    assert (read_reasons, reasons) == ({}, {})
    assert read.num_rows == 3
    assert differences(read, decoded) == {}


def test_before_has_every_type_too(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY)", "DROP TABLE t", TYPES, "ALTER TABLE t REPLICA IDENTITY FULL")
    log.sql("UPDATE t SET id = id")
    table = pa.Table.from_batches([piece.data for piece in log.decoded(t=("id",))])
    after = table.slice(0, 3).select(snapshot(log)[0].column_names)
    before = pa.Table.from_struct_array(table["_before"].combine_chunks().slice(3))
    assert differences(after, before) == {}
    assert table["_before"].slice(0, 3).null_count == 3


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("numeric(5, 2)", ["NaN", "1.5"]),
        (
            "timestamptz",
            ["infinity", "-infinity", "0044-03-15 12:00+00 BC", "10000-01-01 00:00+00", "2024-01-01 00:00+00"],
        ),
        ("timestamp", ["infinity", "-infinity", "0044-03-15 12:00:00.5 BC", "294276-12-31 23:59:59", "2024-01-01"]),
        ("date", ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "0001-12-31 BC", "2024-01-01"]),
        ("int[]", ["{{1,2},{3,4}}", "[2:3]={1,2}", "{{{1}}}", "{1,2}"]),
        ("text[]", ["{{a},{b}}", '{"{{a}"}', '{"[2:3]={a}"}']),
        ("numeric(5, 2)[]", ["{NaN,1}", "{1.5,NULL}"]),
        ("date[]", ["{infinity}", "{2024-01-01,-infinity}", "{NULL}"]),
        ("timestamptz[]", ["{10000-01-01 00:00+00}", "{2024-01-01 00:00+00}", "{}"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_snapshot_cannot_read_the_log_sets_apart_too(log: Log, type_: str, values: list[str]) -> None:
    log.sql(f"CREATE TABLE t (id int PRIMARY KEY, v {type_})")
    for n, value in enumerate(values):
        log.client.execute("INSERT INTO t VALUES (%s, %s)", [n, value])
    (read, read_reasons), (decoded, reasons) = snapshot(log), from_log(log)
    assert differences(read, decoded) == {}
    assert read_reasons.keys() == reasons.keys()
    assert all(reason.startswith("v: ") and str(read.schema.field("v").type) in reason for reason in reasons.values())


def test_an_odd_value_that_is_replaced_heals_and_stays_out_of_before(log: Log) -> None:
    log.sql("CREATE TABLE t (id int PRIMARY KEY, v date)", "ALTER TABLE t REPLICA IDENTITY FULL")
    log.sql("INSERT INTO t VALUES (1, 'infinity')", "UPDATE t SET v = '2024-01-01'")
    (piece,) = log.decoded(t=("id",))
    assert piece.unreadable is not None
    assert piece.unreadable.num_rows == 1
    (event,) = piece.data.to_pylist()
    assert (event["_op"], str(event["v"]), event["_before"]) == ("update", "2024-01-01", {"id": 1, "v": None})


def test_a_type_that_has_been_dropped_meanwhile_is_text(log: Log) -> None:
    log.sql("CREATE TYPE gone AS ENUM ('x')", "CREATE TABLE t (id int PRIMARY KEY, v gone)")
    log.sql(
        "INSERT INTO t VALUES (1, 'x')",
        "ALTER TABLE t ALTER v TYPE text",
        "DROP TYPE gone",
        "INSERT INTO t VALUES (2, 'y')",
    )
    assert [(e["id"], e["v"]) for e in log.events()] == [(1, "x"), (2, "y")]


def test_a_composite_type_that_has_been_changed_meanwhile_is_set_apart(log: Log) -> None:
    log.sql("CREATE TYPE pair AS (x int, y int)", "CREATE TABLE t (id int PRIMARY KEY, v pair)")
    log.sql("INSERT INTO t VALUES (1, '(1,2)')", "ALTER TYPE pair ADD ATTRIBUTE z int CASCADE")
    log.sql("INSERT INTO t VALUES (2, '(1,2,3)')")
    decoded, reasons = from_log(log)
    assert decoded.to_pylist() == [{"id": 2, "v": '{"x":1,"y":2,"z":3}'}]
    assert list(reasons) == [1]


@contextmanager
def encoded(server: PostgresServer, encoding: str) -> Iterator[Log]:
    """Follow the log of a database of another encoding."""
    with server.connect() as client:
        client.execute("DROP DATABASE IF EXISTS encoded")
        client.execute(f"CREATE DATABASE encoded ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    try:
        with follow(server, "encoded") as log:
            log.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
            yield log
    finally:
        with server.connect() as client:
            client.execute("DROP DATABASE encoded WITH (FORCE)")


def test_text_of_a_database_in_another_encoding_arrives_in_utf8(postgres_server: PostgresServer) -> None:
    with encoded(postgres_server, "LATIN1") as log:
        log.sql("SET client_encoding = 'UTF8'", "INSERT INTO t VALUES (1, 'é')")
        assert [event["v"] for event in log.events()] == ["é"]


def test_text_in_no_encoding_that_is_no_utf8_is_refused_by_the_server(postgres_server: PostgresServer) -> None:
    with encoded(postgres_server, "SQL_ASCII") as log:
        log.sql("INSERT INTO t VALUES (1, convert_from('\\xe9', 'SQL_ASCII'))")
        with pytest.raises(EngineError, match="invalid byte sequence"):
            log.events()
