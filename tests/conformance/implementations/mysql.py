"""MySQL in the conformance suite: a database of its own in the private MariaDB server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.csv as pc_csv

from etl_resources.mysql_sql import quote
from etl_resources.secret import Secret
from etl_resources.source import Incremental, Stream
from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.servers.mysql import MysqlServer, shared_mysql
from tests.servers.proxy import wire_to

_PASSWORD = "CONFORMANCE_MYSQL_PASSWORD"
_JSON = {"struct", "list", "list_of_structs"}


def mysql_type(type_: pa.DataType) -> str:
    """Return the type that a person would declare for such values."""
    if pa.types.is_decimal(type_):
        return f"decimal({type_.precision}, {type_.scale})"
    names = {
        pa.int64(): "bigint", pa.float64(): "double", pa.bool_(): "boolean", pa.string(): "longtext",
        pa.binary(): "longblob", pa.date32(): "date", pa.time64("us"): "time(6)", pa.timestamp("us"): "datetime(6)",
        pa.timestamp("us", "UTC"): "timestamp(6)",
    }  # fmt: skip
    return names.get(type_, "json")


def as_json_text(values: list[Any]) -> list[str | None]:
    return [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]


class MysqlSourceHarness(SourceHarness):
    name: ClassVar[str] = "mysql"
    source_type = MysqlSource
    gaps: ClassVar[dict[str, str]] = {
        "types.timestamp_with_zone": "MySQL's TIMESTAMP begins in 1970: the case has a moment of 1969",
    }
    types_in_one = True
    memory_rows: ClassVar[tuple[int, int]] = (10_000, 40_000)
    memory_text: ClassVar[int] = 800
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})

    def start(self) -> None:
        os.environ[_PASSWORD] = "not the password"
        self.server: MysqlServer = shared_mysql()
        self.database = self.server.database()
        self.server.execute(None, "CREATE USER IF NOT EXISTS limited@'127.0.0.1' IDENTIFIED BY 'the password'")

    def _open(self, name: str, cursor: str = "id", **settings: Any) -> Opened:
        options = MysqlStreamOptions(type="mysql", table=name)
        source = MysqlSource(**self.server.settings(self.database, **settings))
        return source, Stream(name, options, Incremental(cursor=cursor))

    def fill(self, name: str, data: pa.Table) -> Opened:
        body = ", ".join(f"{quote(f.name)} {mysql_type(f.type)} NULL" for f in data.schema)
        self.server.execute(self.database, f"CREATE TABLE {quote(name)} ({body})")
        self.extend(name, data)
        return self._open(name)

    def extend(self, name: str, data: pa.Table) -> None:
        if data.num_rows > 1000:
            self._load(name, data)
            return
        for n, field in enumerate(data.schema):
            if mysql_type(field.type) == "json":
                data = data.set_column(n, field.name, pa.array(as_json_text(data.column(n).to_pylist()), pa.string()))
        rows = list(zip(*(column.to_pylist() for column in data.columns), strict=True))
        with self.server.connect(self.database) as connection, connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            cursor.executemany(f"INSERT INTO {quote(name)} VALUES ({', '.join(['%s'] * data.num_columns)})", rows)

    def _load(self, name: str, data: pa.Table) -> None:
        """Fill a large table of plain numbers and words."""
        path = self.directory / f"{name}.csv"
        pc_csv.write_csv(data, path, pc_csv.WriteOptions(include_header=False))
        with self.server.connect(self.database, local_infile=True) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE {quote(name)} FIELDS TERMINATED BY ',' ENCLOSED BY '\"'"
            )

    def received(self, case: TypeCase) -> pa.Array:
        """JSON, and times, for which Delta has no type, arrive as text."""
        if case.name in _JSON:
            return pa.array(as_json_text(list(case.values)), pa.string())
        if case.name == "time":
            texts = [None if t is None else t.isoformat(timespec="microseconds") for t in case.values]
            return pa.array(texts, pa.string())
        return case.array()

    def missing(self) -> Opened:
        return self._open("no_such_table")

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        self.fill(name, data)
        return self._open(name, cursor="no_such_column")

    def wrong_credentials(self) -> Opened:
        self.fill("credentials", pa.table({"id": [1]}))
        return self._open("credentials", user="limited", password=Secret(env=_PASSWORD))

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        self.fill(name, data)
        with wire_to(self.server.port, cut_after=data.nbytes // 3) as wire:
            yield self._open(name, port=wire.port)


SOURCES = [MysqlSourceHarness]
