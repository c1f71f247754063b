"""Reading Snowflake: exact values, increments without gaps, and no error taken for an end."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl_assets.bronze import Bronze
from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    NotFoundError,
    RowsNotConservedError,
    SchemaConflictError,
    UnavailableError,
)
from etl_resources.lake import Lake
from etl_resources.snowflake_errors import translate
from etl_resources.snowflake_sql import literal, resolved
from etl_resources.source import Batch, Incremental, Position, Stream, Window
from etl_resources.sources.cursor_increment import Bounds, Increment, end_of
from etl_resources.sources.snowflake import SnowflakeSource, SnowflakeStreamOptions
from etl_resources.sources.snowflake_columns import Column
from tests.assets.doubles import new_run
from tests.servers.proxy import free_port, wire_to
from tests.servers.s3 import S3
from tests.servers.snowflake import Snowflake, running_snowflake, shared_snowflake
from tests.soaking import some

QUICK = {"attempts": 2, "first_wait": 0.01, "longest_wait": 0.05}


@pytest.fixture
def server() -> Snowflake:
    return shared_snowflake()


def source(server: Snowflake, **settings: Any) -> SnowflakeSource:
    return SnowflakeSource(**server.settings(**{"resilience": QUICK, **settings}))


def stream(window: Window | None = None, cursor: str | None = None, **options: Any) -> Stream:
    capture = Incremental(cursor=cursor) if cursor else None
    return Stream("s", SnowflakeStreamOptions(**options), capture, window)


def read(server: Snowflake, wanted: Stream, since: Position | None = None) -> list[Batch]:
    return list(source(server).read(wanted, since))


def ids(batches: list[Batch]) -> list[int]:
    return sorted(int(i) for b in batches for i in b.data.column(0).to_pylist())


VALUES = [
    ("7::NUMBER(38, 0)", pa.decimal128(38, 0), Decimal(7)),
    ("7::NUMBER(18, 0)", pa.int64(), 7),
    ("1234567890.12::NUMBER(12, 2)", pa.decimal128(12, 2), Decimal("1234567890.12")),
    ("0.1::NUMBER(5, 1)", pa.decimal128(5, 1), Decimal("0.1")),
    ("0.1::FLOAT", pa.float64(), 0.1),
    ("'9999-12-31 23:59:59.999999'::TIMESTAMP_NTZ", pa.timestamp("us"), datetime(9999, 12, 31, 23, 59, 59, 999999)),
    ("'0001-01-01'::TIMESTAMP_NTZ", pa.timestamp("us"), datetime(1, 1, 1)),
    ("TO_TIMESTAMP_TZ('2024-07-01 12:00:00 +02:00')", pa.timestamp("us", "UTC"),
     datetime(2024, 7, 1, 10, tzinfo=UTC)),
    ("PARSE_JSON('{\"b\": [1.5, null]}')", pa.string(), '{"b":[1.5,null]}'),
    ("TO_BINARY('00ff', 'hex')", pa.binary(), b"\x00\xff"),
]  # fmt: skip


def test_values_arrive_exactly(server: Snowflake) -> None:
    query = "SELECT " + ", ".join(f"{expression} AS v{n}" for n, (expression, _, _) in enumerate(VALUES))
    (batch,) = read(server, stream(query=query))
    assert batch.data.schema.types == [type_ for _, type_, _ in VALUES]
    assert list(batch.data.to_pylist()[0].values()) == [value for _, _, value in VALUES]


def test_parts_whose_numbers_are_of_different_width_are_one_type(server: Snowflake) -> None:
    """Snowflake sends 8, 16, 32 or 64 bits, as the values of each part need; its client makes doubles of decimals."""
    server.execute(
        "CREATE OR REPLACE TABLE widths AS SELECT (i * i)::NUMBER(38, 0) AS n, i::NUMBER(12, 2) AS d FROM"
        " (SELECT ROW_NUMBER() OVER (ORDER BY 1) - 1 AS i FROM TABLE(GENERATOR(ROWCOUNT => 45000)))"
    )
    for integers, type_ in (("exact", pa.decimal128(38, 0)), ("int64", pa.int64())):
        batches = read(server, stream(table="widths", integers=integers))
        assert len(batches) == 3
        assert {tuple(b.data.schema.types) for b in batches} == {(type_, pa.decimal128(12, 2))}
        assert sum(int(n) for b in batches for n in b.data.column("N").to_pylist()) == sum(i * i for i in range(45000))


def test_a_number_that_does_not_fit_into_64_bits_is_an_error_and_not_another_number() -> None:
    from etl_resources.sources.snowflake_columns import conformed

    table = pa.table({"N": pa.array([Decimal(2**63)], pa.decimal128(38, 0))})
    with pytest.raises(SchemaConflictError, match="column N holds a value that is no int64") as caught:
        conformed(table, [Column("N", "FIXED", pa.int64())], "test")
    assert "integers" in caught.value.fix


def test_names_that_need_quotes_are_quoted(server: Snowflake) -> None:
    server.execute('CREATE OR REPLACE TABLE "a.b ""{c}" ("x y" INT, "From" VARCHAR)')
    server.execute("""INSERT INTO "a.b ""{c}" VALUES (1, 'it''s')""")
    (batch,) = read(server, stream(table='public."a.b ""{c}"', columns=["from", "x y"]))
    assert batch.data.to_pylist() == [{"From": "it's", "x y": 1}]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("t", ("T",)), ("s.T1", ("S", "T1")), ('db.s."t ""x"""', ("DB", "S", 't "x"')), ("a b", None), ("", None),
        ("a;b", None), ("a.b.c.d", None), ('"a', None), ("a.", None),
    ],
)  # fmt: skip
def test_names_are_what_snowflake_takes_them_for(name: str, parts: tuple[str, ...] | None) -> None:
    if parts is None:
        with pytest.raises(ConfigurationError, match="names no table"):
            resolved(name)
    else:
        assert resolved(name) == parts


