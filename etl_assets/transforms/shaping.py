"""Which columns a table has."""

from __future__ import annotations

from collections.abc import Iterable

import ibis
import ibis.expr.types as ir

from etl_assets.transforms.expression import column_resolver, evaluate, referenced, sql_value
from etl_assets.transforms.parameters.shaping import Add, Concatenate, Drop, Flatten, Rename, Select, Split
from etl_assets.transforms.projection import Projection
from etl_resources.exceptions import ConfigurationError


def select(projection: Projection, parameters: Select) -> None:
    """Keep columns."""
    values = projection.values()
    projection.replace({projection.require(name): values[name] for name in parameters.columns})


def drop(projection: Projection, parameters: Drop) -> None:
    """Leave out columns."""
    gone = {projection.require(name) for name in parameters.columns}
    kept = {name: value for name, value in projection.values().items() if name not in gone}
    if not kept:
        raise ConfigurationError("drop leaves no column")
    projection.replace(kept)


def rename(projection: Projection, parameters: Rename) -> None:
    """Give columns other names; swapping two is fine."""
    for name in parameters.columns:
        projection.require(name)
    names = [parameters.columns.get(name, name) for name in projection.names()]
    _refuse_twice(names)
    projection.replace(dict(zip(names, projection.values().values(), strict=True)))


def add(projection: Projection, parameters: Add) -> None:
    """Add columns by SQL expressions over the columns as they are before the step."""
    resolve = column_resolver(projection.types())
    parsed = {name: referenced(text, resolve) for name, text in parameters.columns.items()}
    inputs = list(dict.fromkeys(key for _, keys in parsed.values() for key in keys))

    def build(*arguments: ir.Value) -> list[ir.Value]:
        values = dict(zip(inputs, arguments, strict=True))
        return [
            evaluate(tree, [values[key] for key in keys], parameters.columns[name])
            for name, (tree, keys) in parsed.items()
        ]

    projection.set(dict(zip(parsed, projection.compute(inputs, build), strict=True)))


def flatten(projection: Projection, parameters: Flatten) -> None:
    """Make the fields of structs columns."""
    for name in parameters.columns or ():
        if not projection.type(name).is_struct():
            raise ConfigurationError(f"flatten works on structs, and column {name!r} is {projection.type(name)}")
    columns: list[tuple[str, ir.Value]] = []
    for name, value in projection.values().items():
        chosen = value.type().is_struct() and (parameters.columns is None or name in parameters.columns)
        columns += _fields(name, projection.named(name), parameters, parameters.depth) if chosen else [(name, value)]
    _refuse_twice([name for name, _ in columns])
    projection.replace(dict(columns))


def _fields(name: str, value: ir.Value, parameters: Flatten, depth: int | None) -> Iterable[tuple[str, ir.Value]]:
    if depth == 0 or not value.type().is_struct():
        return [(name, value)]
    below = None if depth is None else depth - 1
    return [
        found
        for field in value.names
        for found in _fields(f"{name}{parameters.separator}{field}", value[field], parameters, below)
    ]


def split(projection: Projection, parameters: Split) -> None:
    """Cut text into columns."""
    if not projection.type(parameters.column).is_string():
        raise ConfigurationError(
            f"split works on text, and column {parameters.column!r} is {projection.type(parameters.column)}"
        )
    _refuse_twice([*projection.names(), *parameters.into])
    text = projection.named(parameters.column)
    [parts] = projection.bind([text.split(parameters.separator)])
    last = len(parameters.into) - 1
    values = {name: parts[number] for number, name in enumerate(parameters.into[:last])}
    rest = ibis.literal(parameters.separator).join(parts[last:])
    values[parameters.into[last]] = ibis.cases((parts.length() > last, rest))
    projection.set(values)


def concatenate(projection: Projection, parameters: Concatenate) -> None:
    """Join columns into one text."""
    if parameters.into in projection.names() and parameters.into not in parameters.columns:
        _refuse_twice([*projection.names(), parameters.into])

    def build(*values: ir.Value) -> list[ir.Value]:
        return [
            sql_value(
                "list_filter(parts, lambda part: part IS NOT NULL)",
                "array<string>",
                parts=ibis.array([value.cast("string") for value in values]),
            )
        ]

    [there] = projection.bind(projection.compute(parameters.columns, build))
    projection.set({parameters.into: ibis.cases((there.length() > 0, ibis.literal(parameters.separator).join(there)))})


def _refuse_twice(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"two columns would be called {', '.join(map(repr, twice))}", fix="rename one of them first"
        )
