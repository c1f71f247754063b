"""A slot of the real server: what was written into a database, as messages, and as the events of a decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pyarrow as pa

from etl_resources.changes.pgoutput import Decoded, Decoder, Relation
from etl_resources.changes.postgres_peek import peek
from etl_resources.sources.postgres import PostgresSource
from etl_resources.sources.postgres_columns import Column, describe_types
from tests.servers.postgres import PostgresServer

SLOT, PUBLICATION = "pgoutput_test", 'every "table'


class Log:
    """The log of one database since `follow`: everything is published."""

    def __init__(self, server: PostgresServer, database: str, client: psycopg.Connection[Any]) -> None:
        self.server, self.database, self.client = server, database, client
        self.source = PostgresSource(**server.settings(database))
        self.described: list[Relation] = []
        self._known: dict[Relation, list[Column]] = {}

    def sql(self, *statements: str) -> None:
        """Run statements, each in a transaction of its own."""
        for statement in statements:
            self.client.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.client.execute(query).fetchall()

    def messages(self, **limits: Any) -> pa.Array:
        """Return all messages since the slot was made."""
        with self.source.session() as session:
            found = list(peek(session, SLOT, PUBLICATION, **limits))
        return pa.concat_arrays(found) if found else pa.array([], pa.binary())

    def describe(self, relation: Relation) -> Sequence[Column]:
        self.described.append(relation)
        if relation not in self._known:
            wanted = [(c.name, c.type_oid, c.typmod) for c in relation.columns]
            self._known[relation] = describe_types(self.client, wanted)
        return self._known[relation]

    def decoder(self, cursor: int = 0, /, **keys: tuple[str, ...]) -> Decoder:
        """Return a decoder of tables of the schema public, whose streams have their names."""
        streams = {("public", name): name for name in keys}
        return Decoder(streams, dict.fromkeys(keys, cursor), keys, self.describe)

    def decoded(self, **keys: tuple[str, ...]) -> list[Decoded]:
        return self.decoder(0, **keys).decode(self.messages())

    def events(self, **keys: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return the events of one table as objects; the account of every piece balances."""
        return events(self.decoded(**(keys or {"t": ("id",)})))


def events(pieces: Sequence[Decoded]) -> list[dict[str, Any]]:
    """Return the events of some pieces as objects."""
    for piece in pieces:
        apart = 0 if piece.unreadable is None else piece.unreadable.num_rows
        assert piece.read == piece.data.num_rows + piece.repeated + apart
    return [event for piece in pieces for event in piece.data.to_pylist()]


def short(found: Sequence[Mapping[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """Return the operation and some columns of events."""
    return [(event["_op"], *(event[name] for name in names)) for event in found]


@contextmanager
def follow(server: PostgresServer, database: str) -> Iterator[Log]:
    """Make a publication of all tables and a slot, and drop the slot afterwards."""
    with server.connect(database) as client:
        name = '"' + PUBLICATION.replace('"', '""') + '"'
        client.execute(f"CREATE PUBLICATION {name} FOR ALL TABLES WITH (publish_via_partition_root = true)")
        client.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [SLOT])
        try:
            yield Log(server, database, client)
        finally:
            client.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])
            client.execute(f"DROP PUBLICATION {name}")
