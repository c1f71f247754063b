"""For comparison: pgoutput as psycopg2 streams it, drained without decoding: `port slot publication`."""

from __future__ import annotations

import sys
from typing import Any

import psycopg2
from psycopg2.extras import LogicalReplicationConnection, StopReplication

from bench.said import timed


def main(port: str, slot: str, publication: str) -> None:
    address = {"host": "127.0.0.1", "port": port, "user": "postgres", "dbname": "postgres"}
    with psycopg2.connect(**address) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")
        end = int(cursor.fetchone()[0])
    size = 0

    def take(message: Any) -> None:
        nonlocal size
        size += len(message.payload)
        # The last commit ends where the log ended; nothing is acknowledged, so that the slot stays where it is.
        if message.payload[:1] == b"C" and int.from_bytes(message.payload[10:18]) + 512 > end:
            raise StopReplication

    def stream() -> int:
        connection = psycopg2.connect(**address, connection_factory=LogicalReplicationConnection)
        cursor = connection.cursor()
        options = {"proto_version": "1", "publication_names": publication}
        cursor.start_replication(slot, decode=False, options=options)
        try:
            cursor.consume_stream(take)
        except StopReplication:
            connection.close()
        return size

    timed(stream)


main(*sys.argv[1:])
