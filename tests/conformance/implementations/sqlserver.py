"""SQL Server in the conformance suite: the real client over TCP, against the project's own server of the protocol."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pyarrow as pa

from etl_resources.source import Incremental, Stream
from etl_resources.sources.sqlserver import SqlServerSource, SqlServerStreamOptions
from etl_resources.sqlserver_sql import quote
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.servers.proxy import wire_to
from tests.servers.tds import TdsServer, shared_tds


def sql_type(type_: pa.DataType) -> str:
    """Return the type that a person would declare for such values; JSON text for what is nested."""
    if pa.types.is_decimal(type_):
        return f"decimal({type_.precision}, {type_.scale})"
    names = {
        pa.int64(): "bigint", pa.float64(): "float", pa.bool_(): "bit", pa.string(): "nvarchar(200)",
        pa.binary(): "varbinary(max)", pa.date32(): "date", pa.time64("us"): "time(6)",
        pa.timestamp("us"): "datetime2(7)", pa.timestamp("us", "UTC"): "datetimeoffset(7)",
    }  # fmt: skip
    return names.get(type_, "nvarchar(max)")


def as_json_text(values: list[Any]) -> list[str | None]:
    return [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]


class SqlServerSourceHarness(SourceHarness):
    name: ClassVar[str] = "sqlserver"
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})
    source_type = SqlServerSource
    types_in_one = True
    memory_rows: ClassVar[tuple[int, int]] = (60_000, 240_000)

    def start(self) -> None:
        self.server: TdsServer = shared_tds()

    def _open(self, name: str, columns: list[str] | None = None, cursor: str = "rv", **settings: Any) -> Opened:
        # The version is what the rows are read by, and not one of the columns that the cases compare.
        options = SqlServerStreamOptions(type="sqlserver", table=name, columns=columns)
        return SqlServerSource(**self.server.settings(**settings)), Stream(name, options, Incremental(cursor=cursor))

    def fill(self, name: str, data: pa.Table) -> Opened:
        body = ", ".join(f"{quote(field.name)} {sql_type(field.type)}" for field in data.schema)
        self.server.execute(f"CREATE TABLE dbo.{quote(name)} ({body}, rv rowversion)")
        self.extend(name, data)
        return self._open(name, data.column_names)

    def extend(self, name: str, data: pa.Table) -> None:
        for n, field in enumerate(data.schema):
            if pa.types.is_nested(field.type):
                data = data.set_column(n, field.name, pa.array(as_json_text(data.column(n).to_pylist()), pa.string()))
        self.server.load(f"dbo.{name}", data)

    def received(self, case: TypeCase) -> pa.Array:
        """JSON, and times, for which Delta has no type, arrive as text."""
        if pa.types.is_nested(case.type):
            return pa.array(as_json_text(list(case.values)), pa.string())
        if case.name == "time":
            return pa.array([None if t is None else f"{t:%H:%M:%S.%f}" for t in case.values], pa.string())
        return case.array()

    def missing(self) -> Opened:
        return self._open("no_such_table")

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        self.fill(name, data)
        return self._open(name, cursor="no_such_column")

    def wrong_credentials(self) -> Opened:
        os.environ["CONFORMANCE_SQLSERVER_PASSWORD"] = "not the password"
        return self._open("credentials", password={"env": "CONFORMANCE_SQLSERVER_PASSWORD"})

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        self.fill(name, data)
        with wire_to(self.server.port, cut_after=data.nbytes // 3) as wire:
            yield self._open(name, data.column_names, port=wire.port)


SOURCES = [SqlServerSourceHarness]
