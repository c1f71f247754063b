"""Numbers brought into bounds and onto scales; gaps filled."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from etl_assets.transforms import functions as fn
from etl_assets.transforms.constants import constant
from etl_assets.transforms.ordering import order_keys, require
from etl_assets.transforms.parameters.numbers import Clip, Fill, MinMax, Round, Winsorise, ZScore
from etl_resources.exceptions import ConfigurationError


def round_(value: ir.NumericValue, parameters: Round) -> ir.NumericValue:
    """Round; the type stays."""
    return (
        value if value.type().is_integer() else fn.round_half(value, parameters.digits, even=parameters.half == "even")
    )


def clip(value: ir.NumericValue, parameters: Clip) -> ir.NumericValue:
    """Bring into the interval; NULL stays NULL, and so does the type."""
    kind = value.type()
    clipped = value
    if parameters.lower is not None:
        clipped = ibis.cases((value < _bound(parameters.lower, kind), _bound(parameters.lower, kind)), else_=clipped)
    if parameters.upper is not None:
        over = _is_number(value) & (value > _bound(parameters.upper, kind))
        clipped = ibis.cases((over, _bound(parameters.upper, kind)), else_=clipped)
    return clipped


def _bound(bound: Decimal, kind: dt.DataType) -> ir.NumericScalar:
    """Return the bound in the type of the column, so that decimals are not compared as floats."""
    digits = -int(bound.normalize().as_tuple().exponent)
    scale = kind.scale if isinstance(kind, dt.Decimal) else 0
    if not kind.is_floating() and digits > (scale or 0):
        raise ConfigurationError(
            f"{bound} has more decimals than {kind} can hold", fix="round the bound, or cast first"
        )
    literal: ir.NumericScalar = ibis.literal(str(bound)).cast(kind)
    return literal


def fill(value: ir.Value, parameters: Fill) -> ir.Value:
    """Put the constant where NULL is."""
    kind = value.type()
    if isinstance(parameters.value, float) and kind.is_integer():
        raise ConfigurationError(f"{parameters.value} does not fit a column of type {kind}", fix="give a whole number")
    if parameters.value is None:
        raise ConfigurationError("fill needs a value")
    return value.fill_null(fn.cast(constant(parameters.value, kind, ", ".join(parameters.columns)), kind))


def fill_from_rows(table: ir.Table, parameters: Fill, _: Any) -> ir.Table:
    """Put the mean, median, mode or last value where NULL is."""
    require(table, parameters.columns)
    require(table, parameters.by)
    if parameters.method == "mode":
        return _fill_mode(table, parameters)
    if parameters.method == "forward":
        return _fill_forward(table, parameters)
    window = ibis.window(group_by=parameters.by)
    filled = {}
    for name in parameters.columns:
        _numbers_only(table, name, parameters.step)
        value = table[name]
        middle = fn.finite(value).mean() if parameters.method == "mean" else fn.finite(value).median()
        kind = value.type() if value.type().is_decimal() else dt.float64
        filled[name] = ibis.coalesce(value.cast(kind), fn.cast(middle.over(window), kind))
    return table.mutate(**filled)


def _fill_forward(table: ir.Table, parameters: Fill) -> ir.Table:
    """Fill with the value before: number the stretches that start with a value, and spread it over its stretch."""
    by, names = list(parameters.by or ()), parameters.columns
    so_far = ibis.window(group_by=by, order_by=order_keys(table, parameters.order_by, total=True), following=0)
    numbered = table.mutate(**{f"__n_{name}": table[name].count().over(so_far) for name in names})
    spread = {name: numbered[name].max().over(ibis.window(group_by=[*by, f"__n_{name}"])) for name in names}
    return numbered.mutate(**spread).select(*table.columns)


def _fill_mode(table: ir.Table, parameters: Fill) -> ir.Table:
    """Fill with the most frequent value; of several, the smallest."""
    by, names = list(parameters.by or ()), parameters.columns
    group = ibis.window(group_by=by)
    counts = {f"__n_{name}": table[name].count().over(ibis.window(group_by=[*by, name])) for name in names}
    counted = table.mutate(**counts)
    ranked = counted.mutate(**{f"__m_{name}": counted[f"__n_{name}"].max().over(group) for name in names})
    modes = {}
    for name in names:
        most = ibis.cases((ranked[f"__n_{name}"] == ranked[f"__m_{name}"], ranked[name]))
        modes[name] = ibis.coalesce(ranked[name], most.min().over(group))
    return ranked.mutate(**modes).select(*table.columns)


def winsorise(table: ir.Table, parameters: Winsorise, _: Any) -> ir.Table:
    """Bring numbers to the quantiles; these are values of the column, so that the type stays."""

    def limit(value: ir.NumericValue, window: Any) -> ir.Value:
        low = fn.quantile_disc(fn.finite(value), parameters.lower).cast(value.type()).over(window)
        high = fn.quantile_disc(fn.finite(value), parameters.upper).cast(value.type()).over(window)
        return ibis.cases(
            (_is_number(value) & (value < low), low), (_is_number(value) & (value > high), high), else_=value
        )

    return _per_column(table, parameters, limit)


def min_max(table: ir.Table, parameters: MinMax, _: Any) -> ir.Table:
    """Scale to 0 to 1."""

    def scale(value: ir.NumericValue, window: Any) -> ir.Value:
        number = value.cast("float64")
        low, high = fn.finite(number).min().over(window), fn.finite(number).max().over(window)
        return _ratio(number, low, high - low)

    return _per_column(table, parameters, scale)


def z_score(table: ir.Table, parameters: ZScore, _: Any) -> ir.Table:
    """Return distances from the mean in standard deviations."""
    how = "sample" if parameters.deviation == "sample" else "pop"

    def standardise(value: ir.NumericValue, window: Any) -> ir.Value:
        number = value.cast("float64")
        return _ratio(number, fn.finite(number).mean().over(window), fn.finite(number).std(how=how).over(window))

    return _per_column(table, parameters, standardise)


def _per_column(
    table: ir.Table, parameters: Winsorise | MinMax | ZScore, function: Callable[[Any, Any], ir.Value]
) -> ir.Table:
    window = ibis.window(group_by=require(table, parameters.by))
    for name in require(table, parameters.columns):
        _numbers_only(table, name, parameters.step)
    return table.mutate(**{name: function(table[name], window) for name in parameters.columns})


def _ratio(number: ir.FloatingValue, start: ir.FloatingValue, length: ir.FloatingValue) -> ir.Value:
    """Return (number - start) / length; 0 where all numbers are equal or there is one only."""
    flat = length.isnull() | (length == 0)
    return ibis.cases((number.notnull() & flat, 0.0), else_=(number - start) / length)


def _is_number(value: ir.NumericValue) -> ir.BooleanValue:
    """Tell NaN, which DuckDB takes for larger than all numbers, from numbers."""
    return ~value.isnan() if value.type().is_floating() else ibis.literal(True)  # noqa: FBT003 - a value


def _numbers_only(table: ir.Table, name: str, step: str) -> None:
    if not table[name].type().is_numeric():
        raise ConfigurationError(f"{step} works on numbers, and column {name!r} is {table[name].type()}")
