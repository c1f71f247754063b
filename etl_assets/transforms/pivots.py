"""Rows into columns and back."""

from __future__ import annotations

from typing import Any

import ibis
import ibis.expr.types as ir

from etl_assets.transforms.aggregates import aggregate
from etl_assets.transforms.constants import constant
from etl_assets.transforms.ordering import require
from etl_assets.transforms.parameters.tables import Pivot, Unpivot
from etl_resources.exceptions import ConfigurationError


def pivot(table: ir.Table, parameters: Pivot, _: Any) -> ir.Table:
    """Return one row per group, with a column per declared value (and one for the others, NULL included)."""
    [name] = require(table, [parameters.column])
    column = table[name]
    values = [constant(value, column.type(), name) for value in parameters.values]
    cells = {
        f"{parameters.prefix}{written}": aggregate(table, parameters.aggregate, column == value)
        for written, value in zip(parameters.values, values, strict=True)
    }
    if parameters.others:
        cells[parameters.others] = aggregate(table, parameters.aggregate, column.isnull() | column.notin(values))
    return table.aggregate(by=require(table, parameters.rows), **cells)


def unpivot(table: ir.Table, parameters: Unpivot, _: Any) -> ir.Table:
    """Return one row per row and column, NULL included."""
    names = require(table, parameters.columns)
    types = {table[name].type() for name in names}
    if len(types) > 1:
        found = ", ".join(f"{name} {table[name].type()}" for name in names)
        raise ConfigurationError(f"unpivot needs columns of one type, not {found}", fix="cast them first")
    kept = [name for name in table.columns if name not in names]
    taken = sorted({parameters.names_to, parameters.values_to} & set(kept))
    if taken or parameters.names_to == parameters.values_to:
        raise ConfigurationError(f"two columns would be called {(taken or [parameters.names_to])[0]!r}")
    pairs = ibis.array([ibis.struct({"name": ibis.literal(name), "value": table[name]}) for name in names])
    long = table.select(*kept, **{_PAIR: pairs.unnest()})
    pair = long[_PAIR]
    return long.select(*kept, **{parameters.names_to: pair["name"], parameters.values_to: pair["value"]})


_PAIR = "__pair"
