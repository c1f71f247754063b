"""MySQL -> bronze: `port table folder`."""

from __future__ import annotations

import sys

from bench.said import timed
from etl_assets.bronze import Bronze
from etl_assets.run import Run
from etl_resources.lake import Lake
from etl_resources.source import Snapshot, Stream
from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions


def main(port: str, table: str, folder: str) -> None:
    source = MysqlSource(host="127.0.0.1", port=int(port), database="bench", user="root", ssl_mode="disabled")
    stream = Stream("orders", MysqlStreamOptions(type="mysql", table=table), Snapshot())
    bronze = Bronze(Lake(uri=folder), "bench", stream)
    timed(
        lambda: bronze.land(source, Run("bench")).account.inserted,
        "pyarrow.parquet",
        "pyarrow.compute",
        "deltalake",
        "pymysql",
        "numpy",
        "stamina",
    )


main(*sys.argv[1:])
