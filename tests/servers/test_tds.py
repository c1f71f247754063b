"""The TDS server that the tests of SQL Server stand on: what it says is what the driver reads."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, localcontext
from typing import Any

import mssql_python
import pyarrow as pa
import pytest

from tests.servers.tds import USER, TdsServer, shared_tds
from tests.servers.tds_types import SqlType, rows

COLUMNS = {
    "b": ("bigint", pa.int64()), "t": ("tinyint", pa.uint8()), "f": ("float", pa.float64()), "z": ("bit", pa.bool_()),
    "d": ("decimal(38, 10)", pa.decimal128(38, 10)), "s": ("nvarchar(40)", pa.string()),
    "m": ("nvarchar(max)", pa.string()), "v": ("varbinary(30)", pa.binary()), "w": ("varbinary(max)", pa.binary()),
    "day": ("date", pa.date32()), "tm": ("time(6)", pa.time64("us")), "ts": ("datetime2(7)", pa.timestamp("us")),
    "tz": ("datetimeoffset(6)", pa.timestamp("us", "UTC")),
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> TdsServer:
    return shared_tds()


def made_up(kind: pa.DataType, chance: random.Random) -> Any:
    if chance.random() < 0.2:
        return None
    if pa.types.is_string(kind):
        return "".join(chance.choice("aé東😀' ") for _ in range(chance.choice([0, 1, 5, 20])))
    if pa.types.is_binary(kind):
        return chance.randbytes(chance.choice([0, 1, 30]))
    moment = datetime(1, 1, 2) + timedelta(microseconds=chance.randrange(3 * 10**17))
    makers: dict[pa.DataType, Any] = {
        pa.int64(): lambda: chance.randint(-(2**63), 2**63 - 1), pa.uint8(): lambda: chance.randrange(256),
        pa.float64(): lambda: chance.uniform(-1e300, 1e300), pa.bool_(): lambda: chance.random() < 0.5,
        pa.decimal128(38, 10): lambda: Decimal(chance.randint(-(10**38) + 1, 10**38 - 1)).scaleb(-10),
        pa.date32(): moment.date, pa.time64("us"): moment.time, pa.timestamp("us"): lambda: moment,
        pa.timestamp("us", "UTC"): lambda: moment.replace(tzinfo=UTC),
    }  # fmt: skip
    with localcontext(prec=50):
        return makers[kind]()


def test_what_goes_in_comes_out_of_the_driver(server: TdsServer) -> None:
    """Values at random in every type, null ones and empty ones among them, over several packets and blocks."""
    chance = random.Random(7)
    data = pa.table(
        {name: pa.array([made_up(kind, chance) for _ in range(3000)], kind) for name, (_, kind) in COLUMNS.items()}
    )
    server.execute(f"CREATE TABLE dbo.random ({', '.join(f'{n} {t}' for n, (t, _) in COLUMNS.items())})")
    server.load("dbo.random", data)
    found = server.execute("SELECT * FROM dbo.random")
    assert found == [tuple(row.values()) for row in data.to_pylist()]


def test_an_empty_value_is_not_null_and_rows_have_the_size_that_they_say() -> None:
    batch = pa.record_batch({"v": pa.array(["", None, "ab"])})
    assert bytes(rows(batch, [SqlType("nvarchar", -1)])).hex() == (
        "d200" + "00" * 12 + "d201" + "d200" + "04" + "00" * 7 + "04000000" + "61006200" + "00000000"
    )
    assert bytes(rows(pa.record_batch({"v": pa.array([1])}), [SqlType("int")])).hex() == "d10401000000"
    assert bytes(rows(batch.slice(0, 0), [SqlType("nvarchar", 5)])) == b""


PARAMETERS = [
    1, -(2**40), True, 0.5, Decimal("-12.3400"), "it's 😀", "", b"\x00\xff", date(2024, 2, 29), None,
    datetime(2024, 2, 29, 23, 59, 59, 999999), time(12, 30, 0, 1), "x" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("value", PARAMETERS, ids=repr)
def test_parameters_arrive(server: TdsServer, value: Any) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        for _ in range(2):  # the second time the statement is prepared already
            cursor.execute("SELECT ? AS v, ? AS n", (value, 7))
            ((found, number),) = cursor.fetchall()
            assert (str(found) if isinstance(value, time) else found) == (
                str(value) if isinstance(value, time) else value
            )
            assert number == 7


def test_transactions_of_the_driver_commit_and_roll_back(server: TdsServer) -> None:
    server.execute("CREATE TABLE dbo.moves (id int)")
    with server.connect(autocommit=False) as connection, connection.cursor() as cursor:
        for id_, end in ((1, connection.commit), (2, connection.rollback), (3, connection.commit)):
            cursor.execute("INSERT INTO dbo.moves VALUES (?)", (id_,))
            assert id_ not in {i for (i,) in server.execute("SELECT id FROM dbo.moves")}
            end()
    assert server.execute("SELECT id FROM dbo.moves ORDER BY id") == [(1,), (3,)]


def test_errors_have_the_words_of_sql_server(server: TdsServer) -> None:
    for statement, said in (
        ("SELECT 1 FROM dbo.nowhere", "Invalid object name 'nowhere'"),
        ("SELECT nothing FROM sys.databases", "Invalid column name 'nothing'"),
        ("SELECT 1 / 0 AS a FROM (", "Incorrect syntax"),
    ):
        with pytest.raises(mssql_python.Error, match=said):
            server.execute(statement)
    with pytest.raises(mssql_python.Error, match=f"Login failed for user '{USER}'"):
        mssql_python.connect(f"Server=127.0.0.1,{server.port};UID={USER};PWD=wrong;Encrypt=no")


def test_a_result_can_be_cancelled_and_the_connection_used_again(server: TdsServer) -> None:
    server.execute("CREATE TABLE dbo.many (id bigint)")
    server.load("dbo.many", pa.table({"id": range(500_000)}))
    with server.connect() as connection, connection.cursor() as cursor:
        for _ in range(3):
            cursor.execute("SELECT id FROM dbo.many")
            reader = cursor.arrow_reader(1000)
            next(reader)
            reader.close()
            cursor.execute("SELECT 1 AS one")
            assert [tuple(row) for row in cursor.fetchall()] == [(1,)]
