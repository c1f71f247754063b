"""MongoDB in the conformance suite, over the test server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

import pyarrow as pa
from bson import Decimal128, ObjectId

from etl_resources.secret import Secret
from etl_resources.source import Incremental, Snapshot, Stream
from etl_resources.sources.mongodb import MongoSource, MongoStreamOptions
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.servers.mongo import DATABASE, MongoServer, shared_mongo
from tests.servers.proxy import wire_to

# What BSON has no type for is kept as text: more than 34 digits, times of day, microseconds.
_TEXT = frozenset({"decimal_38_0", "decimal_38_10", "time", "timestamp", "timestamp_with_zone"})
_WRONG = "CONFORMANCE_MONGODB_PASSWORD"


class MongoSourceHarness(SourceHarness):
    name: ClassVar[str] = "mongodb"
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})
    source_type = MongoSource
    memory_rows: ClassVar[tuple[int, int]] = (16_384, 65_536)
    away_rows = 15_000

    def start(self) -> None:
        os.environ[_WRONG] = "not the password"
        self.server: MongoServer = shared_mongo()
        self.client = self.server.client()

    def stop(self) -> None:
        self.client.close()

    def _open(self, name: str, *, cursor: str = "id", columns: dict[str, Any] | None = None, **settings: Any) -> Opened:
        options = MongoStreamOptions(collection=name, with_id=False, columns=columns or {})
        return MongoSource(**self.server.settings(**settings)), Stream(name, options, Incremental(cursor=cursor))

    def fill(self, name: str, data: pa.Table) -> Opened:
        self.client[DATABASE].create_collection(name)
        self.extend(name, data)
        return self._open(name, columns=_declared(data.schema))

    def extend(self, name: str, data: pa.Table) -> None:
        for start in range(0, data.num_rows, 20_000):
            rows = data.slice(start, 20_000).to_pylist()
            if "value" in data.column_names:
                rows = [{**row, "value": _stored(name.removeprefix("types_"), row["value"])} for row in rows]
            # As one command, and with ids: pymongo looks at every document of an `insert_many` in Python.
            documents = [{"_id": ObjectId(), **row} for row in rows]
            self.client[DATABASE].command("insert", name, documents=documents)

    def received(self, case: TypeCase) -> pa.Array:
        if case.name in _TEXT:
            return pa.array([None if v is None else _text(v) for v in case.values], pa.string())
        return case.array()

    def missing(self) -> Opened:
        return self._open("no_such_collection")

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        self.fill(name, data)
        return self._open(name, cursor="no_such_field")

    def wrong_credentials(self) -> Opened:
        return self._open("credentials", password=Secret(env=_WRONG))

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        self.fill(name, data)
        with wire_to(self.server.port, cut_after=data.nbytes // 3) as wire:
            source, stream = self._open(
                name, port=wire.port, resilience={"attempts": 2, "first_wait": 0.01, "timeout": 0.5}
            )
            yield source, replace(stream, capture=Snapshot())


def _declared(schema: pa.Schema) -> dict[str, Any]:
    """Return the types that a person declares: of decimals, how many digits; of dates, that they are no moments."""
    kind = schema.field("value").type if "value" in schema.names else None
    if kind == pa.decimal128(12, 2):
        return {"value": "decimal(12,2)"}
    return {"value": "date"} if kind == pa.date32() else {}


def _stored(case: str, value: Any) -> Any:
    if value is None:
        return None
    if case in _TEXT:
        return _text(value)
    if isinstance(value, Decimal):
        return Decimal128(value)
    if case == "date":
        return datetime(value.year, value.month, value.day)
    return value


def _text(value: Any) -> str:
    return str(value) if isinstance(value, Decimal) else str(value.isoformat())


SOURCES = [MongoSourceHarness]
