"""What becomes of a value that does not convert."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

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
        columns: column -> function of its value, plain or in stages.
        step: name of the step; the rule of a failure is `<step>.<column>`.
        on_error: reject | null | keep.
        reasons: column -> what is wrong with a value that failed.
    """
    for name, function in columns.items():
        before = projection.named(name)
        result = function(before)
        if inspect.isgenerator(result):
            result = projection.finish(cast(Staged, result))
        [value] = projection.bind([result])
        failed = ibis.cases((value.isnull(), ~is_blank(before)), else_=False)
        instead: ir.Value | None = None
        if on_error == "keep" and before.type().is_string():
            instead = before
        elif on_error == "reject" and projection.layer == "silver":
            projection.flag("rejected", f"{step}.{name}", f"{name} {reasons[name]}", failed)
        elif on_error == "reject":
            instead = stop(f"{projection.where}: {name} {reasons[name]}", value.type())
        projection.set({name: value if instead is None else ibis.cases((failed, instead), else_=value)})
