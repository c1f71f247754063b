"""Arrow batches written as one local file: Parquet, CSV or JSON lines, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from etl_resources.engines.kept import database
from etl_resources.exceptions import SchemaConflictError, UnavailableError
from etl_resources.files.align import align

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["parquet", "csv", "jsonl"]


class _Counted:
    """Batches on their way into a writer: counts their rows, and keeps the error that a writer would hide."""

    def __init__(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        self._batches, self._schema = batches, schema
        self.rows = 0
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        try:
            for batch in self._batches:
                self.rows += batch.num_rows
                yield from align(pa.Table.from_batches([batch]), self._schema).to_batches()
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - kept whatever it is, and raised by `finished`
            # An exception that leaves an Arrow stream inside DuckDB can leave its worker threads waiting for ever.
            self.error = error

    def finished(self) -> int:
        """Return the number of rows; raise what ended the batches early."""
        if self.error is not None:
            raise self.error
        return self.rows


def write_file(
    path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, kind: Format, compression: str | None
) -> int:
    """Write the batches and return the number of rows. What the batches raise comes through as it is.

    In CSV and JSON, binary values are base64, timestamps `2024-02-29 12:00:00.5+00`; in CSV a null is an empty field,
    an empty string is quoted, and structs and lists are JSON.

    Raises:
        SchemaConflictError: the format has no form for a type or value: NaN in JSON, binary within a struct.
        UnavailableError: the disk is full or fails.
    """
    if kind == "parquet":
        return _write_parquet(path, batches, schema, compression or "zstd")
    return _write_text(path, batches, schema, kind, compression or "none")


def _write_parquet(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, compression: str) -> int:
    import pyarrow.parquet as pq

    counted = _Counted(batches, schema)
    try:
        with pq.ParquetWriter(path, schema, compression=compression) as writer:
            for batch in counted:
                writer.write_batch(batch)
    except OSError as error:
        raise _failed(path, error) from error
    return counted.finished()


def _write_text(
    path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, kind: Format, compression: str
) -> int:
    import duckdb
    import pyarrow as pa

    written = pa.schema([(f.name, _textual(f.type)) for f in schema])
    counted = _Counted(batches, written)
    options = "FORMAT csv, HEADER" if kind == "csv" else "FORMAT json"
    with database(None, {}) as connection:
        connection.register("load", pa.RecordBatchReader.from_batches(written, iter(counted)))
        columns = ", ".join(_expression(f, kind) for f in written)
        target = str(path).replace("'", "''")
        sql = f"COPY (SELECT {columns} FROM load) TO '{target}' ({options}, COMPRESSION '{compression}')"  # noqa: S608
        try:
            connection.execute(sql)
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException):
                raise _failed(path, error) from error
            raise SchemaConflictError(
                str(error).splitlines()[0], where=path.name, fix="publish it as Parquet"
            ) from error
    return counted.finished()


def _expression(field: pa.Field, kind: Format) -> str:
    from pyarrow import types

    column = '"' + field.name.replace('"', '""') + '"'
    value = column
    if types.is_nested(field.type):
        _refuse_inner_binary(field.type, field.name)
        value = f"to_json({column})" if kind == "csv" else column
    elif _is_binary(field.type):
        value = f"to_base64({column})"
    elif types.is_floating(field.type) and kind == "jsonl":
        problem = f"column {field.name} holds NaN or infinity, which JSON does not have".replace("'", "''")
        value = f"CASE WHEN {column} IS NULL OR isfinite({column}) THEN {column} ELSE error('{problem}') END"
    return f"{value} AS {column}"


def _textual(kind: pa.DataType) -> pa.DataType:
    """Widen decimals without whole digits: DuckDB writes .5 for them, which is not JSON."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(kind):
        return pa.struct([(f.name, _textual(f.type)) for f in kind])
    if types.is_list(kind):
        return pa.list_(_textual(kind.value_type))
    if types.is_decimal128(kind) and kind.scale == kind.precision < 38:
        return pa.decimal128(38, kind.scale)
    return kind


def _refuse_inner_binary(kind: pa.DataType, name: str) -> None:
    inner = [kind.field(n).type for n in range(kind.num_fields)]
    if any(_is_binary(t) for t in inner):
        raise SchemaConflictError(f"column {name} holds binary values within {kind}", fix="publish it as Parquet")
    for t in inner:
        _refuse_inner_binary(t, name)


def _is_binary(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _failed(path: Path, error: BaseException) -> UnavailableError:
    what = f"{path.name} could not be written: {str(error).splitlines()[0]}"
    return UnavailableError(what, where=str(path.parent), fix="check the free space")
