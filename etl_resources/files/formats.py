"""Which format a file has, which options apply to it, and its reader."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Mapping
from typing import IO, TYPE_CHECKING, Any, cast

from etl_resources.exceptions import ConfigurationError
from etl_resources.files.chunks import Chunk
from etl_resources.files.compression import Content
from etl_resources.files.csv_format import CsvSettings, read_csv, read_names
from etl_resources.files.csv_records import Dialect
from etl_resources.files.excel_format import read_excel
from etl_resources.files.json_parse import JsonSettings
from etl_resources.files.parquet_format import read_parquet, read_parquet_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.files.json_format import JsonReader

SUFFIXES: Mapping[str, str] = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson",
    ".parquet": "parquet", ".pq": "parquet", ".xlsx": "excel", ".xlsm": "excel",
}  # fmt: skip

APPLIES: Mapping[str, frozenset[str]] = {
    "csv": frozenset(
        ["delimiter", "quote", "escape", "header", "names", "null_values", "encoding", "skip_rows", "max_record_bytes"]
    ),
    "json": frozenset(["records", "columns", "encoding", "max_record_bytes"]),
    "ndjson": frozenset(["columns", "encoding", "max_record_bytes"]),
    "parquet": frozenset(),
    "excel": frozenset(["sheet", "skip_rows"]),
}
"""Format -> the options that only some formats know, and this one does."""


def format_of(name: str, options: Any, origin: str) -> str:
    """Return the format of a file by its name, unless the options say it.

    Raises:
        ConfigurationError: the suffix says nothing, or an option is set that the format does not know.
    """
    suffix = "." + name.rpartition(".")[2].lower()
    found = cast("str | None", options.format) or SUFFIXES.get(suffix)
    if found is None:
        raise ConfigurationError(
            f"{origin} has no suffix that tells its format", where=origin, fix=f"say `format:` {' | '.join(APPLIES)}"
        )
    special = frozenset().union(*APPLIES.values())
    changed = {
        name
        for name in special
        if getattr(options, name) != type(options).model_fields[name].get_default(call_default_factory=True)
    }
    if ignored := sorted(changed - APPLIES[found]):
        raise ConfigurationError(
            f"{', '.join(ignored)}: not an option of {found} files", where=origin, fix="leave it out, or set `format`"
        )
    return found


def csv_settings(name: str, options: Any) -> CsvSettings:
    """Return how a CSV file is written; a .tsv file is delimited by tabs unless said otherwise."""
    delimiter = options.delimiter or ("\t" if name.lower().endswith(".tsv") else ",")
    return CsvSettings(
        dialect=Dialect(delimiter, options.quote, options.escape), header=options.header,
        names=tuple(options.names) if options.names else None, null_values=tuple(options.null_values),
        encoding=options.encoding, skip_rows=options.skip_rows, max_record_bytes=options.max_record_bytes,
    )  # fmt: skip


def json_settings(kind: str, options: Any) -> JsonSettings:
    """Return how a JSON file is written."""
    return JsonSettings(
        lines=kind == "ndjson", records=options.records, encoding=options.encoding,
        max_record_bytes=options.max_record_bytes,
    )  # fmt: skip


def chunks_of(content: Content, options: Any, json_reader: JsonReader, batch_rows: int) -> Generator[Chunk]:
    """Yield the records of one file or member, in chunks."""
    kind = format_of(content.name, options, content.origin)
    if kind == "csv":
        yield from read_csv(content.stream, content.origin, csv_settings(content.name, options))
    elif kind == "parquet":
        with _seekable(content.stream) as stream:
            yield from read_parquet(stream, content.origin, min(batch_rows, 65_536))
    elif kind == "excel":
        with _seekable(content.stream) as stream:
            yield from read_excel(stream, content.origin, sheet=options.sheet, skip_rows=options.skip_rows)
    else:
        yield from json_reader.read(content.stream, content.origin, json_settings(kind, options))


def schema_of(content: Content, options: Any) -> pa.Schema | None:
    """Return the columns that a file names itself; None: they have to be found in its records."""
    import pyarrow as pa

    kind = format_of(content.name, options, content.origin)
    if kind == "csv":
        names = read_names(content.stream, content.origin, csv_settings(content.name, options))
        return pa.schema([(n, pa.string()) for n in names])
    if kind == "parquet":
        with _seekable(content.stream) as stream:
            return read_parquet_schema(stream, content.origin)
    if kind == "excel":
        with _seekable(content.stream) as stream:
            first = next(read_excel(stream, content.origin, sheet=options.sheet, skip_rows=options.skip_rows), None)
        return first.data.schema if first and first.data is not None else pa.schema([])
    return None


def _seekable(stream: IO[bytes]) -> IO[bytes]:
    """Return a stream that can be read in any order; what comes out of a decompressor is put on disk first."""
    if stream.seekable():
        return stream
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(stream, copy, 1 << 20)
    copy.seek(0)
    return cast("IO[bytes]", copy)


def reads_in_order(name: str) -> bool:
    """Tell whether a file is read from its beginning to its end; archives, Parquet and Excel are not."""
    return not name.lower().endswith((".zip", ".parquet", ".pq", ".xlsx", ".xlsm"))
