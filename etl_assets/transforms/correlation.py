"""Correlations of columns."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import ibis
import ibis.expr.types as ir

from etl_assets.transforms import functions as fn
from etl_assets.transforms.ordering import require
from etl_assets.transforms.parameters.tables import Correlation
from etl_resources.exceptions import ConfigurationError


def correlation(table: ir.Table, parameters: Correlation, _: Any) -> ir.Table:
    """Return one row per pair of columns (and group); NULL where it is not defined, as for a constant column."""
    names, by = require(table, parameters.columns), require(table, parameters.by)
    for name in names:
        if not table[name].type().is_numeric():
            raise ConfigurationError(f"correlation works on numbers, and column {name!r} is {table[name].type()}")
    figures = {}
    for number, (a, b) in enumerate(combinations(names, 2)):
        x, y = fn.finite(table[a].cast("float64")), fn.finite(table[b].cast("float64"))
        figures[f"__r{number}"] = x.corr(y, how="pop")
        figures[f"__n{number}"] = (x.notnull() & y.notnull()).sum().cast("int64")
    wide = table.aggregate(by=by, **figures)
    rows = ibis.array([
        ibis.struct({"a": ibis.literal(a), "b": ibis.literal(b), "r": wide[f"__r{number}"], "n": wide[f"__n{number}"]})
        for number, (a, b) in enumerate(combinations(names, 2))
    ])  # fmt: skip
    long = wide.select(*by, __pair=rows.unnest())
    pair = long["__pair"]
    return long.select(
        *by,
        column_a=pair["a"],
        column_b=pair["b"],
        correlation=fn.finite(pair["r"]),
        rows=pair["n"],
    )
