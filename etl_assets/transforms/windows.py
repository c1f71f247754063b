"""Columns that look along the rows of a partition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from etl_assets.transforms import functions as fn
from etl_assets.transforms.ordering import order_keys, require
from etl_assets.transforms.parameters.tables import Window, WindowFunction
from etl_resources.exceptions import ConfigurationError

_RANKING: dict[str, Callable[[], Any]] = {
    "row_number": ibis.row_number,
    "rank": ibis.rank,
    "dense_rank": ibis.dense_rank,
}
_ALONG: dict[str, Callable[[Any, WindowFunction], Any]] = {
    "lag": lambda value, call: value.lag(call.offset or 1),
    "lead": lambda value, call: value.lead(call.offset or 1),
    "cumulative_sum": lambda value, _: value.sum(),
    "moving_average": lambda value, _: value.mean(),
}
_RANKS = ("rank", "dense_rank")
_ON_NUMBERS = ("cumulative_sum", "moving_average")


def window(table: ir.Table, parameters: Window, _: Any) -> ir.Table:
    """Add the columns; numbers start at 1. Ties are broken by the other columns, except for ranks, which show them."""
    return table.mutate(**{name: _column(table, parameters, call) for name, call in parameters.columns.items()})


def _column(table: ir.Table, parameters: Window, call: WindowFunction) -> ir.Value:
    over = ibis.window(
        group_by=require(table, parameters.partition_by),
        order_by=order_keys(table, parameters.order_by, total=call.function not in _RANKS),
        **_frame(call),
    )
    if call.column is None:
        number: ir.Value = _RANKING[call.function]().over(over) + 1
        return number
    [name] = require(table, [call.column])
    kind = table[name].type()
    if call.function in _ON_NUMBERS and not (kind.is_numeric() and not kind.is_boolean()):
        raise ConfigurationError(f"{call.function} works on numbers, and column {name!r} is {kind}")
    result: ir.Value = _ALONG[call.function](table[name], call).over(over)
    if call.function == "moving_average":
        return fn.cast(result, dt.float64)
    return fn.cast(result, dt.int64) if call.function == "cumulative_sum" and kind.is_integer() else result


def _frame(call: WindowFunction) -> dict[str, Any]:
    if call.function not in _ON_NUMBERS:
        return {}
    return {"preceding": call.rows - 1 if call.rows else None, "following": 0}
