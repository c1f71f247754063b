"""Columns of a table while steps rewrite them: one SELECT, as long as nothing would be computed twice."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.types as ir

from etl_assets.transforms.parameters.base import OnColumns
from etl_assets.transforms.step import Flag, Layer
from etl_resources.exceptions import ConfigurationError

Staged = Generator[Sequence[Any], Any, Any]
"""A function in stages: it yields values that it needs more than once, gets them back as columns (so that they are
computed once), and returns the result."""

FLAG = "__flag_"
_HELPER = "__stage_"


class Projection:
    """A table and the values that its columns are going to have.

    `values` maps every column, in order, to an expression over `_table`. Rewriting a column nests expressions; when
    one would have to be repeated in the SQL, what is there becomes a subquery first (`table()`).
    """

    layer: Layer = "gold"
    where: str = ""

    def __init__(self, table: ir.Table) -> None:
        self._table = table
        self._values: dict[str, ir.Value] = {name: table[name] for name in table.columns}
        self._changed = False
        self.flags: list[Flag] = []

    def names(self) -> list[str]:
        """Return the names that steps may touch: those that do not start with `_`."""
        return [name for name in self._values if not name.startswith("_")]

    def type(self, name: str) -> dt.DataType:
        """Return the type that a column has now."""
        return self._values[self.require(name)].type()

    def types(self) -> dict[str, dt.DataType]:
        """Return all columns that expressions may read, provenance included."""
        return {name: value.type() for name, value in self._values.items() if not name.startswith((FLAG, _HELPER))}

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
            self._table = self._table.select(**self._values)
            self._values = {name: self._table[name] for name in self._table.columns}
            self._changed = False
        return self._table

    def replace(self, values: Mapping[str, ir.Value]) -> None:
        """Set the columns to exactly these values, in this order; provenance and flags stay."""
        kept = {name: value for name, value in self._values.items() if name.startswith("_")}
        self._values = {**values, **kept}
        self._changed = True

    def values(self) -> dict[str, ir.Value]:
        """Return the columns that steps may touch."""
        return {name: self._values[name] for name in self.names()}

    def compute(self, inputs: Sequence[str], function: Callable[..., Sequence[ir.Value]]) -> list[ir.Value]:
        """Return `function(*values of inputs)`, without repeating in SQL what is computed already."""
        arguments = [self._values[self.require(name)] for name in inputs]
        results = list(function(*arguments))
        pending = {value.op() for value in arguments if not isinstance(value.op(), ops.Field)}
        if any(_uses(results, node) > 1 for node in pending):
            self.table()
            results = list(function(*[self._values[name] for name in inputs]))
        return results

    def set(self, values: Mapping[str, ir.Value]) -> None:
        """Add columns, or give them other values; values must come from `compute`, or from the current table."""
        self._values.update(values)
        self._changed = True

    def bind(self, values: Sequence[ir.Value]) -> list[ir.Value]:
        """Compute values once, in a subquery, and return them as columns of it."""
        self._values |= {f"{_HELPER}{number}": value for number, value in enumerate(values)}
        self._changed = True
        table = self.table()
        for number in range(len(values)):
            del self._values[f"{_HELPER}{number}"]
        self._changed = bool(values)
        return [table[f"{_HELPER}{number}"] for number in range(len(values))]

    def keep_where(self, condition: ir.BooleanValue) -> None:
        """Leave out the rows for which `condition` is not true."""
        [kept] = self.bind([condition])
        filtered = self._table.filter(kept)
        self._table = filtered
        self._values = {name: filtered[name] for name in self._values}

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

    def staged(self, functions: Sequence[Staged]) -> list[ir.Value]:
        """Run staged functions side by side, so that a stage is one subquery for all of them."""
        running = dict(enumerate(functions))
        answers: dict[int, list[ir.Value] | None] = dict.fromkeys(running)
        done: dict[int, ir.Value] = {}
        while running:
            wanted: dict[int, list[ir.Value]] = {}
            for number, function in list(running.items()):
                try:
                    wanted[number] = list(function.send(answers[number]))
                except StopIteration as end:
                    done[number] = end.value
                    del running[number]
            if running:
                bound = iter(self.bind([*done.values(), *(value for values in wanted.values() for value in values)]))
                done = {number: next(bound) for number in done}
                answers = {number: [next(bound) for _ in values] for number, values in wanted.items()}
        return [done[number] for number in range(len(functions))]


def near(name: str, known: Sequence[str]) -> str:
    """Return a hint at the name that was probably meant."""
    from difflib import get_close_matches

    found = get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; there are: {', '.join(known)}"


def _uses(values: Sequence[ir.Value], wanted: ops.Node) -> int:
    """Return how often `wanted` would be written when the values are written as SQL."""
    counted: dict[ops.Node, int] = {wanted: 1}

    def count(node: ops.Node) -> int:
        if node not in counted:
            counted[node] = 0 if isinstance(node, ops.Relation) else sum(map(count, node.__children__))
        return counted[node]

    return sum(count(value.op()) for value in values)


_KINDS: dict[str, Callable[[dt.DataType], bool]] = {
    "text": lambda found: found.is_string(),
    "number": lambda found: found.is_numeric() and not found.is_boolean(),
    "any": lambda _: True,
}
