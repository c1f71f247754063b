"""PIVOT and UNPIVOT in a FROM clause."""

from __future__ import annotations

from sqlglot import exp

from etl_assets.lineage.relation import NOTHING, UNKNOWN, Column, Refs, Relation, union


def pivoted(pivot: exp.Pivot, source: Relation) -> Relation:
    """Return what is known of `source PIVOT (...)` or `source UNPIVOT (...)`."""
    if any(column.expands for column in source.columns) or not all(isinstance(f, exp.In) for f in pivot.fields):
        return UNKNOWN
    relation = _unpivot(pivot, source) if pivot.args.get("unpivot") else _pivot(pivot, source)
    alias = pivot.args.get("alias")
    return relation.renamed([column.name for column in alias.columns]) if alias else relation


def _pivot(pivot: exp.Pivot, source: Relation) -> Relation:
    """Each cell comes from its aggregate and from the column that says which cell; the rest groups the rows."""
    selectors = [field.this for field in pivot.fields]
    consumed = _names([*selectors, *pivot.expressions])
    kept = [column for column in source.columns if column.name not in consumed]
    chooses = _refs(selectors, source)
    cells = []
    for index, cell in enumerate(pivot.args.get("columns") or []):
        aggregate = pivot.expressions[index % len(pivot.expressions)]
        cells.append(Column(cell.name.lower(), union([_refs([aggregate], source), chooses])))
    return Relation([*kept, *cells], union([source.influences, chooses, *(column.refs for column in kept)]))


def _unpivot(pivot: exp.Pivot, source: Relation) -> Relation:
    """Values come from the listed columns; the name column holds their names, which are constants."""
    if len(pivot.expressions) != 1 or len(pivot.fields) != 1:
        return UNKNOWN
    (field,) = pivot.fields
    listed = _refs(field.expressions, source)
    consumed = _names(field.expressions)
    kept = [column for column in source.columns if column.name not in consumed]
    made = [Column(field.this.name.lower(), NOTHING), Column(pivot.expressions[0].name.lower(), listed)]
    # A NULL makes no row.
    return Relation([*kept, *made], union([source.influences, listed]))


def _names(expressions: list[exp.Expr]) -> set[str]:
    return {column.name.lower() for item in expressions for column in item.find_all(exp.Column)}


def _refs(expressions: list[exp.Expr], source: Relation) -> Refs:
    return union([source.lookup(name) for name in _names(expressions)])
