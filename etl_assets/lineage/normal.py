"""One normal form for every query: tables known by one name each, stars expanded, every column with its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlglot
from sqlglot import exp
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.schema import MappingSchema

from etl_assets.lineage.binding import table_parts
from etl_assets.lineage.relation import Column, ColumnRef, Relation


def normalised(sql: str, schema: Mapping[str, Mapping[str, str]]) -> tuple[exp.Expr, dict[str, Relation]]:
    """Return the qualified query and, by the name it has there, each table of the schema.

    Raises:
        SqlglotError: SQLGlot does not understand the query.
    """
    query = sqlglot.parse_one(sql, dialect="duckdb")
    # SQLGlot wants one depth for all names of a schema, so names of several parts become one word.
    prefix = "source_"
    while prefix in sql.lower():
        prefix += "_"
    plain = {_identity(table_parts(table)): f"{prefix}{number}" for number, table in enumerate(schema)}
    nodes = _nodes(query)
    _rename_tables(nodes, plain)
    names = {table: plain[_identity(table_parts(table))] for table in schema}
    known = MappingSchema({names[table]: dict(columns) for table, columns in schema.items()}, dialect="duckdb")
    query = qualify(
        _unpivot_as_from(query) if nodes.pivots else query,
        dialect="duckdb",
        schema=known,
        validate_qualify_columns=False,
        identify=False,
        quote_identifiers=False,
    )
    if nodes.unnests:
        query = annotate_types(query, schema=known, dialect="duckdb")  # unnesting a struct is not unnesting a list
    return query, {names[table]: _table(table, columns) for table, columns in schema.items()}


def _identity(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.lower() for part in parts)


@dataclass
class _Nodes:
    """The nodes that may need a rewrite; found in one walk, since a wide query has tens of thousands of nodes."""

    tables: list[exp.Table] = field(default_factory=list)
    columns: list[exp.Column] = field(default_factory=list)
    pivots: bool = False
    unnests: bool = False


def _nodes(query: exp.Expr) -> _Nodes:
    nodes = _Nodes()
    for node in query.dfs():
        if isinstance(node, exp.Column):
            nodes.columns.append(node)
        elif isinstance(node, exp.Table):
            nodes.tables.append(node)
        elif isinstance(node, exp.Pivot):
            nodes.pivots = True
        elif isinstance(node, exp.Explode):
            nodes.unnests = True
    return nodes


def _rename_tables(nodes: _Nodes, plain: Mapping[tuple[str, ...], str]) -> None:
    for table in nodes.tables:
        parts = _identity(tuple(part.name for part in table.parts))
        if parts not in plain or (len(parts) == 1 and _is_cte(table)):
            continue
        if not table.alias and not table.args.get("pivots"):
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        table.set("this", exp.to_identifier(plain[parts]))
        table.set("db", None)
        table.set("catalog", None)
    for column in nodes.columns:
        if column.args.get("db") is not None:
            _shorten(column, plain)


def _is_cte(table: exp.Table) -> bool:
    """Whether the name is that of a table expression (WITH) that is visible here."""
    child: exp.Expr = table
    while (parent := child.parent) is not None:
        clause = parent if isinstance(parent, exp.With) else parent.args.get("with_")
        if clause is not None and clause is not child:
            visible = _visible(clause, child)
            if any(cte.alias.lower() == table.name.lower() for cte in visible):
                return True
        child = parent
    return False


def _visible(clause: exp.With, child: exp.Expr) -> list[exp.CTE]:
    """The table expressions that `child` can read: inside one of them those before it, and itself if recursive."""
    position = next((index for index, cte in enumerate(clause.expressions) if cte is child), None)
    if position is None:
        return list(clause.expressions)
    return list(clause.expressions[: position + bool(clause.recursive)])


def _shorten(column: exp.Column, plain: Mapping[tuple[str, ...], str]) -> None:
    """Turn `silver.sales.amount` into `sales.amount`; `sales.address.city`, a field of a struct, stays."""
    parts = column.parts
    names = _identity(tuple(part.name for part in parts))
    for length in range(2, len(parts)):
        if names[:length] in plain:
            kept = [None, None, None, *parts[length - 1 :]][-4:]
            for slot, part in zip(("catalog", "db", "table", "this"), kept, strict=True):
                column.set(slot, part)
            return


def _unpivot_as_from(query: exp.Expr) -> exp.Expr:
    """Write `UNPIVOT t ON a, b INTO NAME n VALUE v` as `SELECT * FROM t UNPIVOT (v FOR n IN (a, b))`."""

    def rewritten(node: exp.Expr) -> exp.Expr:
        into = node.args.get("into")
        if not (isinstance(node, exp.Pivot) and node.args.get("unpivot") and node.this and into):
            return node
        if not all(type(item) is exp.Column and isinstance(item.this, exp.Identifier) for item in node.expressions):
            return node
        field = exp.In(this=exp.to_identifier(into.this.name, quoted=True), expressions=node.expressions)
        values = [exp.to_identifier(value.name, quoted=True) for value in into.expressions]
        source = node.this
        source.append("pivots", exp.Pivot(expressions=values, fields=[field], unpivot=True))
        return exp.select("*").from_(source, copy=False)

    return query.transform(rewritten, copy=False)


def _table(name: str, columns: Mapping[str, str]) -> Relation:
    return Relation([Column(column.lower(), frozenset({ColumnRef(name, column)})) for column in columns])
