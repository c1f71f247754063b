"""The log source: JSON lines, in which every case can be written, and an own pattern of text."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from etl_resources.files import json_types
from etl_resources.source import Stream, Window
from etl_resources.sources.log import LogOptions, LogSource
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.conformance.implementations.file import BUCKET, NdjsonFiles, shared_s3
from tests.conformance.implementations.file import _text as as_text


class JsonLogs(SourceHarness):
    """JSON has numbers, strings, booleans, objects and arrays; the rest is text."""

    name = "log-json"
    source_type = LogSource
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})
    memory_rows = (960_000, 1_920_000)  # from where on all that is read ahead is there
    options: ClassVar[dict[str, Any]] = {"format": "json"}

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.json = NdjsonFiles(directory)

    def encode(self, data: pa.Table) -> bytes:
        return self.json.encode(data)

    def received(self, case: TypeCase) -> pa.Array:
        return self.json.received(case)

    def _file(self, name: str) -> Path:
        return self.directory / name / "app.log"

    def _open(self, name: str, **more: Any) -> Opened:
        path = str(self.directory / name / "app.log*")
        return LogSource(), Stream(name, LogOptions(path=path, **self.options), **more)

    def fill(self, name: str, data: pa.Table) -> Opened:
        self._file(name).parent.mkdir()
        self._file(name).write_bytes(self.encode(data))
        return self._open(name)

    def extend(self, name: str, data: pa.Table) -> None:
        """The log is rotated, and goes on in a new file."""
        self._file(name).rename(self._file(name).with_name("app.log.1"))
        self._file(name).write_bytes(self.encode(data))

    def missing(self) -> Opened:
        return LogSource(), Stream("missing", LogOptions(path=str(self.directory / "no_such.log"), **self.options))

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        self.fill(name, data)
        return self._open(
            name, window=Window("no_such", datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
        )

    def wrong_credentials(self) -> Opened:
        s3 = shared_s3(open_requests=1)
        source = LogSource(options=s3.options, secrets=s3.secrets, client_options=s3.client_options)  # type: ignore[arg-type]
        return source, Stream("refused", LogOptions(path=f"s3://{BUCKET}/x.log", **self.options))

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        """A compressed file that ends in the middle."""
        self.fill(name, data)
        whole = gzip.compress(self._file(name).read_bytes(), 1)
        self._file(name).with_name("app.log.1.gz").write_bytes(whole[: len(whole) // 2])
        self._file(name).unlink()
        yield self._open(name)


class TextLogs(JsonLogs):
    """Lines of an own pattern, with declared types; what has no type of its own in a log stays text."""

    name = "log-pattern"
    gaps: ClassVar[dict[str, str]] = {"types.delimiters": "a line ends where it ends: a log cannot hold a line end"}
    many: ClassVar[dict[str, Any]] = {
        "pattern": r"(?P<id>\d+)\|(?P<name>[^|]*)\|(?P<amount>[^|]*)\|(?P<note>.*)",
        "columns": {"id": "int64", "amount": "float64"},
    }
    options: ClassVar[dict[str, Any]] = {"format": "pattern", **many}

    def fill(self, name: str, data: pa.Table) -> Opened:
        source, stream = super().fill(name, data)
        if "value" not in data.column_names:
            return source, stream
        (declared,) = json_types.dump_schema(data.schema.remove(0)).values()
        columns = {"id": "int64"} | ({"value": declared} if isinstance(declared, str) and declared != "binary" else {})
        pattern = r"(?P<id>\d+)\|(?P<value>.*)"
        options = LogOptions(path=stream.options.path, format="pattern", pattern=pattern, columns=columns)  # type: ignore[attr-defined]
        return source, Stream(name, options)

    def received(self, case: TypeCase) -> pa.Array:
        """Nothing is written as nothing, so an empty text cannot be told from none."""
        if pa.types.is_string(case.type) or _text_only(case.type):
            return pa.array([as_text(v) or None for v in case.values], pa.string())
        return case.array()

    def encode(self, data: pa.Table) -> bytes:
        columns = [[_written(v) for v in column.to_pylist()] for column in data.itercolumns()]
        return "".join("|".join(v or "" for v in row) + "\n" for row in zip(*columns, strict=True)).encode()


def _written(value: Any) -> str | None:
    return f"{value:f}" if isinstance(value, Decimal) else as_text(value)


def _text_only(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_nested(kind) or pa.types.is_time(kind)


SOURCES = (JsonLogs, TextLogs)