def test_a_literal_ends_where_it_ends() -> None:
    assert literal("it's \\' OR 1=1") == "'it''s \\\\'' OR 1=1'"


def test_an_empty_snapshot_says_that_it_is_empty(server: Snowflake) -> None:
    server.execute("CREATE OR REPLACE TABLE nothing (id INT)")
    (batch,) = read(server, stream(table="nothing"))
    assert (batch.data.num_rows, batch.data.schema.names) == (0, ["ID"])
    assert batch.position is not None
    assert read(server, stream(table="nothing", cursor="id", late_by=0)) == []


@pytest.mark.parametrize("type_", some(["TIMESTAMP_TZ", "DATE", "TIMESTAMP_NTZ"], 2))
def test_a_window_is_half_open_and_in_utc(server: Snowflake, type_: str) -> None:
    server.execute(
        f"CREATE OR REPLACE TABLE days (id INT, moment {type_})",
        "INSERT INTO days VALUES (1, '2024-01-01'), (2, '2024-01-02'), (3, '2024-01-03'), (4, NULL)",
    )
    for start, end in (
        (datetime(2024, 1, 2), datetime(2024, 1, 3)),
        (datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, 12, tzinfo=UTC)),
    ):
        (batch,) = read(server, stream(Window("moment", start, end), table="days"), {"whatever": 1})
        assert batch.data.column("ID").to_pylist() == [2]
        assert batch.position is None


@pytest.mark.parametrize("type_", some(["TIMESTAMP_NTZ", "TIMESTAMP_TZ"], 1))
def test_rows_that_are_young_wait_so_that_one_committed_late_is_not_lost(server: Snowflake, type_: str) -> None:
    """A row with an earlier cursor than one that was there already is read, if it is not later than was promised."""
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    ago = {seconds: f"'{now - timedelta(seconds=seconds)}'::{type_}" for seconds in (9000, 60, 30, -3600)}
    server.execute(
        f"CREATE OR REPLACE TABLE late (id INT, moment {type_})",
        f"INSERT INTO late SELECT 1, {ago[9000]} UNION ALL SELECT 2, {ago[30]} UNION ALL SELECT 3, {ago[-3600]}",
    )
    wanted = stream(table="late", cursor="moment", late_by=600)
    first = read(server, wanted)
    assert ids(first) == [1], "the others may be overtaken"
    server.execute(f"INSERT INTO late SELECT 4, {ago[60]}")
    assert ids(read(server, wanted, first[-1].position)) == []
    hasty = stream(table="late", cursor="moment", late_by=0)
    second = read(server, hasty, first[-1].position)
    assert ids(second) == [2, 4], "and never one from the future"
    assert read(server, hasty, second[-1].position) == []


