"""Reading PostgreSQL: exact values, one snapshot, bounded memory, and no error taken for an end."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.secret import Secret
from etl_resources.source import Batch, Incremental, Stream, Window
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from tests.servers.postgres import PostgresServer, running_postgres
from tests.servers.proxy import wire_to

TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE DOMAIN price AS numeric(5, 1) CHECK (VALUE > 0);
    CREATE TYPE pair AS (x int, y text);
"""


@pytest.fixture
def source(postgres_server: PostgresServer, postgres_database: str) -> PostgresSource:
    return PostgresSource(**postgres_server.settings(postgres_database))


@pytest.fixture
def client(postgres_server: PostgresServer, postgres_database: str) -> Iterator[Any]:
    with postgres_server.connect(postgres_database) as connection:
        yield connection


def stream(window: Window | None = None, **options: Any) -> Stream:
    return Stream("s", PostgresStreamOptions(type="postgres", **options), None, window)


VALUES = [
    ("123456789012345678901234567890.12345678::numeric(38, 8)", pa.decimal128(38, 8),
     Decimal("123456789012345678901234567890.12345678")),
    ("1.5::price", pa.decimal128(5, 1), Decimal("1.5")),
    ("1234567::numeric(2, -5)", pa.decimal128(7, 0), Decimal(1200000)),
    ("0.00012::numeric(3, 5)", pa.decimal128(5, 5), Decimal("0.00012")),
    # Nothing of 39 digits fits into Delta, and nothing is declared for a bare numeric: the text is exact.
    (f"{'9' * 39}::numeric(39, 0)", pa.string(), "9" * 39),
    ("1e-30::numeric", pa.string(), "0.000000000000000000000000000001"),
    ("'NaN'::numeric", pa.string(), "NaN"),
    ("'12.50'::money", pa.string(), "12.50"),
    ("4294967295::oid", pa.int64(), 4294967295),
    ("'happy'::mood", pa.string(), "happy"),
    ("'6f0e9f0e-0000-4000-8000-000000000001'::uuid", pa.string(), "6f0e9f0e-0000-4000-8000-000000000001"),
    ("'{\"b\": 1, \"a\": [1.10]}'::jsonb", pa.string(), '{"a": [1.10], "b": 1}'),
    ("'{\"b\":1}'::json", pa.string(), '{"b":1}'),
    ("'\\x00ff'::bytea", pa.binary(), b"\x00\xff"),
    ("'24:00:00'::time", pa.string(), "24:00:00"),
    ("'1 month 2 days 3.5 s'::interval", pa.string(), "P1M2DT3.5S"),
    ("'10.0.0.0/8'::inet", pa.string(), "10.0.0.0/8"),
    ("int4range(1, 5)", pa.string(), "[1,5)"),
    ("(1, 'a')::pair", pa.string(), '{"x":1,"y":"a"}'),
    ("'ab '::char(4)", pa.string(), "ab  "),
    ("'NaN'::float8 = 'NaN'::float8", pa.bool_(), True),
    ("'infinity'::float8", pa.float64(), float("inf")),
    ("timestamptz '2024-07-01 12:00+02'", pa.timestamp("us", "UTC"), datetime(2024, 7, 1, 10, tzinfo=UTC)),
    ("timestamp '0001-01-01'", pa.timestamp("us"), datetime(1, 1, 1)),
    ("date '9999-12-31'", pa.date32(), date(9999, 12, 31)),
    ("ARRAY[1.5, NULL]::numeric(4, 2)[]", pa.list_(pa.decimal128(4, 2)), [Decimal("1.50"), None]),
    ("ARRAY['happy']::mood[]", pa.list_(pa.string()), ["happy"]),
    ("ARRAY[timestamptz '2024-01-01 00:00Z']", pa.list_(pa.timestamp("us", "UTC")),
     [datetime(2024, 1, 1, tzinfo=UTC)]),
    ("'{}'::int[]", pa.list_(pa.int32()), []),
    ("NULL::int[]", pa.list_(pa.int32()), None),
]  # fmt: skip


def test_values_arrive_exactly(source: PostgresSource, client: Any) -> None:
    client.execute(TYPES)
    query = "SELECT " + ", ".join(f"{expression} AS v{n}" for n, (expression, _, _) in enumerate(VALUES))
    (batch,) = source.read(stream(query=query), None)
    assert batch.data.schema.types == [type_ for _, type_, _ in VALUES]
    assert list(batch.data.to_pylist()[0].values()) == [value for _, _, value in VALUES]


