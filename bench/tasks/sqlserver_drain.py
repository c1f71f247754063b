"""The limit: read a table as Arrow batches of the same driver and throw them away: `port table`."""

from __future__ import annotations

import sys

import mssql_python

from bench.said import timed
from tests.servers.tds import PASSWORD, USER


def main(port: str, table: str) -> None:
    def drain() -> int:
        rows = 0
        password = PASSWORD.replace("}", "}}")
        settings = f"Server=127.0.0.1,{port};Database=master;UID={USER};PWD={{{password}}};Encrypt=no"
        with mssql_python.connect(settings, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM dbo.{table}")
            while size := cursor.arrow_batch(65_536).num_rows:
                rows += size
        return rows

    timed(drain, "pyarrow.parquet")


main(*sys.argv[1:])