def test_rows_of_the_last_microsecond_are_read_once(server: Snowflake) -> None:
    """The largest cursor is itself part of the increment, whose end lies right behind it."""
    server.execute(
        "CREATE OR REPLACE TABLE ties (id INT, moment TIMESTAMP_NTZ)",
        "INSERT INTO ties VALUES (1, '2024-01-01 00:00:00.123456'), (2, '2024-01-01 00:00:00.123456')",
    )
    wanted = stream(table="ties", cursor="MOMENT", late_by=1)
    first = read(server, wanted)
    assert ids(first) == [1, 2]
    server.execute("INSERT INTO ties VALUES (3, '2024-01-01 00:00:00.123457')")
    assert ids(read(server, wanted, first[-1].position)) == [3]
    assert source(server).latest(wanted) != first[-1].position
    assert source(server).estimate(wanted, first[-1].position).rows == 1


def test_a_day_waits_until_it_is_over(server: Snowflake) -> None:
    today = datetime.now(UTC).date()
    server.execute(
        "CREATE OR REPLACE TABLE dated (id INT, day DATE)",
        f"INSERT INTO dated VALUES (1, '{today - timedelta(days=2)}'), (2, '{today}')",
    )
    first = read(server, stream(table="dated", cursor="day", late_by=86400))
    assert ids(first) == [1]
    server.execute(f"INSERT INTO dated VALUES (3, '{today - timedelta(days=1)}')")
    assert read(server, stream(table="dated", cursor="day", late_by=86400), first[-1].position) == []
    assert ids(read(server, stream(table="dated", cursor="day", late_by=0), first[-1].position)) == [3]


def test_the_end_of_an_increment_in_numbers_holds_back_so_many() -> None:
    now = datetime(2024, 1, 2, 0, 0, 5, tzinfo=UTC)
    assert end_of(Bounds(now, 10, 0), 3, Column("N", "FIXED", pa.int64())) == 8
    assert end_of(Bounds(now, date(2024, 1, 1), 0), 10, Column("D", "DATE", pa.date32())) == date(2024, 1, 1)
    assert Increment(Column("N", "FIXED", pa.int64()), 8, 8).is_empty


