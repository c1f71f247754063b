"""For comparison: pgoutput as psycopg2 streams it, drained without decoding: `port slot publication changes`."""

from __future__ import annotations

import sys
from typing import Any

import psycopg2
from psycopg2.extras import LogicalReplicationConnection, StopReplication

from bench.said import timed


def main(port: str, slot: str, publication: str, changes: str) -> None:
    size, left = 0, int(changes)

    def take(message: Any) -> None:
        nonlocal size, left
        size += len(message.payload)
        left -= message.payload[:1] in b"IUD"
        # Nothing is acknowledged, so that the slot stays where it is.
        if left == 0 and message.payload[:1] == b"C":
            raise StopReplication

    def stream() -> int:
        address = {"host": "127.0.0.1", "port": port, "user": "postgres", "dbname": "postgres"}
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
