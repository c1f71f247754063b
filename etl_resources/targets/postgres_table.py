"""The table that is written: what it has, and what must be added to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError, NotFoundError, SchemaConflictError
from etl_resources.hints import nearest
from etl_resources.postgres_sql import columns, literal, quote
from etl_resources.tables import split_name
from etl_resources.targets.postgres_types import TEXTS, Existing, Wire, fits, wire

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.postgres_session import Session

_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of the load and where it goes."""

    name: str
    sent: Wire
    sql: str
    """Type of the column in the table."""
    is_direct: bool
    """What is sent has the binary form of the column."""
    is_missing: bool = False
    needs_cast: bool = False
    """The server converts it only when told to."""


@dataclass(frozen=True)
class Table:
    """The target table as one load sees it."""

    schema: str
    name: str
    columns: tuple[TableColumn, ...]
    is_new: bool
    takes_copy: bool
    """Rows can be copied into it without anything in between that may drop or change them."""

    @property
    def quoted(self) -> str:
        """Its name in SQL."""
        return quote(self.schema, self.name)

    @property
    def lacks_columns(self) -> bool:
        """The load has columns that the table has not."""
        return any(column.is_missing for column in self.columns)

    @property
    def names(self) -> list[str]:
        """The columns of the load."""
        return [column.name for column in self.columns]

    def create(self, session: Session) -> None:
        """Make the table, without a key: that one is cheaper to make when the rows are there."""
        body = ", ".join(f"{quote(c.name)} {c.sql}" for c in self.columns)
        session.execute(f"CREATE TABLE {self.quoted} ({body})")

    def add_missing(self, session: Session) -> None:
        """Add the columns that the load has and the table has not."""
        for column in self.columns:
            if column.is_missing:
                session.execute(f"ALTER TABLE {self.quoted} ADD COLUMN {quote(column.name)} {column.sql}")

    def add_key(self, session: Session, key: tuple[str, ...]) -> None:
        """Make the columns the primary key."""
        session.execute(f"ALTER TABLE {self.quoted} ADD PRIMARY KEY ({columns(key)})")


def inspect(session: Session, name: str, schema: pa.Schema, where: str) -> Table:
    """Return the table as it is, or as it will be made.

    Raises:
        NotFoundError: the schema is not there.
        SchemaConflictError: one or more columns do not take the load's values as they are.
    """
    namespace = namespace_of(session, name, where)
    table = split_name(name)[1]
    sent = _wires(schema, where)
    found = session.rows(
        "SELECT c.relkind::text, EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid"  # noqa: S608
        " AND NOT t.tgisinternal AND t.tgtype & 2 = 2) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
        f" ON n.oid = c.relnamespace WHERE n.nspname = {literal(namespace)} AND c.relname = {literal(table)}"
    )
    if not found:
        made = tuple(_new_column(n, w) for n, w in sent.items())
        return Table(namespace, table, made, is_new=True, takes_copy=True)
    kind, has_trigger = found[0]
    if kind not in {"r", "p"}:
        raise ConfigurationError(f"{namespace}.{table} is not a table", where=where, fix="name a table")
    there = _existing(session, namespace, table)
    matched = _match(sent, there, schema, where=f"{namespace}.{table}, {where}")
    return Table(namespace, table, matched, is_new=False, takes_copy=kind == "r" and not has_trigger)


def check_key(session: Session, table: Table, key: tuple[str, ...], where: str) -> None:
    """Make sure that the key identifies at most one row.

    Raises:
        ConfigurationError: the load has no key, or no unique index of the table says so.
    """
    if missing := [name for name in key if name not in table.names]:
        raise ConfigurationError(
            f"the key column {', '.join(missing)} is not in the load", where=where, fix="check `key`"
        )
    if table.is_new:
        return
    relation = f"{literal(table.quoted)}::regclass"
    indexes = session.rows(
        "SELECT array_agg(a.attname::text) FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a"  # noqa: S608 - quoted
        f" ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) WHERE i.indrelid = {relation}"
        " AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL GROUP BY i.indexrelid"
    )
    if not any(set(names) <= set(key) for (names,) in indexes):
        raise ConfigurationError(
            f"nothing in {table.schema}.{table.name} says that {', '.join(key)} is unique",
            where=where, fix=f"ALTER TABLE {table.quoted} ADD UNIQUE ({columns(key)})",
        )  # fmt: skip


