"""PostgreSQL in the conformance suite: a database of its own per implementation, in the private server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import pyarrow as pa
from adbc_driver_postgresql import dbapi
from psycopg import errors, sql

from etl_resources.secret import Secret
from etl_resources.source import Incremental, Stream
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from etl_resources.target import Mode, TargetOptions
from etl_resources.targets.postgres import PostgresTarget, PostgresTargetOptions
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness, TargetHarness
from tests.servers.postgres import PostgresServer, shared_postgres
from tests.servers.proxy import wire_to

_PASSWORD = "CONFORMANCE_POSTGRES_PASSWORD"
_JSON = {"struct", "list_of_structs"}


def pg_type(type_: pa.DataType) -> str:
    """Return the type that a person would declare for such values."""
    if pa.types.is_decimal(type_):
        return f"numeric({type_.precision}, {type_.scale})"
    if pa.types.is_list(type_) and not pa.types.is_nested(type_.value_type):
        return pg_type(type_.value_type) + "[]"
    names = {
        pa.int64(): "bigint", pa.float64(): "double precision", pa.bool_(): "boolean", pa.string(): "text",
        pa.binary(): "bytea", pa.date32(): "date", pa.time64("us"): "time", pa.timestamp("us"): "timestamp",
        pa.timestamp("us", "UTC"): "timestamptz",
    }  # fmt: skip
    return names.get(type_, "json")


def as_json_text(values: list[Any]) -> list[str | None]:
    return [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]


class _Server:
    """A database in the private server of the process."""

    def start(self) -> None:
        os.environ[_PASSWORD] = "not the password"
        self.server: PostgresServer = shared_postgres()
        self.database = self.server.database()
        with self.server.connect(self.database) as connection, suppress(errors.DuplicateObject):
            connection.execute("CREATE ROLE limited LOGIN PASSWORD 'the password'")

    def stop(self) -> None:
        """The server is shared by the process, and stops with it."""

    def settings(self, **other: Any) -> dict[str, Any]:
        return {**self.server.settings(self.database), **other}

    def limited(self) -> dict[str, Any]:
        return self.settings(user="limited", password=Secret(env=_PASSWORD))


class PostgresSourceHarness(_Server, SourceHarness):
    name: ClassVar[str] = "postgres"
    source_type = PostgresSource
    types_in_one = True
    memory_rows: ClassVar[tuple[int, int]] = (10_000, 40_000)
    memory_text: ClassVar[int] = 800

    def _open(self, name: str, cursor: str = "id", **settings: Any) -> Opened:
        options = PostgresStreamOptions(type="postgres", table=name)
        return PostgresSource(**self.settings(**settings)), Stream(name, options, Incremental(cursor=cursor))

    def fill(self, name: str, data: pa.Table) -> Opened:
        body = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(f.name), sql.SQL(pg_type(f.type))) for f in data.schema
        )
        with self.server.connect(self.database) as connection:
            connection.execute(sql.SQL("CREATE TABLE {} ({})").format(sql.Identifier(name), body))
        self.extend(name, data)
        return self._open(name)

    def extend(self, name: str, data: pa.Table) -> None:
        for n, field in enumerate(data.schema):
            if pg_type(field.type) == "json":
                data = data.set_column(n, field.name, pa.array(as_json_text(data.column(n).to_pylist()), pa.string()))
        address = f"postgresql://postgres@127.0.0.1:{self.server.port}/{self.database}?sslmode=disable"
        with dbapi.connect(address, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest(name, data, mode="append")

    def received(self, case: TypeCase) -> pa.Array:
        """JSON, and times, for which Delta has no type, arrive as text."""
        if case.name in _JSON:
            return pa.array(as_json_text(list(case.values)), pa.string())
        if case.name == "time":
            return pa.array([None if t is None else t.isoformat() for t in case.values], pa.string())
        return case.array()

    def missing(self) -> Opened:
        return self._open("no_such_table")

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        self.fill(name, data)
        return self._open(name, cursor="no_such_column")

    def wrong_credentials(self) -> Opened:
        self.fill("credentials", pa.table({"id": [1]}))
        return self._open("credentials", **self.limited())

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        self.fill(name, data)
        with wire_to(self.server.port, cut_after=data.nbytes // 3) as wire:
            yield self._open(name, port=wire.port)


class PostgresTargetHarness(_Server, TargetHarness):
    name: ClassVar[str] = "postgres-target"
    target_type = PostgresTarget
    types_in_one = True

    def open(self, name: str) -> tuple[PostgresTarget, TargetOptions]:
        return PostgresTarget(**self.settings()), PostgresTargetOptions(type="postgres", table=name)

    def visible(self, name: str, schema: pa.Schema) -> pa.Table:
        with self.server.connect(self.database) as connection:
            there = connection.execute("SELECT to_regclass(%s)", [f'"{name}"']).fetchone()
            if there == (None,):
                return schema.empty_table()
            wanted = sql.SQL(", ").join(map(sql.Identifier, schema.names))
            connection.execute("SET TimeZone = 'UTC'")
            rows = connection.execute(sql.SQL("SELECT {} FROM {}").format(wanted, sql.Identifier(name))).fetchall()
        return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)

    def leftovers(self, name: str) -> list[str]:
        with self.server.connect(self.database) as connection:
            found = connection.execute(
                "SELECT relname FROM pg_class WHERE relname LIKE '%\\_etl\\_%' AND relname NOT LIKE '\\_etl\\_commits%'"
            ).fetchall()
        return [name for (name,) in found]

    def wrong_credentials(self) -> tuple[PostgresTarget, TargetOptions]:
        return PostgresTarget(**self.limited()), PostgresTargetOptions(type="postgres", table="credentials")

    def missing(self) -> tuple[PostgresTarget, TargetOptions]:
        return PostgresTarget(**self.settings()), PostgresTargetOptions(type="postgres", table="no_such_schema.t")

    def constrain(self, name: str, schema: pa.Schema, mode: Mode) -> None:
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(f.name), sql.SQL(pg_type(f.type))) for f in schema
        )
        with self.server.connect(self.database) as connection:
            query = sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY (id), CHECK (id >= 0))")
            connection.execute(query.format(sql.Identifier(name), columns))


SOURCES = [PostgresSourceHarness]
TARGETS = [PostgresTargetHarness]
