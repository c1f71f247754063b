"""What becomes of a value that does not convert."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import ibis
import ibis.expr.types as ir

from etl_assets.transforms.functions import is_blank, stop
from etl_assets.transforms.projection import Projection, Staged


def convert(
    projection: Projection,
    columns: Mapping[str, Callable[[ir.Value], Any]],
    *,
    step: str,
    on_error: str,
    reasons: Mapping[str, str],
) -> None:
    """Give each column what its function makes of it; NULL from a value that is not blank is a failure.

    Args:
        projection: is changed.
        columns: column -> function of its value, plain or staged.
        step: name of the step; the rule of a failure is `<step>.<column>`.
        on_error: reject | null | keep.
        reasons: column -> what is wrong with a value that failed.
    """
    if not columns:
        return
    projection.table()
    before = projection.values()
    results = projection.staged([_staged(function, before[name]) for name, function in columns.items()])
    converted = dict(zip(columns, projection.bind(results), strict=True))
    before = projection.values()
    for name, value in converted.items():
        failed = value.isnull() & ~is_blank(before[name])
        instead: ir.Value | None = None
        if on_error == "keep" and before[name].type().is_string():
            instead = before[name]
        elif on_error == "reject" and projection.layer == "silver":
            projection.flag("rejected", f"{step}.{name}", f"{name} {reasons[name]}", failed)
        elif on_error == "reject":
            instead = stop(f"{projection.where}: {name} {reasons[name]}", value.type())
        projection.set({name: value if instead is None else ibis.cases((failed, instead), else_=value)})


def _staged(function: Callable[[ir.Value], Any], value: ir.Value) -> Staged:
    result = function(value)
    return (yield from result) if inspect.isgenerator(result) else result
