"""(a) The limit: read a table as binary COPY and throw it away: `port table`."""

from __future__ import annotations

import sys

import psycopg

from bench.said import timed


def main(port: str, table: str) -> None:
    def drain() -> int:
        size = 0
        with (
            psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres") as connection,
            connection.cursor() as cursor,
            cursor.copy(f"COPY {table} TO STDOUT (FORMAT binary)") as copy,
        ):
            for block in copy:
                size += len(block)
        return size

    timed(drain)


main(*sys.argv[1:])
