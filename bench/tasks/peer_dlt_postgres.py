"""(d) dlt, PostgreSQL -> PostgreSQL: `port table`. Runs in the environment of the peers."""

from __future__ import annotations

import sys
import tempfile

from bench.said import timed


def main(port: str, table: str) -> None:
    import dlt
    from dlt.sources.sql_database import sql_table

    address = f"127.0.0.1:{port}/postgres"

    def load() -> None:
        source = sql_table(credentials=f"postgresql+psycopg2://postgres@{address}", table=table, backend="pyarrow")
        target = dlt.destinations.postgres(f"postgresql://postgres:none@{address}")
        pipeline = dlt.pipeline("bench", destination=target, dataset_name="dlt_out", pipelines_dir=tempfile.mkdtemp())
        pipeline.run(source, write_disposition="replace")

    timed(load, "pyarrow.parquet", "sqlalchemy", "psycopg2")


main(*sys.argv[1:])
