"""Conditions, filters and deduplication."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import and_, or_
from typing import Any

import ibis
import ibis.expr.types as ir

from etl_assets.transforms.constants import constant
from etl_assets.transforms.expression import column_resolver, evaluate, referenced
from etl_assets.transforms.ordering import order_keys, require
from etl_assets.transforms.parameters.rows import Condition, Deduplicate, Filter
from etl_assets.transforms.projection import Projection
from etl_resources.exceptions import ConfigurationError

_COMPARISONS: dict[str, Callable[[Any, Any], ir.BooleanValue]] = {
    "equals": lambda value, other: value == other,
    "not_equals": lambda value, other: value != other,
    "one_of": lambda value, others: value.isin(others),
    "none_of": lambda value, others: value.notin(others),
    "above": lambda value, other: value > other,
    "at_least": lambda value, other: value >= other,
    "below": lambda value, other: value < other,
    "at_most": lambda value, other: value <= other,
    "between": lambda value, bounds: value.between(*bounds),
    "is_null": lambda value, wanted: value.isnull() if wanted else value.notnull(),
    "matches": lambda value, pattern: value.re_search(pattern),
    "starts_with": lambda value, start: value.startswith(start),
    "ends_with": lambda value, end: value.endswith(end),
    "contains": lambda value, part: value.contains(part),
}
_ON_TEXT = ("matches", "starts_with", "ends_with", "contains")


def filter_(projection: Projection, parameters: Filter) -> None:
    """Leave out (gold) or flag (silver) the rows for which the condition is not true."""
    types = projection.types()
    names = list(dict.fromkeys(_columns_of(parameters.where, projection)))
    [kept] = projection.compute(
        names, lambda *values: [_holds(parameters.where, dict(zip(names, values, strict=True)), types)]
    )
    if not kept.type().is_boolean():
        raise ConfigurationError(f"the condition of filter {parameters.rule!r} is {kept.type()}, not boolean")
    kept = kept.fill_null(False)  # noqa: FBT003 - the value of a condition that is not known
    if projection.layer == "silver":
        projection.flag("filtered", parameters.rule, f"condition {parameters.rule} is not true", ~kept)
    else:
        projection.keep_where(kept)


def deduplicate(table: ir.Table, parameters: Deduplicate, _: Any) -> ir.Table:
    """Keep the first row of each key."""
    order = order_keys(table, parameters.order_by, total=True)
    window = ibis.window(group_by=require(table, parameters.key), order_by=order)
    numbered = table.mutate(__number=ibis.row_number().over(window))
    first: ir.Table = numbered.filter(numbered["__number"] == 0).drop("__number")
    return first


def _columns_of(condition: Condition, projection: Projection) -> list[str]:
    if condition.sql is not None:
        return referenced(condition.sql, column_resolver(projection.types()))[1]
    if condition.column is not None:
        return [projection.require(condition.column)]
    inner = [*(condition.all or ()), *(condition.any or ()), *([condition.negated] if condition.negated else [])]
    return [name for item in inner for name in _columns_of(item, projection)]


def _holds(condition: Condition, values: dict[str, ir.Value], types: dict[str, Any]) -> ir.BooleanValue:
    if condition.sql is not None:
        tree, names = referenced(condition.sql, column_resolver(types))
        return evaluate(tree, [values[name] for name in names], condition.sql)
    if condition.all is not None:
        return reduce(and_, (_holds(item, values, types) for item in condition.all))
    if condition.any is not None:
        return reduce(or_, (_holds(item, values, types) for item in condition.any))
    if condition.negated is not None:
        return ~_holds(condition.negated, values, types)
    return _compare(condition, values)


def _compare(condition: Condition, values: dict[str, ir.Value]) -> ir.BooleanValue:
    [(name, value)] = [(name, value) for name, value in values.items() if name == condition.column]
    [comparison] = condition.comparisons()
    other = getattr(condition, comparison)
    if comparison in _ON_TEXT and not value.type().is_string():
        raise ConfigurationError(f"{comparison} works on text, and column {name!r} is {value.type()}")
    if comparison == "is_null" or comparison in _ON_TEXT:
        return _COMPARISONS[comparison](value, other)
    literals = [constant(item, value.type(), name) for item in (other if isinstance(other, tuple) else (other,))]
    return _COMPARISONS[comparison](value, literals if isinstance(other, tuple) else literals[0])
