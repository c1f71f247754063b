"""(files) A file into bronze, with account and position: `path folder`."""

from __future__ import annotations

import sys

from bench.said import timed
from etl_assets.bronze import Bronze
from etl_assets.run import Run
from etl_resources.lake import Lake
from etl_resources.source import Stream
from etl_resources.sources.file import FileOptions, FileSource


def main(path: str, folder: str) -> None:
    bronze = Bronze(Lake(uri=folder), "bench", Stream("orders", FileOptions(path=path)))
    timed(
        lambda: bronze.land(FileSource(), Run("bench")).account.inserted,
        "pyarrow.compute", "pyarrow.csv", "pyarrow.json", "pyarrow.parquet", "deltalake", "duckdb", "pandas",
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
