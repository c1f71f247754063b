"""Joins."""

from __future__ import annotations

from collections.abc import Callable

import ibis
import ibis.expr.types as ir

from etl_assets.transforms.expression import Resolve, column_resolver, evaluate, referenced
from etl_assets.transforms.ordering import require
from etl_assets.transforms.parameters.tables import Join
from etl_resources.exceptions import ConfigurationError

_HOW = {"inner": "inner", "left": "left", "right": "right", "full": "outer"}


def join(table: ir.Table, parameters: Join, tables: Callable[[str], ir.Table]) -> ir.Table:
    """Join another table.

    Columns of the right table follow those of the left; its provenance stays out. Columns that are joined on under one
    name come once, from whichever side has the row.
    """
    right = tables(parameters.table)
    right = right.select(*[name for name in right.columns if not name.startswith("_")])
    renamed = right.rename({f"{_RIGHT}{name}": name for name in right.columns})
    pairs = parameters.by or {}
    require(table, pairs)
    require(right, pairs.values())
    if parameters.where is not None:
        condition = [_condition(parameters.where, table, right, renamed)]
    else:
        condition = [table[left] == renamed[f"{_RIGHT}{other}"] for left, other in pairs.items()]
    joined = table.join(renamed, condition, how=_HOW[parameters.how])
    shared = {left for left, other in pairs.items() if left == other}
    values: dict[str, ir.Value] = {}
    for name in table.columns:
        both = name in shared and parameters.how in ("right", "full")
        values[name] = ibis.coalesce(joined[name], joined[f"{_RIGHT}{name}"]) if both else joined[name]
    for name in right.columns:
        if name in shared:
            continue
        called = f"{name}{parameters.suffix}" if name in values else name
        if called in values:
            raise ConfigurationError(f"two columns would be called {called!r}", fix="give another suffix")
        values[called] = joined[f"{_RIGHT}{name}"]
    return joined.select(**values)


_RIGHT = "__right_"


def _condition(text: str, left: ir.Table, right: ir.Table, renamed: ir.Table) -> ir.BooleanValue:
    tree, keys = referenced(text, _sides(left, right))
    values = [
        left[key.removeprefix("left.")] if key.startswith("left.") else renamed[f"{_RIGHT}{key.removeprefix('right.')}"]
        for key in keys
    ]
    condition = evaluate(tree, values, text)
    if not condition.type().is_boolean():
        raise ConfigurationError(f"the condition {text!r} is {condition.type()}, not boolean")
    return condition


def _sides(left: ir.Table, right: ir.Table) -> Resolve:
    resolvers = {
        "left": column_resolver(dict.fromkeys(left.columns)),
        "right": column_resolver(dict.fromkeys(right.columns)),
    }

    def resolve(parts: tuple[str, ...]) -> tuple[str, int]:
        side = parts[0].lower()
        if side not in resolvers or len(parts) == 1:
            raise ConfigurationError(f"{'.'.join(parts)!r}: say which table, left.{parts[-1]} or right.{parts[-1]}")
        name, used = resolvers[side](parts[1:])
        return f"{side}.{name}", used + 1

    return resolve
