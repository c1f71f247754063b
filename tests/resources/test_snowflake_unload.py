"""Large results of Snowflake by way of S3: the same values, every row once, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from etl_resources.exceptions import (
    ConfigurationError,
    EtlError,
    NotFoundError,
    RowsNotConservedError,
    UnavailableError,
)
from etl_resources.source import Incremental, Position, Stream
from etl_resources.sources.snowflake import SnowflakeSource, SnowflakeStreamOptions
from tests.servers.proxy import wire_to
from tests.servers.s3 import BUCKET
from tests.servers.snowflake import UNLOAD, Snowflake, shared_snowflake

QUICK = {"attempts": 2, "first_wait": 0.01, "longest_wait": 0.05}
ROWS = 30_000
VALUES = (
    "7::NUMBER(38, 0)", "7::NUMBER(18, 0)", "1234567890.12::NUMBER(12, 2)", "0.1::FLOAT", "TRUE", "'it''s'",
    "'9999-12-31 23:59:59.999999'::TIMESTAMP_NTZ", "'0001-01-01'::TIMESTAMP_NTZ",
    "TO_TIMESTAMP_TZ('2024-07-01 12:00:00 +02:00')", "'2024-02-29'::DATE", "'12:30:00.000001'::TIME",
    "PARSE_JSON('{\"b\": [1.5, null]}')", "TO_BINARY('00ff', 'hex')", "NULL::VARCHAR",
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Snowflake:
    running = shared_snowflake()
    running.execute(
        "CREATE OR REPLACE TABLE unloaded AS SELECT ROW_NUMBER() OVER (ORDER BY 1) AS id, UUID_STRING() AS filler"
        f" FROM TABLE(GENERATOR(ROWCOUNT => {ROWS}))"
    )
    return running


@pytest.fixture
def fault(server: Snowflake) -> Iterator[Any]:
    """Make the server misbehave in a way that it knows by name, until the test ends."""
    yield lambda name: server.execute(f"CALL FAULT('{name}')")
    server.execute("CALL FAULT('')")


def source(server: Snowflake, **settings: Any) -> SnowflakeSource:
    return SnowflakeSource(**server.settings(**{"resilience": QUICK, **settings}))


def stream(cursor: str | None = None, **options: Any) -> Stream:
    return Stream("s", SnowflakeStreamOptions(**options), Incremental(cursor=cursor) if cursor else None)


def ids(opened: SnowflakeSource, wanted: Stream, since: Position | None = None) -> tuple[list[int], Position | None]:
    batches = list(opened.read(wanted, since, batch_rows=5_000))
    return sorted(int(i) for b in batches for i in b.data.column(0).to_pylist()), batches[
        -1
    ].position if batches else None


def left(server: Snowflake) -> list[str]:
    return [found.path for found in source(server).store.storage().find(f"{UNLOAD['to']}/**")]


def test_values_are_those_that_come_without_it(server: Snowflake) -> None:
    query = "SELECT " + ", ".join(f'{expression} AS "v {n}"' for n, expression in enumerate(VALUES))
    (plain,) = source(server).read(stream(query=query), None)
    (unloaded,) = source(server).read(stream(query=query, unload=UNLOAD), None)
    assert unloaded.data.equals(plain.data)
    assert pa.binary() in unloaded.data.schema.types


def test_rows_are_read_once_and_removed(server: Snowflake) -> None:
    wanted = stream(table="unloaded", unload=UNLOAD, cursor="id", late_by=0)
    found, position = ids(source(server), wanted)
    assert found == list(range(1, ROWS + 1))
    assert left(server) == []
    assert ids(source(server), wanted, position) == ([], None)


def test_an_empty_snapshot_says_that_it_is_empty(server: Snowflake) -> None:
    server.execute("CREATE OR REPLACE TABLE nothing_unloaded (id INT)")
    (batch,) = source(server).read(stream(table="nothing_unloaded", unload=UNLOAD), None)
    assert (batch.data.num_rows, batch.data.schema.names) == (0, ["ID"])
    assert batch.position is not None


def test_a_reader_that_stops_half_way_leaves_nothing(server: Snowflake) -> None:
    batches: Any = source(server).read(stream(table="unloaded", unload=UNLOAD, read_ahead=1), None, batch_rows=1_000)
    next(batches)
    assert len(left(server)) == 2
    batches.close()
    assert left(server) == []


@pytest.mark.parametrize(("name", "said"), [("lose_rows", "its files hold"), ("lose_file", "wrote 2 files")])
def test_rows_that_are_missing_are_noticed(server: Snowflake, fault: Any, name: str, said: str) -> None:
    fault(name)
    with pytest.raises(RowsNotConservedError, match=said):
        ids(source(server), stream(table="unloaded", unload=UNLOAD))
    assert left(server) == []


def test_an_object_store_that_breaks_off_is_an_error(server: Snowflake) -> None:
    with wire_to(server.s3.port, cut_after=400_000) as wire:
        store = server.settings()["store"]
        store["options"] = {**store["options"], "endpoint": f"http://127.0.0.1:{wire.port}"}
        store["client_options"] = {**store["client_options"], "timeout": "2s"}
        with pytest.raises(UnavailableError):
            ids(source(server, store=store), stream(table="unloaded", unload=UNLOAD))
    from etl_resources.unloaded import remove

    remove(f"s3://{BUCKET}/snowflake/", source(server).store.storage())


@pytest.mark.parametrize(
    ("settings", "options", "kind", "said"),
    [
        ({"storage_integration": None}, {"table": "unloaded"}, ConfigurationError, "lets Snowflake write"),
        ({"storage_integration": "OTHER"}, {"table": "unloaded"}, NotFoundError, "OTHER"),
    ],
)
def test_what_snowflake_cannot_write_by_is_said(
    server: Snowflake, settings: dict[str, Any], options: dict[str, Any], kind: type[EtlError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        ids(source(server, **settings), stream(unload=UNLOAD, **options))


def test_a_type_that_parquet_would_change_is_refused() -> None:
    from etl_resources.sources.snowflake_columns import Column
    from etl_resources.sources.snowflake_unload import selected

    with pytest.raises(ConfigurationError, match="PLACE is of type GEOGRAPHY"):
        selected([Column("PLACE", "GEOGRAPHY", pa.string())], "test")
