"""(files) DuckDB reads the file, drained as Arrow; CSV as text, which is what bronze keeps: `path`."""

from __future__ import annotations

import sys

import duckdb

from bench.said import timed


def main(path: str) -> int:
    scan = f"read_csv('{path}', all_varchar = true)" if path.endswith(".csv") else f"read_json('{path}')"
    with duckdb.connect() as connection:
        return sum(batch.num_rows for batch in connection.sql(f"SELECT * FROM {scan}").to_arrow_reader(131_072))


if __name__ == "__main__":
    timed(lambda: main(sys.argv[1]), "pyarrow")
