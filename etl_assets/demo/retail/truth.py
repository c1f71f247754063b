"""What the generator knows about its own data, as Parquet files that a test can hold against the tables of the lake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl_assets.demo.retail.columns import Ints
from etl_assets.demo.retail.records import Records

FATES = pa.schema(
    [
        pa.field("record", pa.int64(), nullable=False),
        pa.field("line", pa.int64()),
        pa.field("key", pa.string(), nullable=False),
        pa.field("fate", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
    ]
)
"""`record`: 1 for the first record of the file; `line`: physical line on which it starts (CSV only); `key`: id of the
thing it describes, in the form of silver; `fate`; `kind`: what is the matter with it."""


@dataclass(frozen=True)
class Truth:
    """What became of a generated data set.

    `fates` holds the number of records per stream and fate, `warnings` the number of kept rows per stream and rule that
    only warns. The Parquet files under `directory`: `fates/<stream>` (one row per record), `silver/<stream>` (the rows
    that silver must hold) and `gold/<table>` (the figures).
    """

    directory: Path
    fates: Mapping[str, Mapping[str, int]]
    warnings: Mapping[str, Mapping[str, int]]

    def path(self, layer: str, table: str) -> Path:
        """Return the Parquet file of a table of a layer: fates, silver or gold."""
        return self.directory / layer / f"{table}.parquet"


class StreamTruth:
    """Writes the fates and the silver rows of one stream, part by part."""

    def __init__(self, directory: Path, stream: str, silver: pa.Schema) -> None:
        self._fates = pq.ParquetWriter(_made(directory / "fates" / f"{stream}.parquet"), FATES)
        self._silver = pq.ParquetWriter(_made(directory / "silver" / f"{stream}.parquet"), silver)
        self._records = 0
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> StreamTruth:
        return self

    def __exit__(self, *_: object) -> None:
        self._fates.close()
        self._silver.close()

    def add(self, records: Records, silver: pa.Table, lines: Ints | None = None) -> None:
        """Add records with what silver must hold of each if it is kept; the key is the first column of `silver`."""
        rows = len(records.fate)
        numbers = np.arange(self._records + 1, self._records + rows + 1)
        fate = pa.array(records.fate)
        start = pa.nulls(rows, pa.int64()) if lines is None else pa.array(lines)
        columns = [pa.array(numbers), start, silver.column(0), fate, pa.array(records.kind)]
        self._fates.write_table(pa.table(columns, schema=FATES))
        self._silver.write_table(silver.filter(pa.array(records.kept)))
        self._records += rows
        self.counts.update({entry["values"]: entry["counts"] for entry in pc.value_counts(fate).to_pylist()})


def write(directory: Path, layer: str, name: str, table: pa.Table) -> None:
    """Write a whole table of the truth."""
    pq.write_table(table, _made(directory / layer / f"{name}.parquet"))


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
