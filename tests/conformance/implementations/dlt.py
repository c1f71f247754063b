"""A dlt resource in the conformance suite: JSON lines, read on by `dlt.sources.incremental`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from etl_resources.secret import Secret
from etl_resources.source import Stream
from etl_resources.sources.dlt import DltOptions, DltSource
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.conformance.implementations.file import _json_text, _json_value

_THINGS = "tests.servers.dlt_things"
_AS_THEY_ARE = {"int64", "float64", "boolean", "string", "unicode", "delimiters", "struct", "list", "list_of_structs"}


class DltHarness(SourceHarness):
    name: ClassVar[str] = "dlt"
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})
    source_type = DltSource
    types_in_one = True
    gaps: ClassVar[dict[str, str]] = {
        "types.decimal_38_0": "Python's JSON gives dlt a number beyond 64 bits, which it writes as text",
    }
    memory_rows = (25_000, 75_000)

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.jsonl"

    def _open(self, name: str, resource: str = "lines", **options: Any) -> Opened:
        settings = {"resource": f"{_THINGS}:{resource}", "arguments": {"path": str(self._path(name))}, **options}
        return DltSource(), Stream(name, DltOptions(**settings))

    def fill(self, name: str, data: pa.Table) -> Opened:
        self._path(name).write_text("", "utf-8")
        self.extend(name, data)
        return self._open(name)

    def extend(self, name: str, data: pa.Table) -> None:
        with self._path(name).open("a", encoding="utf-8") as file:
            for batch in data.to_batches(max_chunksize=10_000):
                file.writelines(_json_text(row) + "\n" for row in batch.to_pylist())

    def received(self, case: TypeCase) -> pa.Array:
        """What JSON has no type for arrives as text."""
        if case.name in _AS_THEY_ARE:
            return case.array()
        if case.name.startswith("decimal"):
            return pa.array([None if v is None else float(v) for v in case.values])
        return pa.array([_json_value(v) for v in case.values], pa.string())

    def missing(self) -> Opened:
        return self._open("missing", "no_such_resource")

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        self.fill(name, data)
        return self._open(name, "lines_by_no_such_cursor")

    def wrong_credentials(self) -> Opened:
        import os

        os.environ["CONFORMANCE_DLT_TOKEN"] = "wrong"
        return self._open("c", "guarded", arguments={}, secrets={"token": Secret(env="CONFORMANCE_DLT_TOKEN")})

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        self.fill(name, data.slice(0, 3_000))
        arguments = {"path": str(self._path(name)), "break_after": 2_000}
        yield self._open(name, "shop", arguments=arguments, select="broken")


SOURCES = [DltHarness]
