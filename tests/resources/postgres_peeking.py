"""Peeks and decodes the first transaction of a slot, and then all of them: `address slot publication [keep]`.

Prints by how many MB the second peek made the process larger, and how many events it gave; `keep` holds on to all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psycopg
from adbc_driver_postgresql import dbapi

from etl_resources.changes.pgoutput import Decoder, Relation
from etl_resources.changes.postgres_peek import peek
from etl_resources.postgres_session import Session
from etl_resources.read_ahead import read_ahead
from etl_resources.sources.postgres_columns import Column, describe_types


def main(address: str, slot: str, publication: str, keep: str = "") -> None:
    def drained(upto_nchanges: int | None) -> int:
        held = []
        with psycopg.connect(address, autocommit=True) as client:
            session = Session(dbapi.connect(address, autocommit=True), "the test's server")

            def describe(relation: Relation) -> list[Column]:
                return describe_types(client, [(c.name, c.type_oid, c.typmod) for c in relation.columns])

            decoder = Decoder({("public", "t"): "t"}, {}, {"t": ("id",)}, describe)
            events = 0
            for messages in read_ahead(peek(session, slot, publication, upto_nchanges=upto_nchanges), 2):
                made = decoder.decode(messages)
                events += sum(piece.data.num_rows for piece in made)
                held += made if keep else []
            session.close()
        return events

    def size() -> int:
        # Not ru_maxrss, which begins with what the parent had.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024

    drained(1)
    before = size()
    events = drained(None)
    print(json.dumps({"megabytes": size() - before, "events": events}))


main(*sys.argv[1:])
