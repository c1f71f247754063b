"""The file source and target, one class for every format that differs in what a value becomes."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from etl_resources.source import Stream
from etl_resources.sources.file import FileOptions, FileSource
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.servers.s3 import BUCKET, S3, cutting_proxy, running_s3

MANY = 10_000


def _copied(data: pa.Table, options: str) -> bytes:
    """Return `data` as DuckDB writes it: fast, for the cases that are about size."""
    import duckdb

    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        connection.register("data", data)
        connection.execute(f"COPY data TO '{folder}/x' ({options})")
        return (Path(folder) / "x").read_bytes()


class _Files(SourceHarness):
    source_type = FileSource
    suffix: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}

    def encode(self, data: pa.Table) -> bytes:
        raise NotImplementedError

    def fill(self, name: str, data: pa.Table) -> Opened:
        (self.directory / name).mkdir()
        for n, part in enumerate(self._parts(data)):
            self._put(name, f"{n}{self.suffix}", self.encode(part))
        return self._open(name)

    def _parts(self, data: pa.Table) -> list[pa.Table]:
        """Several files, so that a stream can be resumed between them."""
        half = data.num_rows // 2
        return [data] if not 1000 < data.num_rows < 100_000 else [data.slice(0, half), data.slice(half)]

    def _put(self, name: str, file: str, content: bytes) -> None:
        (self.directory / name / file).write_bytes(content)

    def _open(self, name: str, **options: Any) -> Opened:
        path = str(self.directory / name / f"*{self.suffix}")
        return FileSource(), Stream(name, FileOptions(path=path, **self.options, **options))

    def extend(self, name: str, data: pa.Table) -> None:
        self._put(name, f"later{self.suffix}", self.encode(data))

    def missing(self) -> Opened:
        return FileSource(), Stream("missing", FileOptions(path=str(self.directory / f"no_such{self.suffix}")))

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        from datetime import UTC, datetime

        from etl_resources.source import Window

        source, stream = self.fill(name, data)
        window = Window("no_such", datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
        return source, Stream(stream.name, stream.options, window=window)

    def wrong_credentials(self) -> Opened:
        stack = ExitStack()
        self._stack = stack
        s3 = stack.enter_context(running_s3(open_requests=1))
        source = FileSource(options=s3.options, secrets=s3.secrets, client_options=s3.client_options)  # type: ignore[arg-type]
        return source, Stream("refused", FileOptions(path=f"s3://{BUCKET}/x{self.suffix}"))

    def stop(self) -> None:
        if hasattr(self, "_stack"):
            self._stack.close()

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        """A file that ends in the middle, as one does whose upload broke off."""
        (self.directory / name).mkdir()
        packed = gzip.compress(self.encode(data), 1)
        (self.directory / name / f"0{self.suffix}.gz").write_bytes(packed[: len(packed) // 2])
        path = str(self.directory / name / f"0{self.suffix}.gz")
        yield FileSource(), Stream(name, FileOptions(path=path, **self.options))


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value if value is None else str(value)


class CsvFiles(_Files):
    """Every value is text, as it was written; null is an empty field without quotes."""

    name = "file-csv"
    suffix = ".csv"

    def encode(self, data: pa.Table) -> bytes:
        if data.num_rows > MANY:
            return _copied(data, "format csv, header, force_quote *")

        def field(value: Any) -> str:
            text = _text(value)
            return "" if text is None else '"' + text.replace('"', '""') + '"'

        columns = [[field(v) for v in column.to_pylist()] for column in data.itercolumns()]
        lines = [",".join(data.column_names), *(",".join(row) for row in zip(*columns, strict=True))]
        return ("\n".join(lines) + "\n").encode()

    def received(self, case: TypeCase) -> pa.Array:
        return pa.array([_text(v) for v in case.values], pa.string())


class _Json(_Files):
    def received(self, case: TypeCase) -> pa.Array:
        kinds = {"int64", "float64", "boolean", "string", "unicode", "delimiters", "struct", "list", "list_of_structs"}
        if case.name in kinds or case.name.startswith("decimal_38"):
            return case.array()
        if case.name == "decimal_12_2":
            return pa.array([None if v is None else float(v) for v in case.values])
        return pa.array([_json_value(v) for v in case.values], pa.string())


class NdjsonFiles(_Json):
    """JSON has numbers, strings, booleans, objects and arrays; the rest is text."""

    name = "file-ndjson"
    suffix = ".ndjson"

    def encode(self, data: pa.Table) -> bytes:
        if data.num_rows > MANY:
            return _copied(data, "format json")
        return "".join(_json_text(row) + "\n" for row in data.to_pylist()).encode()


class JsonDocuments(_Json):
    """The same records as an array inside of a document."""

    name = "file-json"
    suffix = ".json"
    options: ClassVar[dict[str, Any]] = {"records": "$.data.rows[*]"}

    def encode(self, data: pa.Table) -> bytes:
        if data.num_rows > MANY:
            return b'{"data": {"rows": ' + _copied(data, "format json, array true") + b"}}"
        rows = ",\n  ".join(_json_text(row) for row in data.to_pylist())
        return f'{{"count": {data.num_rows}, "data": {{"rows": [{rows}]}}}}\n'.encode()


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, str | int | float | bool | dict | list) else str(value)


def _json_text(row: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return f"{value:f}" if isinstance(value, Decimal) else json.dumps(_json_value(value), ensure_ascii=False)

    return "{" + ", ".join(f"{json.dumps(k)}: {text(v)}" for k, v in row.items()) + "}"


class ParquetFiles(_Files):
    """Parquet has all types."""

    name = "file-parquet"
    suffix = ".parquet"

    def encode(self, data: pa.Table) -> bytes:
        sink = pa.BufferOutputStream()
        pq.write_table(data, sink, row_group_size=50_000)
        return sink.getvalue().to_pybytes()

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        (self.directory / name).mkdir()
        content = bytearray(self.encode(data))
        content[len(content) // 2 : len(content) // 2 + 4096] = bytes(4096)
        (self.directory / name / "0.parquet").write_bytes(content)
        yield self._open(name)


class CsvObjects(CsvFiles):
    """CSV in an S3 bucket: the same code behind another storage."""

    name = "file-csv-s3"

    def start(self) -> None:
        self._running = ExitStack()
        self.s3 = self._running.enter_context(running_s3())

    def stop(self) -> None:
        super().stop()
        self._running.close()

    def _source(self, s3: S3) -> FileSource:
        return FileSource(options=s3.options, secrets=s3.secrets, client_options=s3.client_options)  # type: ignore[arg-type]

    def _put(self, name: str, file: str, content: bytes) -> None:
        import obstore

        from etl_resources.files.storage import Storage

        source = self._source(self.s3)
        storage = Storage(source.options, source.secrets, source.client_options)
        store, key = storage.store(f"s3://{BUCKET}/{name}/{file}")
        obstore.put(store, key, content)

    def _open(self, name: str, **options: Any) -> Opened:
        path = f"s3://{BUCKET}/{name}/*{self.suffix}"
        return self._source(self.s3), Stream(name, FileOptions(path=path, **options))

    def missing(self) -> Opened:
        return self._source(self.s3), Stream("missing", FileOptions(path=f"s3://{BUCKET}/no_such.csv"))

    def goes_away(self, name: str, data: pa.Table) -> AbstractContextManager[Opened]:
        """The store stops answering when half of the file has been sent."""
        (self.directory / name).mkdir()
        content = self.encode(data)
        self._put(name, "0.csv", content)

        @contextmanager
        def cut() -> Iterator[Opened]:
            with cutting_proxy(self.s3.port, len(content) // 2) as port, contextlib.suppress(ConnectionError):
                yield self._source(S3(port)), Stream(name, FileOptions(path=f"s3://{BUCKET}/{name}/*.csv"))

        return cut()


SOURCES = (CsvFiles, NdjsonFiles, JsonDocuments, ParquetFiles, CsvObjects)
