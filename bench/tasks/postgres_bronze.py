"""(a) PostgreSQL -> bronze: `port table folder`."""

from __future__ import annotations

import sys

from bench.said import timed
from etl_assets.bronze import Bronze
from etl_assets.run import Run
from etl_resources.lake import Lake
from etl_resources.source import Snapshot, Stream
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions


def main(port: str, table: str, folder: str) -> None:
    source = PostgresSource(host="127.0.0.1", port=int(port), database="postgres", user="postgres", sslmode="disable")
    stream = Stream("orders", PostgresStreamOptions(type="postgres", table=table), Snapshot())
    bronze = Bronze(Lake(uri=folder), "bench", stream)
    timed(
        lambda: bronze.land(source, Run("bench")).account.inserted,
        "pyarrow.parquet",
        "deltalake",
        "adbc_driver_postgresql.dbapi",
    )


main(*sys.argv[1:])
