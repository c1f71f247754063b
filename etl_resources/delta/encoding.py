"""How the columns of a Parquet file are encoded: what is cheapest to write and to read of what everybody can read."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SAMPLE_ROWS = 8_192
INCOMPRESSIBLE = 0.4
"""Of its size, what zstd leaves of a column of hashes or random keys; of names, places and notes it leaves less."""


def encodings(rows: pa.Table, statistics: Collection[str]) -> dict[str, Any]:
    """Return the settings of a `ParquetWriter`, judged by neighbouring rows from the middle of `rows`.

    Measured in processor time on PostgreSQL rows and on CSV, against the defaults of Arrow:

    - A dictionary only where a value comes at least twice, on average: a third less, and a fifth less bytes.
    - Differences (DELTA_BINARY_PACKED) for other integers, times and decimals of up to 18 digits: a third of the time
      to write, half to read, and hardly any bytes for what counts up; a quarter more time for random 64 bits.
    - Lengths apart from texts (DELTA_LENGTH_BYTE_ARRAY) where they do not compress, as hashes: three fifths.
    - Minimum and maximum of a text cost a fifth of writing it, so only those of `statistics` are kept.

    Args:
        statistics: columns whose minimum and maximum the table keeps.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    middle = max(0, (rows.num_rows - SAMPLE_ROWS) // 2)
    sample = rows.slice(middle, SAMPLE_ROWS)
    dictionary, encoding, bounded = [], {}, []
    columns = _leaves(rows.schema)
    for leaf in (columns.column(index) for index in range(len(columns))):
        flat = leaf.path in sample.column_names and not pa.types.is_nested(sample.schema.field(leaf.path).type)
        if leaf.path in statistics or leaf.physical_type != "BYTE_ARRAY":
            bounded.append(leaf.path)
        if not flat or 2 * pc.count_distinct(sample[leaf.path]).as_py() <= sample.num_rows:
            dictionary.append(leaf.path)
        elif leaf.physical_type in {"INT32", "INT64"}:
            encoding[leaf.path] = "DELTA_BINARY_PACKED"
        elif leaf.physical_type == "BYTE_ARRAY" and _incompressible(sample[leaf.path]):
            encoding[leaf.path] = "DELTA_LENGTH_BYTE_ARRAY"
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": dictionary,
        "column_encoding": encoding or None,
        "write_statistics": bounded,
        "store_decimal_as_integer": True,
        "store_schema": False,
    }


def _incompressible(texts: pa.ChunkedArray) -> bool:
    import pyarrow as pa

    data = b"".join(texts.cast(pa.binary()).drop_null().to_pylist())
    return pa.Codec("zstd", 1).compress(data).size > INCOMPRESSIBLE * len(data)


def _leaves(schema: pa.Schema) -> pq.ParquetSchema:
    """Return the leaf columns, as Parquet names and types them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pa.BufferOutputStream() as sink:
        writer = pq.ParquetWriter(sink, schema, store_decimal_as_integer=True)
        writer.close()
    return writer.writer.metadata.schema
