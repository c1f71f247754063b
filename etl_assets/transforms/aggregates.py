"""Groups and their figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from etl_assets.transforms import functions as fn
from etl_assets.transforms.ordering import require
from etl_assets.transforms.parameters.tables import Aggregate, GroupBy
from etl_resources.exceptions import ConfigurationError

_FUNCTIONS: dict[str, Callable[[Any, Any, Any], ir.Value]] = {
    "sum": lambda value, _, where: value.sum(where=where),
    "mean": lambda value, _, where: fn.cast(value.mean(where=where), dt.float64),
    "min": lambda value, _, where: value.min(where=where),
    "max": lambda value, _, where: value.max(where=where),
    "count": lambda value, _, where: value.count(where=where),
    "median": lambda value, _, where: value.cast("float64").median(where=where),
    "stddev": lambda value, _, where: value.cast("float64").std(where=where),
    "variance": lambda value, _, where: value.cast("float64").var(where=where),
    "count_distinct": lambda value, _, where: value.nunique(where=where),
    "quantile": lambda value, call, where: value.cast("float64").quantile(call.at, where=where),
}
_ON_NUMBERS = ("sum", "mean", "median", "stddev", "variance", "quantile")


def group_by(table: ir.Table, parameters: GroupBy, _: Any) -> ir.Table:
    """Return one row per group."""
    by = require(table, parameters.by)
    twice = set(by) & parameters.aggregates.keys()
    if twice:
        raise ConfigurationError(f"two columns would be called {min(twice)!r}", fix="name the aggregate otherwise")
    figures = {name: aggregate(table, call) for name, call in parameters.aggregates.items()}
    return table.aggregate(by=by, **figures)


def aggregate(table: ir.Table, call: Aggregate, where: ir.BooleanValue | None = None) -> ir.Value:
    """Return a figure of the rows of a group, of those where `where` is true."""
    if call.column is None:
        return table.count(where=where)
    [name] = require(table, [call.column])
    value = table[name]
    if call.function in _ON_NUMBERS and not (value.type().is_numeric() and not value.type().is_boolean()):
        raise ConfigurationError(f"{call.function} works on numbers, and column {name!r} is {value.type()}")
    figure = _FUNCTIONS[call.function](value, call, where)
    # DuckDB sums integers in 128 bits: cast, so that a sum is int64 or an error, never another type
    return fn.cast(figure, dt.int64) if call.function == "sum" and value.type().is_integer() else figure