ODD = [
    ("'NaN'::numeric(5, 2)", "NaN"),
    ("timestamptz 'infinity'", "infinity"),
    ("timestamp '-infinity'", "-infinity"),
    ("date 'infinity'", "infinity"),
    ("date '-infinity'", "-infinity"),
    ("date '0044-03-15 BC'", "days since 1970"),
    ("timestamp '10000-01-01'", "microseconds since 1970"),
    ("ARRAY[[1, 2], [3, 4]]", "{{1,2},{3,4}}"),
    ("'[2:3]={1,2}'::int[]", "[2:3]={1,2}"),
    ("ARRAY['NaN', '1']::numeric(5, 2)[]", "NaN"),
    ("ARRAY['infinity'::date]", "{infinity}"),
]


def test_what_arrow_cannot_hold_is_set_apart_and_the_rest_is_read(source: PostgresSource, client: Any) -> None:
    """Neither does it stop the read, nor does it arrive as something else (the driver alone makes 1677 of infinity).

    One row for each, which has it in a column of its own.
    """
    columns = ", ".join(f"{expression} AS v{n}" for n, (expression, _) in enumerate(ODD))
    client.execute(f"CREATE TABLE whole AS SELECT {columns}; CREATE TABLE t AS SELECT -1 AS id, * FROM whole LIMIT 0")
    for n in range(len(ODD)):
        client.execute(f"INSERT INTO t (id, v{n}) SELECT {n}, v{n} FROM whole")
    client.execute("INSERT INTO t (id) VALUES (-1), (99)")
    (batch,) = source.read(stream(query="SELECT * FROM t ORDER BY id"), None)
    assert batch.data.to_pylist() == [{"id": n, **{f"v{k}": None for k in range(len(ODD))}} for n in (-1, 99)]
    assert batch.rows_read == len(ODD) + 2
    assert batch.unreadable is not None
    for n, ((_, text), row) in enumerate(zip(ODD, batch.unreadable.to_pylist(), strict=True)):
        assert row["reason"].startswith(f"v{n}: ")
        assert text in row["reason"]
        assert json.loads(row["raw"])["id"] == n
        assert text in row["raw"].decode()


def test_names_that_need_quotes_are_quoted(source: PostgresSource, client: Any) -> None:
    client.execute("""CREATE SCHEMA "O'Hara"; CREATE TABLE "O'Hara"."a.b""{c}" ("x"" {y}" int, "from" text)""")
    client.execute("""INSERT INTO "O'Hara"."a.b""{c}" VALUES (1, 'it''s')""")
    options = {"table": """O'Hara."a.b""{c}\"""", "columns": ["from", 'x" {y}']}
    (batch,) = source.read(stream(**options), None)
    assert batch.data.to_pylist() == [{"from": "it's", 'x" {y}': 1}]


def test_a_read_sees_one_moment(source: PostgresSource, client: Any) -> None:
    """Rows that move about in the table while it is read are neither missed nor doubled."""
    client.execute("CREATE TABLE t AS SELECT n AS id, repeat('x', 500) AS filler FROM generate_series(1, 30000) n")
    batches = source.read(stream(table="t", read_ahead=0), None, batch_rows=1000)
    seen = next(iter(batches)).data.column("id").to_pylist()
    client.execute("DELETE FROM t WHERE id % 2 = 0")
    client.execute("INSERT INTO t SELECT n FROM generate_series(40001, 40100) n")
    for batch in batches:
        seen += batch.data.column("id").to_pylist()
    assert sorted(seen) == list(range(1, 30001))


def test_an_empty_snapshot_says_that_it_is_empty(source: PostgresSource, client: Any) -> None:
    client.execute("CREATE TABLE t (id int)")
    (batch,) = source.read(stream(table="t"), None)
    assert (batch.data.num_rows, batch.data.schema.names) == (0, ["id"])
    assert batch.position is not None


