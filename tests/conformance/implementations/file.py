"""The file source and target, one class for every format that differs in what a value becomes."""

from __future__ import annotations

import base64
import gzip
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from etl_resources.files.storage import Storage
from etl_resources.secret import Secret
from etl_resources.source import Stream
from etl_resources.sources.file import FileOptions, FileSource
from etl_resources.target import Target, TargetOptions
from etl_resources.targets.file import FileTarget, FileTargetOptions
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness, TargetHarness
from tests.servers.s3 import BUCKET, S3, shared_s3

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
    types_in_one = True
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
        s3 = shared_s3(open_requests=1)
        source = FileSource(options=s3.options, secrets=s3.secrets, client_options=s3.client_options)  # type: ignore[arg-type]
        return source, Stream("refused", FileOptions(path=f"s3://{BUCKET}/x{self.suffix}"))

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
    memory_rows = (500_000, 1_500_000)  # from where on all that is read ahead is there
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})

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
    memory_rows = (500_000, 1_500_000)  # from where on all that is read ahead is there
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})

    def encode(self, data: pa.Table) -> bytes:
        if data.num_rows > MANY:
            return _copied(data, "format json")
        return "".join(_json_text(row) + "\n" for row in data.to_pylist()).encode()


class JsonDocuments(_Json):
    """The same records as an array inside of a document."""

    name = "file-json"
    suffix = ".json"
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})
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
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})

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


class _Folder(TargetHarness):
    """A local folder; a reader is anyone who reads `*.<suffix>` in it."""

    target_type = FileTarget
    gaps: ClassVar[dict[str, str]] = {"missing": "a local folder that is not there is made"}
    format: ClassVar[str] = "parquet"

    def open(self, name: str) -> tuple[Target, TargetOptions]:
        return FileTarget(), FileTargetOptions(path=str(self.directory / name), format=self.format)

    def files(self, name: str) -> list[bytes]:
        return [p.read_bytes() for p in sorted((self.directory / name).glob(f"*.{self.format}"))]

    def visible(self, name: str, schema: pa.Schema) -> pa.Table:
        return pa.concat_tables([schema.empty_table(), *(self.decode(f, schema) for f in self.files(name))])

    def decode(self, content: bytes, schema: pa.Schema) -> pa.Table:
        return pq.read_table(pa.BufferReader(content))

    def leftovers(self, name: str) -> list[str]:
        own = [p.name for p in self.directory.iterdir() if p.name.startswith(f".{name}.")]
        return [n for n in own if not n.endswith(".lock")]

    def wrong_credentials(self) -> tuple[Target, TargetOptions]:
        return _target(shared_s3(open_requests=1)), FileTargetOptions(path=f"s3://{BUCKET}/refused", format=self.format)

    def missing(self) -> tuple[Target, TargetOptions]:
        return FileTarget(), FileTargetOptions(path=str(self.directory / "no_such" / "folder"), format=self.format)


def _target(s3: S3) -> FileTarget:
    return FileTarget(options=s3.options, secrets=s3.secrets, client_options=s3.client_options)  # type: ignore[arg-type]


class ParquetFolder(_Folder):
    name = "file-parquet"
    types_in_one = True


class CsvFolder(_Folder):
    """CSV read back as text, as it has no types."""

    name = "file-csv"
    types_in_one = True
    format = "csv"

    def decode(self, content: bytes, schema: pa.Schema) -> pa.Table:
        texts = pacsv.ConvertOptions(
            column_types=dict.fromkeys(schema.names, pa.string()), strings_can_be_null=True, null_values=[""],
            quoted_strings_can_be_null=False,
        )  # fmt: skip
        quoted = pacsv.ParseOptions(newlines_in_values=True)
        table = pacsv.read_csv(pa.BufferReader(content), parse_options=quoted, convert_options=texts)
        return table.set_column(0, "id", table.column("id").cast(pa.int64()))

    def visible(self, name: str, schema: pa.Schema) -> pa.Table:
        files = self.files(name)
        return pa.concat_tables([self.decode(f, schema) for f in files]) if files else schema.empty_table()

    def stored(self, case: TypeCase) -> pa.Array:
        return pa.array([None if v is None else _csv_text(v) for v in case.values], pa.string())


class JsonLinesFolder(_Folder):
    """JSON lines read back as Python reads JSON."""

    name = "file-jsonl"
    format = "jsonl"

    def decode(self, content: bytes, schema: pa.Schema) -> pa.Table:
        rows = [json.loads(line, parse_float=Decimal) for line in content.splitlines()]
        if "value" not in schema.names:
            return pa.Table.from_pylist([r | {"amount": float(r["amount"])} for r in rows], schema=schema)
        return pa.table({"id": [r["id"] for r in rows], "value": _json_array([r["value"] for r in rows], schema)})

    def visible(self, name: str, schema: pa.Schema) -> pa.Table:
        files = self.files(name)
        return pa.concat_tables([self.decode(f, schema) for f in files]) if files else schema.empty_table()

    def stored(self, case: TypeCase) -> pa.Array:
        if case.name in {"binary", "date", "time", "timestamp", "timestamp_with_zone"}:
            return pa.array([None if v is None else _csv_text(v) for v in case.values], pa.string())
        return case.array()


def _json_array(values: list[Any], schema: pa.Schema) -> pa.Array:
    kind = schema.field("value").type
    if pa.types.is_floating(kind):
        return pa.array([None if v is None else float(v) for v in values], kind)
    if pa.types.is_decimal(kind):
        return pa.array([None if v is None else Decimal(v) for v in values], kind)
    textual = pa.types.is_binary(kind) or pa.types.is_temporal(kind)
    return pa.array(values, pa.string() if textual else kind)


def _csv_text(value: Any) -> str:
    """Return how DuckDB is known to write a value."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return str(value).removesuffix("+00:00") + ("+00" if value.tzinfo else "")
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


class ParquetPrefix(_Folder):
    """A prefix of an S3 bucket."""

    name = "file-parquet-s3"
    gaps: ClassVar[dict[str, str]] = {}

    def start(self) -> None:
        self.s3 = shared_s3()

    def open(self, name: str) -> tuple[Target, TargetOptions]:
        return _target(self.s3), FileTargetOptions(path=f"s3://{BUCKET}/targets/{name}")

    def files(self, name: str) -> list[bytes]:
        import obstore

        store, prefix = Storage(
            self.s3.options, {n: Secret(**v) for n, v in self.s3.secrets.items()}, self.s3.client_options
        ).store(f"s3://{BUCKET}/targets/{name}/")
        found = sorted(o["path"] for page in obstore.list(store, prefix) for o in page)
        return [bytes(obstore.get(store, key).bytes()) for key in found]

    def missing(self) -> tuple[Target, TargetOptions]:
        return _target(self.s3), FileTargetOptions(path="s3://no_such/folder")


TARGETS = (ParquetFolder, CsvFolder, JsonLinesFolder, ParquetPrefix)
SOURCES = (CsvFiles, NdjsonFiles, JsonDocuments, ParquetFiles)
