"""(log) An access log into bronze, with account and position: `path folder`."""

from __future__ import annotations

import sys

from bench.said import timed
from etl_assets.bronze import Bronze
from etl_assets.run import Run
from etl_resources.lake import Lake
from etl_resources.source import Stream
from etl_resources.sources.log import LogOptions, LogSource


def main(path: str, folder: str) -> None:
    stream = Stream("hits", LogOptions(path=path, format="apache_combined"))
    bronze = Bronze(Lake(uri=folder), "bench", stream)
    timed(
        lambda: bronze.land(LogSource(), Run("bench")).account.inserted,
        "pyarrow.compute", "pyarrow.parquet", "deltalake", "duckdb", "pandas",
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