def namespace_of(session: Session, name: str, where: str) -> str:
    """Return the schema that a table of this name is in, or would be made in.

    Raises:
        NotFoundError: there is no such schema.
    """
    schema, _ = split_name(name)
    if schema is None:
        current = session.value("SELECT current_schema()::text")
        if current is None:
            raise NotFoundError("there is no schema to write into", where=where, fix="write `schema.table`")
        return str(current)
    names = [str(n) for (n,) in session.rows("SELECT nspname::text FROM pg_catalog.pg_namespace")]
    if schema not in names:
        raise NotFoundError(f"there is no schema {schema}", where=where, fix=nearest(schema, names) or "create it")
    return schema


def _wires(schema: pa.Schema, where: str) -> dict[str, Wire]:
    found: dict[str, Wire] = {}
    wrong: list[str] = []
    for field in schema:
        try:
            found[field.name] = wire(field.type)
        except SchemaConflictError as error:
            wrong.append(f"column {field.name}: {error.what}")
        if len(field.name.encode()) > _LONGEST_NAME:
            wrong.append(f"column {field.name}: longer than the {_LONGEST_NAME} bytes of a name in PostgreSQL")
    if wrong:
        raise SchemaConflictError("; ".join(wrong), where=where, fix="cast, rename or drop the columns in the pipeline")
    return found


def _existing(session: Session, schema: str, table: str) -> dict[str, Existing]:
    rows = session.rows(
        "WITH RECURSIVE base(oid, top, typmod) AS ("  # noqa: S608 - quoted
        " SELECT t.oid, t.oid, -1 FROM pg_catalog.pg_type t"
        " UNION ALL SELECT t.typbasetype, b.top, t.typtypmod FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid"
        " WHERE t.typtype = 'd')"
        " SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), coalesce(e.typname, t.typname)::text,"
        " coalesce(e.typtype, t.typtype)::text, CASE WHEN b.oid <> b.top THEN b.typmod ELSE a.atttypmod END,"
        " e.oid IS NOT NULL, b.oid <> b.top, a.attgenerated <> ''"
        " FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN base b ON b.top = a.atttypid"
        " JOIN pg_catalog.pg_type t ON t.oid = b.oid AND t.typtype <> 'd'"
        " LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'"
        f" WHERE n.nspname = {literal(schema)} AND c.relname = {literal(table)} AND a.attnum > 0 AND NOT a.attisdropped"
    )
    return {str(name): Existing(*rest) for name, *rest in rows}


def _new_column(name: str, sent: Wire) -> TableColumn:
    return TableColumn(name, sent, sent.sql, is_direct=not sent.as_json, needs_cast=sent.as_json)


def _match(sent: dict[str, Wire], there: dict[str, Existing], schema: pa.Schema, where: str) -> tuple[TableColumn, ...]:
    matched: list[TableColumn] = []
    wrong: list[str] = []
    for name, form in sent.items():
        column = there.get(name)
        if column is None:
            matched.append(replace(_new_column(name, form), is_missing=True))
            continue
        fit = None if column.generated else fits(form, column)
        if fit is None:
            why = "generated by the server" if column.generated else column.sql
            wrong.append(f"column {name} is {schema.field(name).type} in the load and {why} in the table")
        needs_cast = form.name == "text" and column.name not in TEXTS
        matched.append(TableColumn(name, form, column.sql, is_direct=bool(fit), needs_cast=needs_cast))
    if wrong:
        raise SchemaConflictError(
            "; ".join(wrong), where=where, fix="widen the column in the database, or cast it in the pipeline"
        )
    return tuple(matched)
