"""(a) pandas, PostgreSQL -> Delta, in chunks: `port table folder`. Runs in the environment of the peers."""

from __future__ import annotations

import sys

from bench.said import timed


def main(port: str, table: str, folder: str) -> None:
    import pandas as pd
    import pyarrow as pa
    import sqlalchemy as sa
    from deltalake import write_deltalake

    def load() -> None:
        engine = sa.create_engine(f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres")
        with engine.connect().execution_options(stream_results=True) as connection:
            for chunk in pd.read_sql(sa.text(f"SELECT * FROM {table}"), connection, chunksize=200_000):
                write_deltalake(folder, pa.Table.from_pandas(chunk, preserve_index=False), mode="append")

    timed(load)


main(*sys.argv[1:])
