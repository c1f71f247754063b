"""Peek and decode the changes of a slot and throw them away: `port slot publication how`.

`how` is `all`, or `decode`: only the decoding is timed, of messages that were fetched before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import psycopg
import pyarrow as pa
from adbc_driver_postgresql import dbapi

from bench.said import timed
from etl_resources.changes.pgoutput import Decoder, Relation
from etl_resources.changes.postgres_peek import peek
from etl_resources.postgres_session import Session
from etl_resources.read_ahead import read_ahead
from etl_resources.sources.postgres_columns import Column, describe_types


def main(port: str, slot: str, publication: str, how: str) -> None:
    address = f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable"
    with psycopg.connect(address, autocommit=True) as client:

        def describe(relation: Relation) -> list[Column]:
            return describe_types(client, [(c.name, c.type_oid, c.typmod) for c in relation.columns])

        def decode(pieces: Iterable[pa.Array]) -> int:
            decoder = Decoder({("public", "changes"): "changes"}, {}, {"changes": ("id",)}, describe)
            return sum(made.data.num_rows for messages in pieces for made in decoder.decode(messages))

        session = Session(dbapi.connect(address, autocommit=True), "the bench")
        messages = peek(session, slot, publication)
        decoding = "etl_resources.changes.pgoutput_events"
        if how == "decode":
            fetched = list(messages)
            timed(lambda: decode(fetched), decoding)
        else:
            timed(lambda: decode(read_ahead(messages, 2)), decoding)
        session.close()


main(*sys.argv[1:])
