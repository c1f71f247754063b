"""The public face of lineage: SQL and table schemas in, source columns of every output column out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from etl_assets.lineage.relation import Refs, Relation, union

Tables = Mapping[str, Mapping[str, str]]


def column_lineage(sql: str, *, schema: Tables, output: Sequence[str] | None = None) -> dict[str, Refs]:
    """Return, for every output column, the source columns that its *value* is computed from.

    Args:
        sql: one DuckDB query.
        schema: table name as the SQL has it (`sales`, `silver.sales`, `silver.shop.sales`) -> column -> DuckDB type.
            Tables that the query does not read do no harm.
        output: the query's output columns in order, where they are known already, e.g. from its result; left out,
            DuckDB binds the query against empty tables of this schema to learn them.

    Returns:
        Output column -> source columns. The empty set: computed from no column (a constant, `count(*)`).
        None: not known; never a guess. What merely decides *which* rows there are is in `row_influences`.

    Raises:
        EngineError: the query does not bind against the schema (only when `output` is left out).
        ConfigurationError: a table name has more than three parts.
    """
    from etl_assets.lineage.binding import output_columns

    names = output_columns(sql, schema) if output is None else list(output)
    return _aligned(_traced(sql, schema), names)


def row_influences(sql: str, *, schema: Tables) -> Refs:
    """Return the source columns that decide which rows come out, how many and in what order.

    That is everything in WHERE, JOIN, GROUP BY, HAVING, QUALIFY, ORDER BY, LIMIT, DISTINCT, EXCEPT and INTERSECT, in
    the query and in all that it is made of. None: not known. Arguments as for `column_lineage`.
    """
    relation = _traced(sql, schema)
    return relation.influences if relation else None


def _traced(sql: str, schema: Tables) -> Relation | None:
    from sqlglot.errors import SqlglotError

    from etl_assets.lineage.query import trace

    try:
        return trace(sql, schema)
    except SqlglotError:
        # SQL that DuckDB understands and SQLGlot does not: its lineage is unknown, which is what None says.
        return None


def _aligned(relation: Relation | None, names: Sequence[str]) -> dict[str, Refs]:
    """Give the traced columns the names that DuckDB gives them; whatever does not line up is unknown."""
    found = relation.aligned(names) if relation else [None] * len(names)
    lineage: dict[str, Refs] = {}
    for name, refs in zip(names, found, strict=True):
        lineage[name] = refs if name not in lineage else union([lineage[name], refs])
    return lineage
