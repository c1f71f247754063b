"""Values that are computed once, in as few nested SELECTs as their dependencies allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir

HELPER = "__stage_"


@dataclass(frozen=True)
class _Variable:
    """A value with a name. It is a column of layer `level`: one more than the highest level that it is made from."""

    name: str
    value: ops.Value
    level: int


class Layers:
    """Names values over a table, and builds the query in which each is computed once.

    A named value stands in expressions as the only column of a table of its own; `build` replaces it by the column of
    the subquery where the value is computed. So expressions can be written in any order, and what does not depend on
    each other shares a subquery.
    """

    def __init__(self, table: ir.Table) -> None:
        self._base: ops.Relation = table.op()
        self._variables: dict[ops.Field, _Variable] = {}

    def name(self, value: ir.Value) -> ir.Value:
        """Return a column that stands for the value, computed once however often the column is used."""
        if isinstance(value.op(), ops.Field):
            return value
        called = f"{HELPER}{len(self._variables)}"
        stand_in = ibis.table({called: value.type()}, name=called)[called]
        level = 1 + max((self._level(field) for field in _fields(value.op())), default=0)
        self._variables[stand_in.op()] = _Variable(called, value.op(), level)
        return stand_in

    def build(self, values: Mapping[str, ir.Value]) -> ir.Table:
        """Return the query that gives the values, with the names and in the order of the mapping."""
        wanted = {name: value.op() for name, value in values.items()}
        read_at = self._last_reads(wanted.values())
        relation, known = self._base, {field: field for field in read_at if field not in self._variables}
        for level in range(1, self._depth(read_at) + 1):
            columns: dict[str, ops.Value] = {}
            where: dict[ops.Field, str] = {}
            for field, last in read_at.items():
                here = self._level(field)
                if here <= level <= last:
                    variable = self._variables.get(field)
                    where[field] = variable.name if variable else field.name
                    fresh = variable is not None and here == level
                    columns[where[field]] = _replace(variable.value, known) if variable and fresh else known[field]
            relation = ops.Project(relation, columns)
            known = {field: ops.Field(relation, name) for field, name in where.items()}
        final: ir.Table = ops.Project(relation, {name: _replace(op, known) for name, op in wanted.items()}).to_expr()
        return final

    def _level(self, field: ops.Field) -> int:
        return self._variables[field].level if field in self._variables else 0

    def _depth(self, fields: Iterable[ops.Field]) -> int:
        return max(map(self._level, fields), default=0)

    def _last_reads(self, finals: Iterable[ops.Value]) -> dict[ops.Field, int]:
        """Return every field that is needed -> the last layer that it is read from."""
        last: dict[ops.Field, int] = {}
        roots = {field for value in finals for field in _fields(value)}
        waiting, seen = list(roots), set(roots)
        while waiting:
            field = waiting.pop()
            last.setdefault(field, 0)
            variable = self._variables.get(field)
            for used in _fields(variable.value) if variable else ():
                last[used] = max(last.get(used, 0), self._level(field) - 1)
                if used not in seen:
                    seen.add(used)
                    waiting.append(used)
        depth = self._depth(last)
        return last | dict.fromkeys(roots, depth)


def uses(values: Iterable[ops.Value], wanted: ops.Node) -> int:
    """Return how often `wanted` would be written when the values are written as SQL."""
    counted: dict[ops.Node, int] = {wanted: 1}

    def count(node: ops.Node) -> int:
        if node not in counted:
            counted[node] = 0 if isinstance(node, ops.Relation) else sum(map(count, node.__children__))
        return counted[node]

    return sum(map(count, values))


def _fields(value: ops.Value) -> Iterable[ops.Field]:
    if isinstance(value, ops.Field):
        return (value,)
    found: Iterable[ops.Field] = value.find(ops.Field, filter=ops.Value)
    return found


def _replace(value: ops.Value, known: Mapping[ops.Field, ops.Value]) -> ops.Value:
    if isinstance(value, ops.Field):
        return known[value]
    replaced: ops.Value = value.replace(dict(known), filter=ops.Value)
    return replaced
