"""DuckDB, where SQL runs by default: embedded, columnar, spills to disk, bounded in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from etl_resources.delta.storage import is_local
from etl_resources.engines.kept import database
from etl_resources.exceptions import EngineError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from etl_resources.lake import Handle

OUTPUT_ROWS = 131_072


def quote(identifier: str) -> str:
    """Return `identifier` as a quoted SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


class DuckDB(dg.ConfigurableResource):
    """Settings of the engine; every `session` has an empty in-memory database of its own."""

    memory_limit: str = Field(default="2GB", description="What DuckDB may keep in memory before it spills to disk.")
    threads: int | None = Field(default=None, description="Threads per session; default: one per core.")
    temp_directory: str | None = Field(default=None, description="Where it spills; default: a folder under /tmp.")

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session; what it made, and its spill files, go when it ends."""
        config: dict[str, Any] = {"memory_limit": self.memory_limit, "preserve_insertion_order": False}
        if self.threads is not None:
            config["threads"] = self.threads
        with database(self.temp_directory, config) as connection:
            yield Session(connection)


class Session:
    """A DuckDB connection and the lake tables that it can see."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._registered = 0
        self._types: dict[pa.Schema | str, dict[str, str]] = {}

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows.

        Raises:
            EngineError: DuckDB could not run it; the message has its reason and the statement.
        """
        with self._explained(sql):
            return self.connection.execute(sql).fetchall()

    def stream(self, sql: str, rows: int = OUTPUT_ROWS) -> pa.RecordBatchReader:
        """Run a query and stream its result in batches of `rows` rows; EngineError may also come while it is read."""
        import pyarrow as pa

        with self._explained(sql):
            reader = self.connection.sql(sql).to_arrow_reader(rows)

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                yield from reader
            except (OSError, pa.ArrowException) as error:  # what Arrow makes of an error in the engine
                raise EngineError(f"DuckDB: {error}", where=_shown(sql)) from error

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def table(self, sql: str) -> pa.Table:
        """Run a query with a small result."""
        with self._explained(sql):
            return self.connection.sql(sql).to_arrow_table()

    def types(self, relation: str) -> dict[str, str]:
        """Return column name -> DuckDB type of a relation (a table's name, or a query in parentheses)."""
        return {row[0]: row[1] for row in self.execute(f"DESCRIBE SELECT * FROM {relation}")}  # noqa: S608

    def arrow_schema(self, relation: str) -> pa.Schema:
        """Return the Arrow schema of a relation without reading it."""
        return self.table(f"SELECT * FROM {relation} LIMIT 0").schema  # noqa: S608

    def lake_relation(
        self,
        handle: Handle,
        *,
        column: str | None = None,
        above: int | None = None,
        files: Collection[str] | None = None,
        columns: Sequence[str] | None = None,
        named: str | None = None,
    ) -> str:
        """Return SQL, usable after FROM, for a lake table as of `handle`.

        Columns that a file is too old to have are NULL.

        Args:
            column: with `above`: only files that may hold greater values are read (the caller still filters).
            above: see `column`.
            files: only these are read, by their paths in the log.
            columns: those of the relation; None: all.
            named: name of a further column with the location of the file that the row is in. The relation may then be
                read once only.
        """
        schema = handle.schema()
        names = schema.names if columns is None else list(columns)
        if not is_local(handle.table.uri) or not handle.plain_files():
            from etl_resources.delta.dataset import dataset_of

            # Slower by half and hungrier, but it knows deletion vectors, partition columns and object stores.
            return self._register(dataset_of(handle, files, names, named))
        paths = handle.files(column, above) if files is None else [handle.table.location(path) for path in files]
        kinds = self._once(schema, lambda: self._register(schema.empty_table()))
        wanted = {name: kinds[name] for name in names} | ({named: "VARCHAR"} if named else {})
        if not paths:
            nulls = ", ".join(f"CAST(NULL AS {kind}) AS {quote(name)}" for name, kind in wanted.items())
            return f"(SELECT {nulls} WHERE false)"
        listed = f"[{', '.join(map(literal, paths))}], union_by_name = true"
        present = self._once(listed, lambda: f"read_parquet({listed})") | ({named: "VARCHAR"} if named else {})
        scan = f"read_parquet({listed}{f', filename = {literal(named)}' if named else ''})"
        if present == wanted:
            return scan
        parts = []
        for name, kind in wanted.items():
            if name not in present:
                parts.append(f"CAST(NULL AS {kind}) AS {quote(name)}")
            elif present[name] != kind:
                parts.append(f"CAST({quote(name)} AS {kind}) AS {quote(name)}")
            else:
                parts.append(quote(name))
        return f"(SELECT {', '.join(parts)} FROM {scan})"  # noqa: S608

    def _once(self, key: pa.Schema | str, relation: Callable[[], str]) -> dict[str, str]:
        """Return the types of a relation that stays what it is: they are asked for once."""
        if key not in self._types:
            self._types[key] = self.types(relation())
        return self._types[key]

    def view(self, name: str, relation: str) -> None:
        """Create a temporary view; `name` is quoted here."""
        self.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS SELECT * FROM {relation}")  # noqa: S608

    def temporary(self, name: str) -> str:
        """Return a quoted name that begins so, for a temporary table, and that the session has not given before."""
        self._registered += 1
        return quote(f"{name}_{self._registered}")

    def _register(self, data: Any) -> str:
        self._registered += 1
        name = f"_arrow_{self._registered}"
        self.connection.register(name, data)
        return quote(name)

    @contextmanager
    def _explained(self, sql: str) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            raise EngineError(f"DuckDB: {error}", where=_shown(sql)) from error


def _shown(sql: str) -> str:
    return f"the query\n{sql if len(sql) < 2000 else sql[:2000] + ' …'}"
