"""A query's result by way of S3: COPY INTO a location, and the files that it writes."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError, RowsNotConservedError
from etl_resources.snowflake_sql import literal, quote
from etl_resources.sources.snowflake_columns import Column, conformed
from etl_resources.unloaded import ObjectStore, Unload, folder_below, read_files

if TYPE_CHECKING:
    import pyarrow as pa

_FILE_BYTES = 256 << 20
_MOMENT = "YYYY-MM-DD HH24:MI:SS.FF6"
# What Parquet has many types for, or none, is written as a text, from which it is read exactly.
_AS_TEXT = {
    "DATE": "TO_VARCHAR({}, 'YYYY-MM-DD')",
    "TIME": "TO_VARCHAR({}, 'HH24:MI:SS.FF6')",
    "TIMESTAMP_NTZ": f"TO_VARCHAR({{}}, '{_MOMENT}')",
    "TIMESTAMP_LTZ": f"TO_VARCHAR(CONVERT_TIMEZONE('UTC', {{}})::TIMESTAMP_NTZ, '{_MOMENT}') || 'Z'",
    "TIMESTAMP_TZ": f"TO_VARCHAR(CONVERT_TIMEZONE('UTC', {{}})::TIMESTAMP_NTZ, '{_MOMENT}') || 'Z'",
    "BINARY": "HEX_ENCODE({})",
    "VARIANT": "TO_JSON({})", "OBJECT": "TO_JSON({})", "ARRAY": "TO_JSON({})",
}  # fmt: skip
_AS_IT_IS = frozenset({"FIXED", "REAL", "BOOLEAN", "TEXT"})


def selected(columns: list[Column], where: str) -> str:
    """Return what an unload selects of the columns.

    Raises:
        ConfigurationError: a column is of a type that cannot be unloaded.
    """
    return ", ".join(f"{_expression(c, where)} AS {quote(c.name)}" for c in columns)


def _expression(column: Column, where: str) -> str:
    own = f"t.{quote(column.name)}"
    if column.kind in _AS_IT_IS:
        return own
    if column.kind not in _AS_TEXT:
        raise ConfigurationError(
            f"column {column.name} is of type {column.kind}, which cannot be unloaded", where=where,
            fix="leave it out by `columns`, cast it in a `query`, or leave out `unload`",
        )  # fmt: skip
    return _AS_TEXT[column.kind].format(own)


def unloaded(
    cursor: Any, query: str, unload: Unload, store: ObjectStore, integration: str | None, columns: list[Column], *,
    where: str, batch_rows: int,
) -> Generator[pa.RecordBatch, None, None]:  # fmt: skip
    """Yield the result of a query, which Snowflake writes to S3; the objects are removed at the end, or on failure.

    Raises:
        RowsNotConservedError: the files hold other rows than Snowflake says it wrote.
        UnavailableError, CredentialsRejectedError, NotFoundError: of the object store.
    """
    if integration is None:
        raise ConfigurationError(
            "`unload` needs something that lets Snowflake write to S3", where=where, fix="give `storage_integration`"
        )
    storage = store.storage()
    with folder_below(unload.to, storage) as folder:
        cursor.execute(
            f"COPY INTO {literal(folder)} FROM ({query}) STORAGE_INTEGRATION = {quote(integration)}"
            f" FILE_FORMAT = (TYPE = PARQUET) HEADER = TRUE DETAILED_OUTPUT = TRUE MAX_FILE_SIZE = {_FILE_BYTES}"
        )
        counts = [int(row[2]) for row in cursor.fetchall()]
        paths = [found.path for found in storage.find(f"{folder}**")]
        if len(paths) != len(counts):
            raise RowsNotConservedError(
                f"Snowflake says that it wrote {len(counts)} files, and there are {len(paths)}", where=where,
                fix="run again",
            )  # fmt: skip
        for table in read_files(paths, storage, sum(counts), where, batch_rows):
            yield from conformed(_as_over_the_wire(table, columns), columns, where).to_batches(max_chunksize=batch_rows)


def _as_over_the_wire(table: pa.Table, columns: list[Column]) -> pa.Table:
    """Return a table whose columns of bytes are bytes again, and whose times have all their digits."""
    import pyarrow as pa

    from etl_resources.hex_text import unhex

    for n, column in enumerate(columns):
        if column.kind in {"BINARY", "TIME"} and n < table.num_columns and table.column(n).num_chunks:
            texts = pa.concat_arrays(table.column(n).chunks)
            values = unhex(texts) if column.kind == "BINARY" else _times(texts)
            table = table.set_column(n, table.schema.names[n], values)
    return table


def _times(texts: pa.Array) -> pa.Array:
    """Return times of day; Arrow parses those of a day only."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.binary_join_element_wise("1970-01-01", texts, " ").cast(pa.timestamp("us")).cast(pa.time64("us"))
