"""Applies steps to a table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from etl_assets.transforms.parameters.base import Conversion, OnColumns
from etl_assets.transforms.step import Draft, Step
from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from etl_assets.transforms.projection import Projection

Tables = Callable[[str], "ir.Table"]


def apply_steps(table: ir.Table, steps: Sequence[Step], *, tables: Tables | None = None) -> Draft:
    """Return the table after its steps, as an Ibis expression that compiles to one SQL statement.

    Silver keeps every row: a filter, or a value that does not convert, adds a boolean column that is true for the rows
    it is about, and an entry in `Draft.flags`. In gold, filters leave rows out, and a value that does not convert
    stops the query. Columns whose names start with `_` are passed on untouched (a step that makes another kind of row,
    such as group_by, has none to pass on).

    Args:
        table: any Ibis table, bound or not.
        steps: from `parse_steps`; they apply in order, each to the columns that the one before left.
        tables: gives the table of a name that a join reads.

    Raises:
        ConfigurationError: a column does not exist or has another type than the step works on.
    """
    from etl_assets.transforms.projection import Projection

    projection = Projection(table)
    for step in steps:
        projection.where, projection.layer = step.where, step.layer
        try:
            if step.parameters.looks_at_other_rows():
                projection = Projection(step_function(step)(projection.table(), step.parameters, tables or _no_tables))
            else:
                _apply_to_rows(projection, step)
            projection.refuse_names_alike()
        except ConfigurationError as error:
            raise ConfigurationError(error.what, where=error.where or step.where, fix=error.fix) from None
    return Draft(projection.table(), tuple(projection.flags))


def step_function(step: Step) -> Callable[..., Any]:
    """Return the pure function behind a step."""
    module, _, name = step.parameters.function().partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def _apply_to_rows(projection: Projection, step: Step) -> None:
    from etl_assets.transforms.conversion import convert

    function, parameters = step_function(step), step.parameters
    if isinstance(parameters, Conversion):
        columns = {name: partial(_second, function, parameters) for name in projection.columns_of(parameters)}
        reasons = dict.fromkeys(columns, parameters.reason())
        convert(projection, columns, step=parameters.step, on_error=parameters.on_error, reasons=reasons)
    elif isinstance(parameters, OnColumns):
        for name in projection.columns_of(parameters):
            if inspect.isgeneratorfunction(function):
                cleaned = projection.finish(function(projection.named(name), parameters))
            else:
                [cleaned] = projection.compute([name], lambda value: [function(value, parameters)])
            projection.set({name: cleaned})
    else:
        function(projection, parameters)


def _second(function: Callable[..., Any], parameters: Any, value: Any) -> Any:
    return function(value, parameters)


def _no_tables(name: str) -> ir.Table:
    raise ConfigurationError(f"there is no table {name!r} to join", fix="joins belong into gold tables")