@pytest.mark.parametrize("type_", ["timestamptz", "timestamp", "date"])
def test_a_window_is_half_open_and_in_utc(source: PostgresSource, client: Any, type_: str) -> None:
    client.execute(f"CREATE TABLE t (id int, at {type_})")
    client.execute("SET TimeZone = 'UTC'")
    client.execute("INSERT INTO t VALUES (1, '2024-01-01'), (2, '2024-01-02'), (3, '2024-01-03'), (4, NULL)")
    for start, end in (
        (datetime(2024, 1, 2), datetime(2024, 1, 3)),
        (datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, 12, tzinfo=UTC)),
    ):
        (batch,) = source.read(stream(Window("at", start, end), table="t"), {"whatever": 1})
        assert batch.data.column("id").to_pylist() == [2]
        assert batch.position is None, "a window neither uses nor moves the position"


def test_a_window_over_something_else_than_time_is_refused(source: PostgresSource, client: Any) -> None:
    client.execute("CREATE TABLE t (id int)")
    with pytest.raises(ConfigurationError, match="id is of type int32"):
        list(source.read(stream(Window("id", datetime(2024, 1, 1), datetime(2024, 1, 2)), table="t"), None))


LARGE = "SELECT n AS id, repeat('x', 200) AS filler FROM generate_series(1, 100000) n"


def drain(batches: Iterator[Batch], then: Any = None) -> int:
    rows = 0
    for batch in batches:
        rows += batch.data.num_rows
        if then:
            then()
            then = None
    return rows


def test_a_server_that_is_shut_down_half_way_is_an_error(source: PostgresSource, client: Any) -> None:
    def kill() -> None:
        client.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'etl'")

    client.execute(f"CREATE TABLE t AS {LARGE}")
    with pytest.raises(UnavailableError):
        drain(source.read(stream(table="t"), None, batch_rows=1000), kill)


def test_a_wire_that_is_cut_is_an_error_wherever_it_is_cut(
    postgres_server: PostgresServer, postgres_database: str, client: Any
) -> None:
    client.execute("CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 30000) n")
    for bytes_ in (0, 10, 3000, 20_000, 200_000, 400_000):
        with wire_to(postgres_server.port, cut_after=bytes_) as wire:
            settings = postgres_server.settings(postgres_database, port=wire.port, resilience={"attempts": 1})
            with pytest.raises(UnavailableError):
                drain(PostgresSource(**settings).read(stream(table="t"), None))


def test_an_error_of_the_query_half_way_is_an_error(source: PostgresSource, postgres_server: PostgresServer) -> None:
    with pytest.raises(EngineError, match="division by zero"):
        drain(source.read(stream(query="SELECT 1 / (150000 - n) AS v FROM generate_series(1, 200000) n"), None))
    hasty = PostgresSource(**postgres_server.settings(source.database, statement_timeout=0.05))
    with pytest.raises(UnavailableError, match="statement timeout"):
        drain(hasty.read(stream(query="SELECT pg_sleep(5)::text AS v"), None))


