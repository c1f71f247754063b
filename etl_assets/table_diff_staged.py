"""The rows of a source in a table of the engine, which spills to disk: their columns may come to be while they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etl_resources.change_log import event_fields
from etl_resources.engines.duckdb import quote
from etl_resources.exceptions import SchemaConflictError
from etl_resources.hashed import HASH

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.engines.duckdb import Session

ORIGIN = "_origin"
IGNORED = frozenset({"_op", "_seq"})
"""What a source may tell of the order of its records, which is not that of a log."""


class Staged:
    """A temporary table in the types of bronze, made by the first batch."""

    def __init__(self, session: Session, name: str, key: Sequence[str], log: pa.Schema | None, where: str) -> None:
        self.session, self.name, self.key, self.where = session, name, tuple(key), where
        self.log = log
        self.schema: pa.Schema | None = None
        self.rows = 0

    def add(self, batch: pa.RecordBatch, *, wanted: str | None = None, hashed: bool = False) -> None:
        """Insert rows.

        Args:
            wanted: a table of keys; other rows are left out.
            hashed: there is a `_hash`, and it is ours.

        Raises:
            SchemaConflictError: a column has no type that holds all its values; the key has another than in the lake.
        """
        from etl_resources.delta.evolution import conform, merge_schemas

        incoming = self._landing(batch.schema, {HASH} if hashed else set())
        self.schema_of(incoming if self.schema is None else merge_schemas(self.schema, incoming, where=self.where))
        assert self.schema is not None  # noqa: S101 - has just been set
        rows = conform(batch.select(incoming.names), self.schema, where=self.where)
        self.session.connection.register("_incoming", rows)
        same = " AND ".join(f"i.{quote(name)} = w.{quote(name)}" for name in self.key)
        only = f" SEMI JOIN {wanted} w ON {same}" if wanted is not None else ""
        (inserted,) = self.session.execute(f"INSERT INTO {self.name} SELECT i.* FROM _incoming i{only}")[0]  # noqa: S608
        self.session.connection.unregister("_incoming")
        self.rows += int(inserted)

    def schema_of(self, schema: pa.Schema) -> None:
        """Let the table have these columns, at least those that it has."""
        if schema == self.schema:
            return
        self.session.connection.register("_columns", schema.empty_table())
        known = "" if self.schema is None else f"SELECT * FROM {self.name} UNION ALL BY NAME "  # noqa: S608
        self.session.execute(f"CREATE OR REPLACE TEMP TABLE {self.name} AS {known}SELECT * FROM _columns")  # noqa: S608
        # BY NAME puts new columns behind the others.
        order = self.session.arrow_schema(self.name).names
        self.session.connection.unregister("_columns")
        import pyarrow as pa

        self.schema = pa.schema([schema.field(name) for name in order])

    @property
    def row(self) -> pa.Schema:
        """The columns that the source gives."""
        import pyarrow as pa

        assert self.schema is not None  # noqa: S101 - only asked for after a batch
        return pa.schema([field for field in self.schema if field.name not in (HASH, ORIGIN)])

    def complete(self, alias: str) -> str:
        """Return SQL: no column of the key is null."""
        return " AND ".join(f"{alias}.{quote(name)} IS NOT NULL" for name in self.key)

    def _landing(self, given: pa.Schema, ours: set[str]) -> pa.Schema:
        import pyarrow as pa

        from etl_resources.delta.evolution import landing_schema

        theirs = pa.schema([field for field in given if field.name not in ours])
        check_names(theirs, self.key, self.log, where=self.where)
        fields = []
        for field in landing_schema(given):
            known = field.name in self.key and self.log is not None and field.name in self.log.names
            if field.name not in IGNORED:
                fields.append(pa.field(field.name, self.log.field(field.name).type) if known and self.log else field)
        return pa.schema(fields)


def check_names(given: pa.Schema, key: Sequence[str], log: pa.Schema | None, *, where: str) -> None:
    """Make sure that rows can become events of a log: by their names, and by the types of their key.

    Raises:
        SchemaConflictError: they cannot.
    """
    from etl_resources.delta.evolution import common_type, widest

    own = {field.name for field in event_fields(given)} | {HASH}
    taken = sorted(own.intersection(given.names) - IGNORED - {ORIGIN})
    missing = [name for name in key if name not in given.names]
    if taken or missing:
        problem = f"a column {taken[0]!r}, a name of the events' own" if taken else f"no column {missing[0]!r}"
        raise SchemaConflictError(
            f"the source has {problem}", where=where, fix="name the columns in the source's query"
        )
    for name in key:
        known, comes = log.field(name).type if log is not None and name in log.names else None, given.field(name).type
        if known is not None and common_type(known, widest(comes)) is None:
            raise SchemaConflictError(
                f"the key {name!r} is {known} in the lake and {comes} in the source: no key would be recognised",
                where=where,
                fix="cast it in the source's query to what it was, or give the stream another name",
            )
