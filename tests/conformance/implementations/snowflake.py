"""Snowflake in the conformance suite: fakesnow, with results cut into parts."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from etl_resources.secret import Secret
from etl_resources.source import Incremental, Stream
from etl_resources.sources.snowflake import SnowflakeSource, SnowflakeStreamOptions
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.servers.proxy import wire_to
from tests.servers.snowflake import UNLOAD, shared_snowflake

_NESTED = {"struct", "list", "list_of_structs"}


def declared(type_: pa.DataType) -> str:
    """Return the type that a person would declare for such values."""
    if pa.types.is_decimal(type_):
        return f"NUMBER({type_.precision}, {type_.scale})"
    names = {
        pa.int64(): "BIGINT", pa.float64(): "FLOAT", pa.bool_(): "BOOLEAN", pa.string(): "VARCHAR",
        pa.binary(): "BINARY", pa.date32(): "DATE", pa.time64("us"): "TIME", pa.timestamp("us"): "TIMESTAMP_NTZ",
        pa.timestamp("us", "UTC"): "TIMESTAMP_TZ",
    }  # fmt: skip
    return names.get(type_, "VARIANT")


def json_texts(values: Any) -> list[str | None]:
    """Return values as Snowflake writes a VARIANT."""
    return [None if v is None else json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in values]


class SnowflakeHarness(SourceHarness):
    name: ClassVar[str] = "snowflake"
    soak: ClassVar[frozenset[str]] = frozenset({"*"})
    source_type = SnowflakeSource
    memory_rows: ClassVar[tuple[int, int]] = (50_000, 200_000)
    gaps: ClassVar[dict[str, str]] = {"types.decimal_38_0": "the test server keeps NUMBER(38, 0) in 64 bits"}

    options: ClassVar[dict[str, Any]] = {}

    def start(self) -> None:
        self.server = shared_snowflake()

    def _open(self, name: str, cursor: str = "id", **settings: Any) -> Opened:
        quick = {"resilience": {"first_wait": 0.01, "longest_wait": 0.05, "attempts": 2}}
        options = SnowflakeStreamOptions(table=f'"{name}"', late_by=0, integers="int64", **self.options)
        source = SnowflakeSource(**self.server.settings(**{**quick, **settings}))
        return source, Stream(name, options, Incremental(cursor=cursor))

    def fill(self, name: str, data: pa.Table) -> Opened:
        columns = ", ".join(f'"{f.name}" {declared(f.type)}' for f in data.schema)
        self.server.execute(f'CREATE OR REPLACE TABLE "{name}" ({columns})')
        self.extend(name, data)
        return self._open(name)

    def extend(self, name: str, data: pa.Table) -> None:
        selected = []
        for n, field in enumerate(data.schema):
            nested = declared(field.type) == "VARIANT"
            if nested:
                data = data.set_column(n, field.name, pa.array(json_texts(data.column(n).to_pylist()), pa.string()))
            selected.append(f'PARSE_JSON("{field.name}")' if nested else f'"{field.name}"')
        raw = ", ".join(f'"{f.name}" {declared(f.type)}' for f in data.schema)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}_{data.num_rows}.parquet"
            pq.write_table(data, file)
            self.server.execute(
                f'CREATE OR REPLACE TABLE "raw_{name}" ({raw})',
                f"CREATE OR REPLACE STAGE stage_{name}",
                f"PUT file://{file} @stage_{name} AUTO_COMPRESS = FALSE",
                f'COPY INTO "raw_{name}" FROM @stage_{name} FILE_FORMAT = (TYPE = PARQUET)'
                " MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE",
                f'INSERT INTO "{name}" SELECT {", ".join(selected)} FROM "raw_{name}"',
                f'DROP TABLE "raw_{name}"',
            )

    def received(self, case: TypeCase) -> pa.Array:
        """What is nested, and times, for which Delta has no type, arrive as text."""
        if case.name in _NESTED:
            return pa.array(json_texts(case.values), pa.string())
        if case.name == "time":
            return pa.array([None if t is None else f"{t:%H:%M:%S.%f}" for t in case.values], pa.string())
        return case.array()

    def missing(self) -> Opened:
        return self._open("no_such_table")

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        self.fill(name, data)
        return self._open(name, cursor="no_such_column")

    def wrong_credentials(self) -> Opened:
        os.environ["CONFORMANCE_SNOWFLAKE_PASSWORD"] = "not the password"
        return self._open("credentials", password=Secret(env="CONFORMANCE_SNOWFLAKE_PASSWORD"))

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        self.fill(name, data)
        with wire_to(self.server.port, cut_after=1_500_000) as wire:
            yield self._open(name, port=wire.port)


class SnowflakeUnloadHarness(SnowflakeHarness):
    name: ClassVar[str] = "snowflake-unload"
    options: ClassVar[dict[str, Any]] = {"unload": UNLOAD}

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        """It is the object store that goes away."""
        self.fill(name, data)
        with wire_to(self.server.s3.port, cut_after=1_500_000) as wire:
            store = self.server.settings()["store"]
            store["options"] = {**store["options"], "endpoint": f"http://127.0.0.1:{wire.port}"}
            yield self._open(name, store=store)


SOURCES = (SnowflakeHarness, SnowflakeUnloadHarness)
