"""The limit: count what a slot gives, within the server: `port slot publication`."""

from __future__ import annotations

import sys

import psycopg

from bench.said import timed


def main(port: str, slot: str, publication: str) -> None:
    query = (
        "SELECT count(*) FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,"
        " 'proto_version', '1', 'publication_names', %s, 'messages', 'true')"
    )
    with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres") as connection:
        timed(lambda: connection.execute(query, [slot, publication]).fetchone())


main(*sys.argv[1:])
