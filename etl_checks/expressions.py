"""Conditions that people write as SQL: one expression over one row, and nothing else."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlglot import exp

ROW = "t"
"""Alias of the row that is judged."""
_FORBIDDEN_FUNCTIONS = frozenset(
    {
        "current_setting",
        "currval",
        "error",
        "getenv",
        "getvariable",
        "nextval",
        "rand",
        "setseed",
        "setval",
        "sleep_ms",
        "uuid",
        "write_log",
    }
)


@lru_cache(maxsize=4096)
def row_condition(sql: str) -> str:
    """Return a condition as DuckDB SQL over the alias `t`, every column qualified and quoted.

    What comes back is printed from the parse tree that was checked, so that the engine runs that and nothing else.

    Raises:
        ConfigurationError: not one scalar expression, or one that looks at other rows, tables, files or settings.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        trees = sqlglot.parse(sql, dialect="duckdb")
    except SqlglotError as error:
        raise _refusal(sql, "it cannot be parsed") from error
    if len(trees) != 1 or trees[0] is None:
        raise _refusal(sql, "it is not exactly one expression")
    tree = trees[0]
    if not isinstance(tree, exp.Condition):
        raise _refusal(sql, "it is no expression that is true or false")
    for node in tree.walk():
        reason = _forbidden(node)
        if reason:
            raise _refusal(sql, reason)
    return tree.transform(_qualified).sql(dialect="duckdb", identify=True, comments=False)


def _forbidden(node: exp.Expr) -> str | None:
    from sqlglot import exp

    if isinstance(node, exp.Query | exp.Table | exp.From | exp.Values):
        return "it has a query inside; a reference to another table is a foreign key"
    if isinstance(node, exp.DDL | exp.DML | exp.Command):
        return "it has a statement inside"
    if isinstance(node, exp.AggFunc | exp.Window):
        return "it looks at other rows than its own"
    if isinstance(
        node, exp.UDTF | exp.Star | exp.Columns | exp.Placeholder | exp.Parameter | exp.SessionParameter | exp.Alias
    ):
        return f"{node.sql(dialect='duckdb')} is no part of a condition over one row"
    name = node.name.lower() if isinstance(node, exp.Anonymous) else node.key if isinstance(node, exp.Func) else ""
    if name in _FORBIDDEN_FUNCTIONS:
        return f"the function {name} does more than compute from the row"
    return None


def _qualified(node: exp.Expr) -> exp.Expr:
    from sqlglot import exp

    if not isinstance(node, exp.Column):
        return node
    first, *fields = node.parts
    column = exp.column(first.copy(), table=ROW)
    # `address.city` is a field of a struct here, never a column of a table.
    return exp.Dot.build([column, *(field.copy() for field in fields)]) if fields else column


def _refusal(sql: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"not a condition over one row: {reason}: {sql}",
        fix="write one boolean SQL expression over the columns of the row, such as `ended_at >= started_at`",
    )
