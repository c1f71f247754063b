"""What the catalogue of PostgreSQL says about the tables of a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.hints import nearest
from etl_resources.postgres_sql import quote
from etl_resources.tables import split_name

if TYPE_CHECKING:
    from etl_resources.change_log import LogTable
    from etl_resources.changes.postgres_link import Link

_RELATIONS = """
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, pg_table_is_visible(c.oid),
  has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), row_security_active(c.oid),
  pg_has_role(c.relowner, 'USAGE'), c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""
_COLUMNS = """
SELECT attrelid::int8, attname, attnotnull, attgenerated <> '', attlen = -1 AND attstorage <> 'p'
FROM pg_attribute WHERE attrelid = ANY(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum
"""
# What a delete or update is known by: without one, the server refuses them once the table is published.
_IDENTITIES = """
SELECT root.oid::int8, l.oid::regclass::text, l.relreplident::text,
  (SELECT array_agg(a.attname::text ORDER BY k.n) FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY k(num, n)
   JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
   WHERE i.indrelid = l.oid AND k.n <= i.indnkeyatts AND i.indisvalid AND i.indimmediate
     AND CASE l.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
FROM unnest(%s::oid[]) root(oid)
CROSS JOIN LATERAL (SELECT relid FROM pg_partition_tree(root.oid) WHERE isleaf UNION SELECT root.oid) p
JOIN pg_class l ON l.oid = p.relid AND l.relkind <> 'p' ORDER BY l.oid
"""
_ORDERS = """
SELECT i.indrelid::int8, array_agg(a.attname::text ORDER BY k.n)
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
CROSS JOIN unnest(i.indkey) WITH ORDINALITY k(num, n)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
WHERE i.indrelid = ANY(%s) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND k.n <= i.indnkeyatts
GROUP BY i.indrelid, i.indexrelid, i.indisprimary, i.indisreplident, i.indnkeyatts
HAVING bool_and(a.attnotnull) AND NOT bool_or(i.indoption[k.n - 1] & 1 = 1)
ORDER BY i.indisprimary DESC, i.indisreplident DESC, i.indnkeyatts
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """What old rows of a table, or of one of its partitions, are known by."""

    table: str
    mode: str
    """d: primary key, i: an index, f: all columns, n: nothing."""
    columns: tuple[str, ...] | None
    """None: there is no such index."""

    @property
    def usable(self) -> bool:
        """Whether the server lets rows be updated and deleted while the table is published."""
        return self.mode == "f" or self.columns is not None


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column of a table."""

    name: str
    not_null: bool
    generated: bool
    large: bool
    """Its values may be stored out of line, and are then not repeated in an update that leaves them as they are."""


@dataclass(frozen=True)
class TableFacts:
    """A table of the log, as it is now."""

    stream: str
    key: tuple[str, ...]
    oid: int
    schema: str
    name: str
    kind: str
    """r table, p partitioned, v view, m materialised view, f foreign."""
    persistence: str
    """p permanent, u unlogged, t temporary."""
    readable: bool
    row_security: bool
    owned: bool
    has_children: bool
    identities: tuple[Identity, ...]
    all_columns: tuple[TableColumn, ...]
    chosen: tuple[str, ...] | None
    """Only these columns, if the stream says so."""
    index: tuple[str, ...] | None
    """Columns of a unique index, none of which can be null, in its order."""

    @property
    def relation(self) -> str:
        """The quoted name, for FROM: rows of tables that inherit from this one are theirs."""
        return quote(self.schema, self.name) if self.kind == "p" else f"ONLY {quote(self.schema, self.name)}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of events: the log has no generated ones."""
        names = [c.name for c in self.all_columns if not c.generated]
        return tuple(name for name in self.chosen if name in names) if self.chosen else tuple(names)

    @property
    def order(self) -> tuple[str, ...]:
        """The columns by which the table is read in pieces."""
        return self.index or self.key


def facts(link: Link, tables: Sequence[LogTable]) -> dict[str, TableFacts]:
    """Return what there is to know about each table, by stream.

    Raises:
        NotFoundError: a table or a column of its key is not there.
        ConfigurationError: a stream is not a table.
    """
    rows = link.ask(_RELATIONS)
    found = {table.name: _find(table, rows, link.where) for table in tables}
    oids = [row[0] for row in found.values()]
    columns: dict[int, list[TableColumn]] = {oid: [] for oid in oids}
    for oid, *column in link.ask(_COLUMNS, [oids]):
        columns[oid].append(TableColumn(*column))
    identities: dict[int, list[Identity]] = {oid: [] for oid in oids}
    for oid, name, mode, key in link.ask(_IDENTITIES, [oids]):
        identities[oid].append(Identity(name, mode, tuple(key) if key else None))
    orders: dict[int, tuple[str, ...]] = {}
    for oid, key in link.ask(_ORDERS, [oids]):
        orders.setdefault(oid, tuple(key))
    result = {}
    for table in tables:
        oid, schema, name, kind, persistence, _, readable, row_security, owned, has_children = found[table.name]
        result[table.name] = TableFacts(
            table.name, table.key, oid, schema, name, kind, persistence, readable, row_security, owned, has_children,
            tuple(identities[oid]), tuple(columns[oid]), getattr(table.stream.options, "columns", None),
            orders.get(oid),
        )  # fmt: skip
        _check_columns(result[table.name], link.where)
    return result


def relations(found: Mapping[str, TableFacts], names: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return schema and table -> stream, of some streams."""
    return {(found[name].schema, found[name].name): name for name in names}


def _find(table: LogTable, rows: list[tuple[Any, ...]], where: str) -> tuple[Any, ...]:
    given = getattr(table.stream.options, "table", None)
    if given is None:
        raise ConfigurationError(
            f"stream {table.name} is a query: the change log is about tables", where=where, fix="give the `table`"
        )
    schema, name = split_name(given)
    for row in rows:
        if row[2] == name and (row[1] == schema or (schema is None and row[5])):
            return row
    names = [f"{row[1]}.{row[2]}" for row in rows] + [row[2] for row in rows if row[5]]
    raise NotFoundError(f"there is no table {given}", where=where, fix=nearest(given, names) or "check the table name")


def _check_columns(table: TableFacts, where: str) -> None:
    generated = {c.name for c in table.all_columns if c.generated}
    for name in (*table.key, *(table.chosen or ())):
        if name in generated and name in table.key:
            raise ConfigurationError(
                f"stream {table.stream}: key column {name} is generated, the log does not have it", where=where,
                fix="choose another key",
            )  # fmt: skip
        if name not in {c.name for c in table.all_columns}:
            raise NotFoundError(
                f"stream {table.stream}: there is no column {name}", where=where, fix=nearest(name, table.columns)
            )
    if missing := [name for name in table.key if name not in table.columns]:
        raise ConfigurationError(
            f"stream {table.stream}: `columns` leaves out {', '.join(missing)} of its key", where=where,
            fix="add them to `columns`",
        )  # fmt: skip
