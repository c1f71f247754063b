"""Redshift in the conformance suite: a database of its own in the private server, over the wire and by way of S3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pyarrow as pa
from adbc_driver_postgresql import dbapi

from etl_resources.secret import Secret
from etl_resources.source import Incremental, Stream
from etl_resources.sources.redshift import RedshiftSource, RedshiftStreamOptions
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.conformance.implementations.postgres import as_json_text, pg_type
from tests.servers.proxy import wire_to
from tests.servers.redshift import UNLOAD, shared_redshift

_NESTED = {"struct", "list", "list_of_structs"}


class RedshiftHarness(SourceHarness):
    name: ClassVar[str] = "redshift"
    # Types and a far end that goes away are part of the source's own tests, too.
    soak: ClassVar[frozenset[str]] = frozenset({"types", "goes_away", "bounded_memory"})
    source_type = RedshiftSource
    types_in_one = True
    memory_rows: ClassVar[tuple[int, int]] = (40_000, 160_000)
    options: ClassVar[dict[str, Any]] = {}

    def start(self) -> None:
        self.server = shared_redshift()
        self.database = self.server.database()
        os.environ["CONFORMANCE_REDSHIFT_PASSWORD"] = "not the password"

    def _open(self, name: str, cursor: str = "id", **settings: Any) -> Opened:
        quick = {"resilience": {"first_wait": 0.01, "longest_wait": 0.05, "attempts": 2}}
        options = RedshiftStreamOptions(table=name, late_by=0, **self.options)
        source = RedshiftSource(**self.server.settings(self.database, **{**quick, **settings}))
        return source, Stream(name, options, Incremental(cursor=cursor))

    def fill(self, name: str, data: pa.Table) -> Opened:
        columns = ", ".join(
            f'"{f.name}" {"json" if pa.types.is_nested(f.type) else pg_type(f.type)}' for f in data.schema
        )
        self.server.execute(self.database, f'CREATE TABLE "{name}" ({columns})')
        self.extend(name, data)
        return self._open(name)

    def extend(self, name: str, data: pa.Table) -> None:
        for n, field in enumerate(data.schema):
            if pa.types.is_nested(field.type):
                data = data.set_column(n, field.name, pa.array(as_json_text(data.column(n).to_pylist()), pa.string()))
        address = f"postgresql://postgres@127.0.0.1:{self.server.postgres.port}/{self.database}?sslmode=disable"
        with dbapi.connect(address, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest(name, data, mode="append")

    def received(self, case: TypeCase) -> pa.Array:
        """What is nested, and times, for which Delta has no type, arrive as text."""
        if case.name in _NESTED:
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
        return self._open("credentials", password=Secret(env="CONFORMANCE_REDSHIFT_PASSWORD"))

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        self.fill(name, data)
        with wire_to(self.server.port, cut_after=data.nbytes // 3) as wire:
            yield self._open(name, port=wire.port)


class RedshiftUnloadHarness(RedshiftHarness):
    name: ClassVar[str] = "redshift-unload"
    soak: ClassVar[frozenset[str]] = frozenset({"*"})
    options: ClassVar[dict[str, Any]] = {"unload": UNLOAD}

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        """It is the object store that goes away."""
        self.fill(name, data)
        with wire_to(self.server.s3.port, cut_after=data.nbytes // 3) as wire:
            store = self.server.settings(self.database)["store"]
            store["options"] = {**store["options"], "endpoint": f"http://127.0.0.1:{wire.port}"}
            yield self._open(name, store=store)


SOURCES = (RedshiftHarness, RedshiftUnloadHarness)
