"""(d) The limit: COPY | COPY in binary from a table into another: `port table`."""

from __future__ import annotations

import sys

import psycopg

from bench.said import timed


def main(port: str, table: str) -> None:
    def copy() -> None:
        address = {"host": "127.0.0.1", "port": port, "user": "postgres", "dbname": "postgres"}
        with psycopg.connect(**address) as left, psycopg.connect(**address) as right:
            right.execute("DROP TABLE IF EXISTS copied")
            right.execute(f"CREATE TABLE copied (LIKE {table})")
            with (
                left.cursor().copy(f"COPY {table} TO STDOUT (FORMAT binary)") as out,
                right.cursor().copy("COPY copied FROM STDIN (FORMAT binary)") as into,
            ):
                for block in out:
                    into.write(block)

    timed(copy)


main(*sys.argv[1:])