def test_a_table_that_changes_between_description_and_read_is_an_error(
    source: PostgresSource, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    plan = PostgresSource._plan

    def change_afterwards(self: PostgresSource, stream: Stream) -> Any:
        planned = plan(self, stream)
        client.execute("ALTER TABLE t ALTER id TYPE text")
        return planned

    monkeypatch.setattr(PostgresSource, "_plan", change_afterwards)
    with pytest.raises(EtlError, match="id was described as int32 and came as"):
        drain(source.read(stream(table="t"), None))


def test_names_that_are_not_there_come_with_the_nearest_that_are(source: PostgresSource, client: Any) -> None:
    client.execute("CREATE TABLE orders (order_id int, amount int)")
    for options, near in (
        ({"table": "order"}, "orders"),
        ({"table": "public.ordres"}, "public.orders"),
        ({"table": "orders", "columns": ["order_idd"]}, "order_id"),
    ):
        with pytest.raises(NotFoundError) as caught:
            list(source.read(stream(**options), None))
        assert near in caught.value.fix
    with pytest.raises(NotFoundError, match="no_such"):
        list(source.read(stream(query="SELECT no_such FROM orders"), None))


def test_a_database_that_is_not_there_is_named(postgres_server: PostgresServer) -> None:
    with pytest.raises(NotFoundError, match="no_such_database"):
        PostgresSource(**postgres_server.settings("no_such_database")).latest(stream(table="t"))


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_nobody_there_is_tried_again_and_then_said(host: str) -> None:
    settings = {"host": host, "port": 1, "database": "d", "user": "u", "sslmode": "disable"}
    source = PostgresSource(**settings, resilience={"attempts": 2, "first_wait": 0.01})
    with pytest.raises(UnavailableError) as caught:
        source.read_schema(stream(table="t"))
    assert host in caught.value.where


def test_a_password_is_in_no_message_and_no_repr(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_PASSWORD", "geheim'\\ im Wort")
    settings = postgres_server.settings(user="limited", password=Secret(env="SOURCE_PASSWORD"))
    source = PostgresSource(**settings)
    with postgres_server.connect() as connection:
        connection.execute("DO $$BEGIN CREATE ROLE limited LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$")
        connection.execute("ALTER ROLE limited PASSWORD 'something else'")
        with pytest.raises(CredentialsRejectedError) as caught:
            source.latest(stream(table="t"))
        connection.execute("ALTER ROLE limited PASSWORD E'geheim\\'\\\\ im Wort'")
    assert source.latest(stream(table="t")) is not None
    error: BaseException | None = caught.value
    texts = [repr(source), repr(source.model_dump())]
    while error is not None:
        texts += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    assert not any("geheim" in text for text in texts)


def test_encryption_is_asked_for_unless_it_is_switched_off(postgres_server: PostgresServer) -> None:
    settings = postgres_server.settings()
    del settings["sslmode"]
    with pytest.raises(ConfigurationError, match="SSL") as caught:
        PostgresSource(**settings).read_schema(stream(table="t"))
    assert "sslmode" in caught.value.fix
    with pytest.raises(ValueError, match="sslmode"):
        PostgresSource(**{**settings, "sslmode": "prefer"})


def test_a_certificate_is_verified(tmp_path: Path) -> None:
    """With the right authority a connection is made, by both drivers; with another one it is not."""
    with running_postgres() as server:
        certificate, key = server.directory / "server.crt", server.directory / "server.key"
        write_certificate(certificate, key)
        for file in (certificate, key):
            os.chown(file, server.data.stat().st_uid, server.data.stat().st_gid)
        other = tmp_path / "other.crt"
        write_certificate(other, tmp_path / "other.key")
        with server.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET ssl_cert_file = '{certificate}'")
            connection.execute(f"ALTER SYSTEM SET ssl_key_file = '{key}'")
            connection.execute("ALTER SYSTEM SET ssl = on")
        server.stop()
        server.start()
        settings = server.settings(sslmode="verify-full", sslrootcert=str(certificate), resilience={"attempts": 1})
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        (batch,) = PostgresSource(**settings).read(stream(query=query), None)
        assert batch.data.to_pylist() == [{"ssl": True}]
        for wrong in ({"sslrootcert": str(other)}, {"sslrootcert": str(tmp_path / "none.crt")}):
            with pytest.raises(ConfigurationError, match="certificate"):
                PostgresSource(**{**settings, **wrong}).latest(stream(table="t"))


def write_certificate(certificate: Path, key: Path) -> None:
    """Write a certificate for 127.0.0.1 that signs itself, and its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )  # fmt: skip
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(private.private_bytes(pem, form, serialization.NoEncryption()))
    key.chmod(0o600)


@pytest.mark.parametrize("options", [{}, {"table": "t", "query": "SELECT 1"}, {"table": "t", "colums": ["a"]}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"table|colums"):
        PostgresStreamOptions(type="postgres", **options)


def test_a_reader_that_stops_early_leaves_no_thread_and_no_connection(source: PostgresSource, client: Any) -> None:
    client.execute(f"CREATE TABLE t AS {LARGE}")
    batches: Any = source.read(stream(table="t"), None, batch_rows=1000)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name == "etl-read-ahead"]
    for _ in range(100):
        (left,) = client.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'etl'").fetchone()
        if not left:
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"{left} connections are still open")


def test_a_snapshot_after_an_increment_and_back_is_whole(source: PostgresSource, client: Any) -> None:
    """The two captures share the form of the position, but a snapshot never skips anything."""
    client.execute("CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 10) n")
    incremental = Stream("s", PostgresStreamOptions(type="postgres", table="t"), Incremental(cursor="id"))
    (first,) = source.read(incremental, None)
    (whole,) = source.read(stream(table="t"), first.position)
    assert whole.data.num_rows == 10
    assert list(source.read(incremental, whole.position)) == []
