"""For comparison: the changes of a slot of wal2json, drained as JSON text without parsing it: `port slot`."""

from __future__ import annotations

import sys

import psycopg

from bench.said import timed


def main(port: str, slot: str) -> None:
    query = f"SELECT data FROM pg_logical_slot_peek_changes('{slot}', NULL, NULL, 'format-version', '2')"
    with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres") as connection:
        timed(lambda: sum(len(data) for (data,) in connection.cursor().stream(query, size=5000)))


main(*sys.argv[1:])
