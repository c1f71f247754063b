"""Tables out of lists."""

from __future__ import annotations

from typing import Any

import ibis.expr.types as ir

from etl_assets.transforms.ordering import require
from etl_assets.transforms.parameters.shaping import Unnest
from etl_resources.exceptions import ConfigurationError


def unnest(table: ir.Table, parameters: Unnest, _: Any) -> ir.Table:
    """Return one row per element: key, position from 1, and the element (a struct: its fields). An element that is NULL
    has a row, an empty list has none."""
    [name] = require(table, [parameters.column])
    kind = table[name].type()
    if not kind.is_array():
        raise ConfigurationError(
            f"unnest works on lists, and column {name!r} is {kind}", fix="is it a struct? flatten it"
        )
    kept = [*require(table, parameters.key), *(column for column in table.columns if column.startswith("_"))]
    nested = table.select(*kept, **{_ELEMENT: table[name]}).unnest(_ELEMENT, offset=parameters.ordinal)
    element = nested[_ELEMENT]
    fields = {field: element[field] for field in element.names} if element.type().is_struct() else {name: element}
    taken = {*kept, parameters.ordinal} & fields.keys()
    if taken:
        raise ConfigurationError(f"unnest would make two columns called {min(taken)!r}", fix="rename the key first")
    position = {parameters.ordinal: nested[parameters.ordinal] + 1}
    keys = {column: nested[column] for column in parameters.key}
    rest = {column: nested[column] for column in kept if column not in parameters.key}
    return nested.select(**keys, **position, **fields, **rest)


_ELEMENT = "__element"
