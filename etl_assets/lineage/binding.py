"""What a query's output columns are called: DuckDB itself is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from etl_resources.engines.kept import database
from etl_resources.exceptions import ConfigurationError, EngineError

if TYPE_CHECKING:
    import duckdb


def output_columns(sql: str, schema: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the names of the query's output columns, bound against empty tables; no data are read.

    Raises:
        EngineError: the query does not bind.
        ConfigurationError: a table name has more than three parts.
    """
    import duckdb

    with database(None, {"autoinstall_known_extensions": False, "threads": 1}) as connection:
        create_tables(connection, schema)
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise EngineError("lineage is traced through one query, and this is something else", where=sql)
            return list(connection.sql(statements[0].query).columns)  # binds, runs nothing
        except duckdb.Error as error:
            raise EngineError(
                f"the query does not bind: {error}", where=sql, fix="correct the query, or the schema given for it"
            ) from error


def table_parts(name: str) -> tuple[str, ...]:
    """Split a table name as SQL has it into its parts, without quotes: `a."b.c"` -> `a`, `b.c`."""
    if '"' not in name:
        return tuple(name.split("."))
    from sqlglot import exp

    return tuple(part.name for part in exp.to_table(name, dialect="duckdb").parts)


def create_tables(connection: duckdb.DuckDBPyConnection, schema: Mapping[str, Mapping[str, str]]) -> None:
    """Create the tables of the schema, empty, under the names that SQL has for them."""
    names = {table: table_parts(table) for table in schema}
    # DuckDB refuses a word that is both a catalog and a schema, so what leads a three-part name is a catalog for all.
    catalogs = {parts[0].lower() for parts in names.values() if len(parts) == 3}
    for catalog in sorted(catalogs):
        connection.execute(f"ATTACH ':memory:' AS {_quoted(catalog)}")
    for table, parts in names.items():
        if len(parts) > 3:
            raise ConfigurationError(
                f"table name {table} has {len(parts)} parts", fix="name it catalog.schema.table, schema.table or table"
            )
        if not schema[table]:
            continue
        if len(parts) > 1 and not (len(parts) == 2 and parts[0].lower() in catalogs):
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {'.'.join(map(_quoted, parts[:-1]))}")
        columns = ", ".join(f"{_quoted(column)} {kind}" for column, kind in schema[table].items())
        connection.execute(f"CREATE TABLE {'.'.join(map(_quoted, parts))} ({columns})")


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
