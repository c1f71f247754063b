"""dlt, MySQL -> Delta: `port table folder backend`. Runs in the environment of the peers."""

from __future__ import annotations

import os
import sys
import tempfile

from bench.said import timed


def main(port: str, table: str, folder: str, backend: str) -> None:
    os.environ["DESTINATION__FILESYSTEM__BUCKET_URL"] = folder
    import dlt
    from dlt.sources.sql_database import sql_table

    address = f"root@127.0.0.1:{port}/bench"
    options = {"conn": f"mysql://{address}"} if backend == "connectorx" else None

    def load() -> None:
        resource = sql_table(
            credentials=f"mysql+pymysql://{address}", table=table, backend=backend, backend_kwargs=options,
            chunk_size=100_000,
        )  # fmt: skip
        resource.apply_hints(table_format="delta")
        pipeline = dlt.pipeline("bench", destination="filesystem", dataset_name="d", pipelines_dir=tempfile.mkdtemp())
        pipeline.run(resource, loader_file_format="parquet")

    timed(load, "pyarrow.parquet", "deltalake", "sqlalchemy", "pymysql", "connectorx")


main(*sys.argv[1:])
