"""REST in the conformance suite: the same records in pages by offset, several in flight, and by a cursor."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from etl_resources.http_settings import Authentication
from etl_resources.resilience import Policy
from etl_resources.secret import Secret
from etl_resources.source import Incremental, Stream
from etl_resources.sources.rest import RestOptions, RestSource
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.conformance.implementations.file import _json_text, _json_value
from tests.servers.http_api import Record, Told, running_api
from tests.servers.proxy import wire_to

_PASSWORD = "CONFORMANCE_REST_TOKEN"
_MANY = 5_000


def records_of(data: pa.Table) -> list[Record]:
    """Return each row with its id as the cursor."""
    ids = data.column("id").to_pylist()
    if len(ids) <= _MANY:
        return list(zip(ids, (_json_text(row).encode() for row in data.to_pylist()), strict=True))
    import duckdb

    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        connection.register("data", data)
        connection.execute(f"SET threads = 1; COPY data TO '{folder}/x' (format json)")
        return list(zip(ids, (Path(folder) / "x").read_bytes().splitlines(), strict=True))


def json_received(case: TypeCase) -> pa.Array:
    """JSON has numbers, strings, booleans, objects and arrays; the rest is text."""
    kinds = {"int64", "float64", "boolean", "string", "unicode", "delimiters", "struct", "list", "list_of_structs"}
    if case.name in kinds or case.name.startswith("decimal_38"):
        return case.array()
    if case.name == "decimal_12_2":
        return pa.array([None if v is None else float(v) for v in case.values])
    assert not isinstance(case.values[0], Decimal)
    return pa.array([_json_value(v) for v in case.values], pa.string())


class _Rest(SourceHarness):
    source_type = RestSource
    types_in_one = True
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})
    style: ClassVar[str]
    options: ClassVar[dict[str, Any]]
    memory_rows = (30_000, 120_000)

    def start(self) -> None:
        self._stack = ExitStack()
        self.api = self._stack.enter_context(running_api())
        self.api.routes["/refused"] = lambda asked: Told(json.dumps({"error": "no"}).encode(), 401)

    def stop(self) -> None:
        self._stack.close()

    def _open(self, name: str, cursor: str = "id", path: str = "", **settings: Any) -> Opened:
        options = RestOptions(
            path=path or f"/{self.style}/{name}", records="$.data.items[*]",
            params={"since": "{cursor}", "size": "500"}, look_back=0, **self.options,
        )  # fmt: skip
        source = RestSource(**{"base_url": self.api.url, "allow_http": True, **settings})
        return source, Stream(name, options, Incremental(cursor=cursor))

    def fill(self, name: str, data: pa.Table) -> Opened:
        self.api.records[name] = records_of(data)
        return self._open(name)

    def extend(self, name: str, data: pa.Table) -> None:
        self.api.records[name] += records_of(data)

    def received(self, case: TypeCase) -> pa.Array:
        return json_received(case)

    def missing(self) -> Opened:
        return self._open("no_such_stream")

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        self.fill(name, data)
        return self._open(name, cursor="no_such_field")

    def wrong_credentials(self) -> Opened:
        os.environ[_PASSWORD] = "not the token"
        return self._open("refused", path="/refused", auth=Authentication(bearer=Secret(env=_PASSWORD)))

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        """The wire breaks in the middle, and never comes back."""
        self.fill(name, data)
        with wire_to(self.api.port, cut_after=data.nbytes // 3) as wire:
            patience = Policy(attempts=2, first_wait=0.01, timeout=5, silence=5)
            yield self._open(name, base_url=f"http://127.0.0.1:{wire.port}", resilience=patience)


class OffsetPages(_Rest):
    name = "rest-offset"
    style = "offset"
    options: ClassVar[dict[str, Any]] = {
        "pagination": {"offset": {"size": 500}}, "total": {"path": "$.meta.total"}, "identity": ("id",),
    }  # fmt: skip


class CursorPages(_Rest):
    name = "rest-cursor"
    soak: ClassVar[frozenset[str]] = frozenset({"*"})
    style = "cursor"
    options: ClassVar[dict[str, Any]] = {"pagination": {"cursor": {"path": "$.meta.next"}}}


SOURCES = [OffsetPages, CursorPages]
