"""Tracing: one pass over a query whose columns SQLGlot has qualified, from the tables outward.

Imported only when lineage is traced, so SQLGlot may be imported at the top.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlglot import exp

from etl_assets.lineage.normal import normalised
from etl_assets.lineage.pivoting import pivoted
from etl_assets.lineage.relation import NOTHING, UNKNOWN, Column, Refs, Relation, by_name, by_position, union

Names = Mapping[str, Relation]


def trace(sql: str, schema: Mapping[str, Mapping[str, str]]) -> Relation:
    """Return what the query's columns are computed from.

    Raises:
        SqlglotError: SQLGlot does not understand the query.
    """
    query, tables = normalised(sql, schema)
    return _query(query, tables, ())


def _query(node: exp.Expr | None, tables: Names, outer: tuple[Names, ...]) -> Relation:
    """Trace any query; `tables` are visible by name in FROM, `outer` are the sources of enclosing queries."""
    if isinstance(node, exp.Query):
        tables = _with_ctes(node, tables, outer)
    if isinstance(node, exp.Select):
        return _Select(node, tables, outer).relation()
    if isinstance(node, exp.SetOperation):
        return _set_operation(node, tables, outer)
    if isinstance(node, exp.Subquery):
        return _ordered(node, _Sources(tables, outer).add(node, alias=""))
    return UNKNOWN


def _with_ctes(node: exp.Query, tables: Names, outer: tuple[Names, ...]) -> Names:
    clause = node.args.get("with_")
    if clause is None:
        return tables
    visible = dict(tables)
    for cte in clause.expressions:
        columns = [column.name for column in cte.args["alias"].columns]
        relation = _query(_anchor(cte.this) if clause.recursive else cte.this, visible, outer).renamed(columns)
        if clause.recursive and isinstance(cte.this, exp.SetOperation):
            relation = _fixpoint(cte, relation, visible, outer)
        visible[cte.alias.lower()] = relation
    return visible


def _anchor(node: exp.Expr) -> exp.Expr:
    return node.this if isinstance(node, exp.SetOperation) else node


def _fixpoint(cte: exp.CTE, relation: Relation, visible: Names, outer: tuple[Names, ...]) -> Relation:
    """Feed a recursive table into itself until its lineage no longer grows (lineage only grows, so it ends)."""
    while True:
        again = _query(cte.this, {**visible, cte.alias.lower(): relation}, outer)
        again = again.renamed([column.name for column in cte.args["alias"].columns])
        if again == relation:
            return relation
        relation = again


def _set_operation(node: exp.SetOperation, tables: Names, outer: tuple[Names, ...]) -> Relation:
    left, right = _query(node.left, tables, outer), _query(node.right, tables, outer)
    if isinstance(node, exp.Union):
        relation = (by_name if node.args.get("by_name") else by_position)(left, right)
        if node.args.get("distinct"):
            relation = relation.influenced([relation.everything()])
    else:
        relation = left.influenced([left.everything(), right.influences, right.everything()])
    return _ordered(node, relation)


def _ordered(node: exp.Expr, relation: Relation) -> Relation:
    """ORDER BY of something that is not a SELECT can name any of its columns, so all of them count."""
    clauses = [node.args[clause] for clause in ("order", "limit", "offset") if node.args.get(clause)]
    if not clauses:
        return relation
    nested = any(clause.find(exp.Query) for clause in clauses)
    return relation.influenced([None if nested else relation.everything()])


class _Sources:
    """The FROM clause: what each alias stands for, and what joining decides."""

    def __init__(self, tables: Names, outer: tuple[Names, ...]) -> None:
        self.tables, self.outer = tables, outer
        self.named: dict[str, Relation] = {}
        self.influences: Refs = NOTHING

    def add(self, node: exp.Expr, alias: str | None = None) -> Relation:
        relation = self._source(node)
        pivots = node.args.get("pivots") or []
        for pivot in pivots:
            relation = pivoted(pivot, relation)
        if not pivots and (columns := node.args.get("alias")):
            relation = relation.renamed([column.name for column in columns.columns])
        name = (pivots[-1] if pivots else node).alias_or_name if alias is None else alias
        self.named[name.lower()] = relation
        self.influences = union([self.influences, relation.influences])
        for join in node.args.get("joins") or []:
            self.join(join)
        return relation

    def join(self, join: exp.Join) -> None:
        self.add(join.this)
        condition = join.args.get("on")
        decides = self.refs(condition) if condition is not None else NOTHING
        if join.args.get("using") or join.method.upper() == "NATURAL":
            decides = None  # SQLGlot turns both into ON where it knows the columns
        self.influences = union([self.influences, decides])

    def refs(self, expression: exp.Expr) -> Refs:
        found = _Expression(self.tables, (self.named, *self.outer))
        refs = found.refs(expression)
        self.influences = union([self.influences, found.influences])
        return refs

    def _source(self, node: exp.Expr) -> Relation:
        if isinstance(node, exp.Table):
            return self._table(node)
        if isinstance(node, exp.Subquery) and isinstance(node.this, exp.Table):
            return self.add(node.this)  # parentheses around a join
        if isinstance(node, exp.Subquery):
            return _query(node.this, self.tables, self.outer)
        if isinstance(node, exp.Lateral) and isinstance(node.this, exp.Subquery):
            return _query(node.this, self.tables, (self.named, *self.outer))
        return self._rows(node)

    def _rows(self, node: exp.Expr) -> Relation:
        if isinstance(node, exp.Unnest):
            refs = union([self.refs(item) for item in node.expressions])
            return Relation(columns=(), influences=refs, others=refs)  # the length of a list decides on rows
        if isinstance(node, exp.Values):
            rows = [[self.refs(item) for item in row.expressions] for row in node.expressions]
            columns = [union(items) for items in zip(*rows, strict=True)]
            return Relation([Column(f"col{index}", refs) for index, refs in enumerate(columns)])
        return UNKNOWN

    def _table(self, node: exp.Table) -> Relation:
        if isinstance(node.this, exp.GenerateSeries):
            refs = union([self.refs(item) for item in node.this.iter_expressions()])
            return Relation(columns=(), influences=refs, others=refs)
        if not isinstance(node.this, exp.Identifier) or node.args.get("db"):
            return UNKNOWN  # another table function, or a table that is not in the schema
        return self.tables.get(node.name.lower(), UNKNOWN)


class _Select:
    """One SELECT."""

    def __init__(self, node: exp.Select, tables: Names, outer: tuple[Names, ...]) -> None:
        self.node = node
        self.sources = _Sources(tables, outer)
        source = node.args.get("from_")
        for item in [source.this] if source else []:
            self.sources.add(item)
        for lateral in node.args.get("laterals") or []:
            self.sources.add(lateral)
        for join in node.args.get("joins") or []:
            self.sources.join(join)
        self.expression = _Expression(tables, (self.sources.named, *outer), node.args.get("windows") or [])

    def relation(self) -> Relation:
        columns = [self._column(item) for item in self.node.expressions]
        self.expression.aliases = {column.name: column.refs for column in columns}
        decides = list(self._decides(columns))
        return Relation(columns, union([self.sources.influences, *decides, self.expression.influences]))

    def _column(self, item: exp.Expr) -> Column:
        value = item.unalias()
        expands = _expands(value)
        refs = None if expands and _opaque(value) else self.expression.refs(value)
        return Column(item.alias_or_name.lower(), refs, expands=expands)

    def _decides(self, columns: list[Column]) -> Iterator[Refs]:
        for clause in ("where", "group", "having", "qualify", "order", "limit", "offset", "distinct"):
            node = self.node.args.get(clause)
            if node is None:
                continue
            yield self.expression.refs(node)
            every_column = (clause == "distinct" and not node.args.get("on")) or node.args.get("all")
            if every_column or (clause == "order" and _orders_by_all(node)):
                yield union([column.refs for column in columns])


def _orders_by_all(order: exp.Expr) -> bool:
    items = [item.this for item in order.expressions]
    return any(isinstance(item, exp.Column | exp.Var) and item.name.upper() == "ALL" for item in items)


def _expands(value: exp.Expr) -> bool:
    """Whether one item of a SELECT list may become several columns."""
    if isinstance(value, exp.Column) and not isinstance(value.this, exp.Star):
        return False
    if isinstance(value, exp.Explode):
        return not value.this.is_type(exp.DType.LIST, exp.DType.ARRAY)  # a struct becomes its fields
    stars = value.find_all(exp.Star, exp.Columns)
    return any(not isinstance(star.parent, exp.Count) for star in stars)


def _opaque(value: exp.Expr) -> bool:
    """Whether what it reads depends on a pattern or on a whole table, which is not followed."""
    return not isinstance(value, exp.Explode) and not (isinstance(value, exp.Dot) and value.this.find(exp.Column))


class _Expression:
    """The source columns of expressions; subqueries inside them add to `influences`."""

    def __init__(self, tables: Names, scopes: tuple[Names, ...], windows: list[exp.Window] | None = None) -> None:
        self.tables, self.scopes = tables, scopes
        self.windows = {window.name.lower(): window for window in windows or []}
        self.aliases: Mapping[str, Refs] = {}
        self.influences: Refs = NOTHING

    def refs(self, node: exp.Expr) -> Refs:
        if isinstance(node, exp.Column):
            return self._column(node)
        parts = [self._part(part) for part in node.walk(prune=lambda part: isinstance(part, exp.Query | exp.Column))]
        return union(parts)

    def _part(self, node: exp.Expr) -> Refs:
        if isinstance(node, exp.Column):
            return self._column(node)
        if isinstance(node, exp.Query):
            return self._subquery(node)
        if isinstance(node, exp.TableColumn):
            scope = next((scope for scope in self.scopes if node.name.lower() in scope), None)
            return scope[node.name.lower()].everything() if scope else None
        if isinstance(node, exp.Explode):  # the length of a list decides how many rows there are
            self.influences = union([self.influences, self.refs(node.this)])
            return NOTHING
        if isinstance(node, exp.Window) and (name := node.alias.lower()):
            return self.refs(self.windows[name]) if name in self.windows else None
        unknown = isinstance(node, exp.PositionalColumn | exp.Columns | exp.Pivot)
        unknown = unknown or (isinstance(node, exp.Star) and not isinstance(node.parent, exp.Count | exp.Dot))
        return None if unknown else NOTHING

    def _column(self, node: exp.Column) -> Refs:
        if isinstance(node.this, exp.Star):
            return None
        if not node.table:
            return self.aliases.get(node.name.lower())
        scope = next((scope for scope in self.scopes if node.table.lower() in scope), None)
        return scope[node.table.lower()].lookup(node.name) if scope else None

    def _subquery(self, node: exp.Query) -> Refs:
        relation = _query(node, self.tables, self.scopes)
        self.influences = union([self.influences, relation.influences])
        # EXISTS has no value but whether there are rows.
        return relation.influences if isinstance(node.parent, exp.Exists) else relation.everything()