def test_what_an_increment_cannot_promise_it_refuses(server: Snowflake) -> None:
    server.execute(
        "CREATE OR REPLACE TABLE refused (id INT, name VARCHAR, moment TIMESTAMP_NTZ)",
        "INSERT INTO refused VALUES (1, 'a', '2024-01-01'), (2, 'b', NULL)",
    )
    for options, message in (
        ({"cursor": "moment"}, "how late a row may be committed"),
        ({"cursor": "moment", "late_by": 1}, "empty in 1 rows"),
        ({"cursor": "name", "late_by": 1}, "NAME is of type TEXT"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            read(server, stream(table="refused", **options))
    position = read(server, stream(table="refused", cursor="id", late_by=0))[-1].position
    with pytest.raises(ConfigurationError, match="the last read was by ID"):
        read(server, stream(query="SELECT id, CURRENT_DATE AS d FROM refused", cursor="d", late_by=0), position)


def test_names_that_are_not_there_come_with_the_nearest_that_are(server: Snowflake) -> None:
    server.execute("CREATE OR REPLACE TABLE orders (order_id INT, amount INT)")
    for options, near in (
        ({"table": "order"}, "ORDERS"),
        ({"table": "public.ordres"}, "PUBLIC.ORDERS"),
        ({"table": "orders", "columns": ["order_idd"]}, "ORDER_ID"),
    ):
        with pytest.raises(NotFoundError) as caught:
            read(server, stream(**options))
        assert near in caught.value.fix
    with pytest.raises(NotFoundError, match="NO_SUCH"):
        read(server, stream(query="SELECT no_such FROM orders"))


def test_a_query_that_cannot_be_run_is_no_outage(server: Snowflake) -> None:
    with pytest.raises(EngineError):
        read(server, stream(query="SELEC 1"))


@pytest.fixture(scope="module")
def large() -> int:
    rows = 80_000
    shared_snowflake().execute(
        "CREATE OR REPLACE TABLE large AS SELECT ROW_NUMBER() OVER (ORDER BY 1) AS id, UUID_STRING() AS filler"
        f" FROM TABLE(GENERATOR(ROWCOUNT => {rows}))"
    )
    return rows


@pytest.mark.parametrize("bytes_", some([2_000_000, 3000, 0], 2))
def test_a_wire_that_is_cut_is_an_error_wherever_it_is_cut(server: Snowflake, large: int, bytes_: int) -> None:
    waits = {"attempts": 1, "timeout": 2, "silence": 2, "first_wait": 0.01, "longest_wait": 0.05}
    with wire_to(server.port, cut_after=bytes_) as wire, pytest.raises(UnavailableError):
        list(source(Snowflake(wire.port, server.s3), resilience=waits).read(stream(table="large"), None))


@pytest.mark.timeout(40)
@pytest.mark.parametrize("bytes_", some([1_000_000, 0, 3000], 2))
def test_a_server_that_falls_silent_is_given_up(server: Snowflake, large: int, bytes_: int) -> None:
    """While it logs in, while it answers, and while a part of the result is fetched."""
    waits = {"attempts": 1, "timeout": 1, "silence": 1, "first_wait": 0.01, "longest_wait": 0.05}
    with wire_to(server.port, stall_after=bytes_) as wire, pytest.raises(UnavailableError):
        list(source(Snowflake(wire.port, server.s3), resilience=waits).read(stream(table="large"), None))


def test_two_runs_with_an_outage_between_hold_every_row_once(server: Snowflake, large: int, tmp_path: Path) -> None:
    bronze = Bronze(Lake(uri=str(tmp_path)), "test", stream(table="large", cursor="id", late_by=0, integers="int64"))
    with wire_to(server.port, cut_after=2_000_000) as wire, pytest.raises(UnavailableError):
        bronze.land(source(Snowflake(wire.port, server.s3)), new_run())
    bronze.land(source(server), new_run())
    server.execute(f"INSERT INTO large SELECT {large + 1}, 'later'")
    bronze.land(source(server), new_run())
    server.execute(f"DELETE FROM large WHERE id > {large}")
    handle = bronze.table.open()
    assert handle is not None
    found = handle.delta.to_pyarrow_table(columns=["ID"]).column("ID").to_pylist()
    assert sorted(found) == list(range(1, large + 2))


@pytest.mark.soak  # to a client of HTTP it is a wire that is cut, and a run after an outage
def test_a_server_that_is_restarted_half_way_is_an_error_and_then_read_anew() -> None:
    port = free_port()
    fill = "CREATE TABLE t AS SELECT ROW_NUMBER() OVER (ORDER BY 1) AS id FROM TABLE(GENERATOR(ROWCOUNT => 100000))"
    with running_snowflake(port) as server:
        server.execute(fill)
        batches = source(server, resilience={**QUICK, "timeout": 2, "silence": 2}).read(stream(table="t"), None)
        next(batches)
    with running_snowflake(port) as server:
        server.execute(fill)
        with pytest.raises(UnavailableError):
            list(batches)
        assert sum(b.data.num_rows for b in read(server, stream(table="t"))) == 100_000


def test_a_statement_may_take_longer_than_an_answer(server: Snowflake) -> None:
    """The client cancels whatever runs longer than this, although the server says all the while that it is at work."""
    assert source(server)._settings(2)["network_timeout"] == 7 * 86_400
    assert source(server, statement_timeout=5)._settings(2)["network_timeout"] == 5


def test_parts_that_are_missing_are_noticed(server: Snowflake, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's count of the rows is held against those that came."""
    from snowflake.connector.cursor import SnowflakeCursor

    whole = SnowflakeCursor.fetch_arrow_batches

    def without_the_second(self: Any, **options: Any) -> Iterator[pa.Table]:
        return (table for n, table in enumerate(whole(self, **options)) if n != 1)

    monkeypatch.setattr(SnowflakeCursor, "fetch_arrow_batches", without_the_second)
    with pytest.raises(RowsNotConservedError, match=f"there are {large} rows, and {large - 20_000} came"):
        read(server, stream(table="large"))


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_nobody_there_is_tried_again_and_then_said(server: Snowflake, host: str) -> None:
    waits = {"attempts": 2, "timeout": 1, "first_wait": 0.01}
    with pytest.raises(UnavailableError) as caught:
        source(server, host=host, port=1, resilience=waits).ping()
    assert host in caught.value.where


def test_a_password_is_in_no_message_and_no_repr(server: Snowflake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNOWFLAKE_TEST", "geheimes Wort")
    refused = source(server, password={"env": "SNOWFLAKE_TEST"})
    with pytest.raises(CredentialsRejectedError, match="Incorrect username or password") as caught:
        refused.ping()
    assert source(server).ping()
    error: BaseException | None = caught.value
    texts = [repr(refused), repr(refused.model_dump())]
    while error is not None:
        texts += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    assert not any("geheim" in text for text in texts)


def test_a_server_without_a_certificate_that_is_trusted_is_not_talked_to(tmp_path: Path) -> None:
    from tests.resources.test_postgres_source import write_certificate

    write_certificate(tmp_path / "crt", tmp_path / "key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                context.wrap_socket(client, server_side=True).recv(100)
            except OSError:
                client.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    waits = {"attempts": 1, "timeout": 2, "first_wait": 0.01}
    settings = Snowflake(listener.getsockname()[1], S3(0)).settings(protocol="https", resilience=waits)
    try:
        with pytest.raises(ConfigurationError, match=r"(?i)certificate"):
            SnowflakeSource(**settings).ping()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_what_logs_in_is_one_thing() -> None:
    given: dict[str, Any] = {"account": "a", "user": "u", "database": "d"}
    other: list[dict[str, Any]] = [{}, {"password": {"env": "A"}, "token": {"env": "B"}}]
    for ways in other:
        with pytest.raises(ValueError, match="one of `password`, `private_key` and `token`"):
            SnowflakeSource(**given, **ways)


def test_a_key_is_given_as_text_and_a_bad_one_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key, pem = rsa.generate_private_key(65537, 2048), serialization.Encoding.PEM
    phrase = serialization.BestAvailableEncryption(b"phrase")
    monkeypatch.setenv("KEY", key.private_bytes(pem, serialization.PrivateFormat.PKCS8, phrase).decode())
    monkeypatch.setenv("PHRASE", "phrase")
    given: dict[str, Any] = {"account": "a", "user": "u", "database": "d", "private_key": {"env": "KEY"}}
    settings = SnowflakeSource(**given | {"private_key_passphrase": {"env": "PHRASE"}})._settings(2)
    assert settings["authenticator"] == "SNOWFLAKE_JWT"
    assert serialization.load_der_private_key(settings["private_key"], None).private_numbers() == key.private_numbers()  # type: ignore[union-attr]
    for text in ("geheim", os.environ["KEY"]):
        monkeypatch.setenv("KEY", text)
        with pytest.raises(ConfigurationError, match="KEY holds no private key") as caught:
            SnowflakeSource(**given)._settings(2)
        assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "text", "kind"),
    [
        (606, "No active warehouse selected in the current session.", ConfigurationError),
        (904, "SQL compilation error: invalid identifier 'X'", NotFoundError),
        (2003, "Object 'X' does not exist or not authorized.", NotFoundError),
        (3001, "Insufficient privileges to operate on table 'X'", CredentialsRejectedError),
        (100016, "Failed to access remote file: access denied.", CredentialsRejectedError),
        (604, "SQL execution canceled", UnavailableError),
        (250001, "Failed to connect to DB: x. JWT token is invalid.", CredentialsRejectedError),
        (250001, "Failed to connect: certificate verify failed", ConfigurationError),
        (250003, "Failed to execute request: 503 Service Unavailable", UnavailableError),
        (1003, "SQL compilation error: syntax error", EngineError),
    ],
)
def test_errors_as_snowflake_gives_them_are_told_apart(number: int, text: str, kind: type) -> None:
    from snowflake.connector.errors import OperationalError, ProgrammingError

    raised = OperationalError if number >= 250000 else ProgrammingError
    error = translate(raised(msg=text, errno=number), "test")
    assert type(error) is kind
    assert text in error.what


def test_the_address_of_a_part_is_shown_without_what_opens_it(server: Snowflake, large: int) -> None:
    """Neither in an error nor in the client's own warnings."""
    shown = translate(OSError("url: /stage/part_1?X-Amz-Signature=geheim&X-Amz-Expires=1 (Caused by x)"), "test").what
    assert "geheim" not in shown
    assert "/stage/part_1?… (Caused by x)" in shown
    source(server).ping()
    assert not logging.getLogger("snowflake.connector.result_batch").isEnabledFor(logging.ERROR)
    assert not logging.getLogger("snowflake.connector.vendored.urllib3.connectionpool").isEnabledFor(logging.ERROR)


@pytest.mark.parametrize("options", [{}, {"table": "t", "query": "SELECT 1"}, {"table": "t", "colums": ["a"]}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"table|colums"):
        SnowflakeStreamOptions(**options)
