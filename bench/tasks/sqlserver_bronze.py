"""SQL Server -> bronze: `port table folder`."""

from __future__ import annotations

import os
import sys

from bench.said import timed
from etl_assets.bronze import Bronze
from etl_assets.run import Run
from etl_resources.lake import Lake
from etl_resources.secret import Secret
from etl_resources.source import Snapshot, Stream
from etl_resources.sources.sqlserver import SqlServerSource, SqlServerStreamOptions
from tests.servers.tds import PASSWORD, USER, VARIABLE


def main(port: str, table: str, folder: str) -> None:
    os.environ[VARIABLE] = PASSWORD
    source = SqlServerSource(
        host="127.0.0.1", port=int(port), database="master", user=USER, password=Secret(env=VARIABLE), encrypt="no"
    )
    stream = Stream("orders", SqlServerStreamOptions(type="sqlserver", table=table), Snapshot())
    bronze = Bronze(Lake(uri=folder), "bench", stream)
    timed(
        lambda: bronze.land(source, Run("bench")).account.inserted, "pyarrow.parquet", "deltalake", "mssql_python"
    )  # fmt: skip


main(*sys.argv[1:])
