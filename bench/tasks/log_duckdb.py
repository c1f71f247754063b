"""(log) The same log by one regular expression in DuckDB, drained as Arrow, nothing typed or told: `path`."""

from __future__ import annotations

import sys

import duckdb

from bench.said import timed

PATTERN = (
    r'^(\S+) (\S+) (\S+) \[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\d{3}|-) (\d+|-) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"$'
)
NAMES = ["host", "ident", "user", "time", "request", "status", "bytes", "referer", "agent"]


def main(path: str) -> int:
    query = (
        f"SELECT unnest(regexp_extract(line, '{PATTERN}', {NAMES})) FROM read_csv('{path}', "
        "columns = {'line': 'VARCHAR'}, header = false, delim = '\x01', quote = '', escape = '')"
    )
    with duckdb.connect() as connection:
        return sum(batch.num_rows for batch in connection.sql(query).to_arrow_reader(131_072))


if __name__ == "__main__":
    timed(lambda: main(sys.argv[1]), "pyarrow")
