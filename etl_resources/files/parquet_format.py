"""Parquet: the types of the file, row group by row group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, TYPE_CHECKING

from etl_resources.exceptions import UnavailableError
from etl_resources.files.chunks import Chunk

if TYPE_CHECKING:
    import pyarrow as pa

_BUFFER = 1 << 20


def read_parquet_schema(stream: IO[bytes], origin: str) -> pa.Schema:
    """Return the schema of a Parquet file; dictionaries are an encoding, not a type."""
    import pyarrow.parquet as pq

    with _parquet_errors(origin):
        return _plain(pq.ParquetFile(stream).schema_arrow)


def read_parquet(stream: IO[bytes], origin: str, batch_rows: int) -> Iterator[Chunk]:
    """Yield the rows of a Parquet file.

    Raises:
        UnavailableError: it is damaged, or has fewer rows than it says.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _parquet_errors(origin):
        # Group by group, and not buffered ahead, or memory grows with the size of the file.
        file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER)
        schema = _plain(file.schema_arrow)
        expected, read = file.metadata.num_rows, 0
        yield Chunk(schema.empty_table(), 0)
        groups = (file.iter_batches(batch_rows, row_groups=[n]) for n in range(file.num_row_groups))
        for batch in chain.from_iterable(groups):
            read += batch.num_rows
            yield Chunk(pa.Table.from_batches([batch]).cast(schema), batch.num_rows)
        if read != expected:
            raise UnavailableError(f"{origin} holds {read:,} rows, and says {expected:,}", where=origin)


def _plain(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    fields = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in schema]
    return pa.schema([f.with_metadata({}) for f in fields])


@contextmanager
def _parquet_errors(origin: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise UnavailableError(
            f"{origin} is not a whole Parquet file: {str(error).splitlines()[0]}", where=origin,
            fix="if it is still being written, wait; otherwise have it sent again",
        ) from error  # fmt: skip
