"""Columns of a table while steps rewrite them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.types as ir

from etl_assets.transforms.layers import Layers, uses
from etl_assets.transforms.parameters.base import OnColumns
from etl_assets.transforms.step import Flag, Layer
from etl_resources.exceptions import ConfigurationError

Staged = Generator[Sequence[Any], Any, Any]
"""A function in stages: it yields values that it needs more than once, gets them back as columns (so that they are
computed once), and returns the result."""

FLAG = "__flag_"
_KEPT = "__kept"


class Projection:
    """A table and the values that its columns are going to have, in order; `table()` makes a query of them."""

    layer: Layer = "gold"
    where: str = ""

    def __init__(self, table: ir.Table) -> None:
        self.flags: list[Flag] = []
        self._start(table)

    def _start(self, table: ir.Table) -> None:
        self._table, self._layers, self._changed = table, Layers(table), False
        self._values: dict[str, ir.Value] = {name: table[name] for name in table.columns}

    def names(self) -> list[str]:
        """Return the names that steps may touch: those that do not start with `_`."""
        return [name for name in self._values if not name.startswith("_")]

    def type(self, name: str) -> dt.DataType:
        """Return the type that a column has now."""
        return self._values[self.require(name)].type()

    def types(self) -> dict[str, dt.DataType]:
        """Return all columns that expressions may read, provenance included."""
        return {name: value.type() for name, value in self._values.items() if not name.startswith(FLAG)}

    def require(self, name: str) -> str:
        """Return `name`.

        Raises:
            ConfigurationError: there is no such column.
        """
        if name not in self._values:
            raise ConfigurationError(f"unknown column {name!r}{near(name, self.names())}")
        return name

    def refuse_names_alike(self) -> None:
        """Refuse columns that differ in case only: SQL engines take them for one, and would pick either.

        Raises:
            ConfigurationError: with both names.
        """
        seen: dict[str, str] = {}
        for name in self._values:
            other = seen.setdefault(name.lower(), name)
            if other != name:
                raise ConfigurationError(
                    f"columns {other!r} and {name!r} differ in case only", fix="rename one of them"
                )

    def table(self) -> ir.Table:
        """Return the table with all that was changed, and go on from there."""
        if self._changed:
            self._start(self._layers.build(self._values))
        return self._table

    def values(self) -> dict[str, ir.Value]:
        """Return the columns that steps may touch."""
        return {name: self._values[name] for name in self.names()}

    def named(self, name: str) -> ir.Value:
        """Return a column; what it is made from is computed once, however often the result is used."""
        self._values[self.require(name)] = self._layers.name(self._values[name])
        return self._values[name]

    def bind(self, values: Sequence[ir.Value]) -> list[ir.Value]:
        """Return columns that stand for the values, which are computed once."""
        return [self._layers.name(value) for value in values]

    def compute(self, inputs: Sequence[str], function: Callable[..., Sequence[ir.Value]]) -> list[ir.Value]:
        """Return `function(*values of inputs)`, without repeating in SQL what is computed already."""
        arguments = [self._values[self.require(name)] for name in inputs]
        results = list(function(*arguments))
        pending = {value.op() for value in arguments if not isinstance(value.op(), ops.Field)}
        if all(uses([result.op() for result in results], node) <= 1 for node in pending):
            return results
        return list(function(*map(self.named, inputs)))

    def set(self, values: Mapping[str, ir.Value]) -> None:
        """Add columns, or give them other values."""
        self._values.update(values)
        self._changed = True

    def replace(self, values: Mapping[str, ir.Value]) -> None:
        """Have exactly these columns, in this order; provenance and flags stay."""
        kept = {name: value for name, value in self._values.items() if name.startswith("_")}
        self._values = {**values, **kept}
        self._changed = True

    def keep_where(self, condition: ir.BooleanValue) -> None:
        """Leave out the rows for which `condition` is not true."""
        self.set({_KEPT: condition})
        table = self.table()
        self._start(table.filter(table[_KEPT]))
        del self._values[_KEPT]
        self._changed = True

    def flag(self, fate: Any, rule: str, reason: str, condition: ir.BooleanValue) -> None:
        """Flag the rows for which `condition` is true."""
        name = f"{FLAG}{len(self.flags)}"
        self.flags.append(Flag(fate, rule, name, reason))
        self.set({name: condition.fill_null(False)})  # noqa: FBT003 - a value, not a switch

    def columns_of(self, parameters: OnColumns) -> list[str]:
        """Return the columns that a step works on, checked for their type."""
        fits = _KINDS[parameters.accepts]
        if parameters.columns is None:
            return [name for name in self.names() if fits(self._values[name].type())]
        for name in parameters.columns:
            found = self.type(name)
            if not fits(found):
                raise ConfigurationError(
                    f"{parameters.step} works on {parameters.accepts}, and column {name!r} is {found}",
                    fix="cast the column first, or leave it out",
                )
        return list(dict.fromkeys(parameters.columns))

    def finish(self, function: Staged) -> ir.Value:
        """Run a function in stages to its result."""
        answer: list[ir.Value] | None = None
        while True:
            try:
                answer = self.bind(function.send(answer))
            except StopIteration as end:
                result: ir.Value = end.value
                return result


def near(name: str, known: Sequence[str]) -> str:
    """Return a hint at the name that was probably meant."""
    from difflib import get_close_matches

    found = get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; there are: {', '.join(known)}"


_KINDS: dict[str, Callable[[dt.DataType], bool]] = {
    "text": lambda found: found.is_string(),
    "number": lambda found: found.is_numeric() and not found.is_boolean(),
    "any": lambda _: True,
}
