"""Prepare (files): `rows` orders as NDJSON or CSV at `path`: `rows path`."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from bench.said import timed
from bench.tasks.make_bronze import ORDERS


def main(rows: str, path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    query = ORDERS.format(start=0, stop=rows)
    kind = "csv, header" if path.endswith(".csv") else "json"
    with duckdb.connect() as connection:
        timed(lambda: connection.execute(f"COPY ({query}) TO '{path}' (format {kind})").fetchall())


if __name__ == "__main__":
    main(*sys.argv[1:])
