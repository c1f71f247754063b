"""What is known of the columns of a table, a subquery or a query while lineage is traced through it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple


class ColumnRef(NamedTuple):
    """A column of a source table, both named as the schema given to `column_lineage` names them."""

    table: str
    column: str


Refs = frozenset[ColumnRef] | None
"""Source columns; None: not known."""

NOTHING: Refs = frozenset()


def union(parts: Iterable[Refs]) -> Refs:
    """Return all columns of all parts; unknown as soon as one part is."""
    found: set[ColumnRef] = set()
    for part in parts:
        if part is None:
            return None
        found |= part
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Column:
    """One item of a SELECT list. An item that `expands` becomes any number of columns (`COLUMNS(*)`, `struct.*`)."""

    name: str
    refs: Refs
    expands: bool = False


@dataclass(frozen=True)
class Relation:
    """Columns in order, with lower-case names; `influences` decide which rows there are.

    `others` answers for any column that is not listed.
    """

    columns: Sequence[Column]
    influences: Refs = NOTHING
    others: Refs = None
    _by_name: Mapping[str, Refs] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name: dict[str, Refs] = {}
        for column in self.columns:
            if column.expands:
                break  # it may bring any name, so what follows is not certain to be what its name says
            # DuckDB renames a second column of a name; which of them is meant is not followed, so both are.
            known = by_name.get(column.name, NOTHING)
            by_name[column.name] = union([known, column.refs])
        object.__setattr__(self, "_by_name", by_name)

    def lookup(self, name: str) -> Refs:
        """Return the source columns of a column."""
        return self._by_name.get(name.lower(), self.others)

    def everything(self) -> Refs:
        """Return the source columns of all columns together."""
        if not self.columns:
            return self.others
        return union([column.refs for column in self.columns])

    def renamed(self, names: Sequence[str]) -> Relation:
        """Return the relation under the column list of an alias, `AS t(a, b)`."""
        if not names:
            return self
        if any(column.expands for column in self.columns):
            return replace(self, columns=[Column(name.lower(), None) for name in names])
        listed = [Column(new.lower(), old.refs) for new, old in zip(names, self.columns, strict=False)]
        extra = [Column(name.lower(), self.others) for name in names[len(listed) :]]
        return replace(self, columns=[*listed, *extra, *self.columns[len(listed) :]])

    def influenced(self, more: Iterable[Refs]) -> Relation:
        """Return the relation with more influences."""
        return replace(self, influences=union([self.influences, *more]))

    def aligned(self, names: Sequence[str]) -> list[Refs]:
        """Return the refs of each of `names`, the true output columns; None where it is not certain which is which."""
        expanding = [index for index, column in enumerate(self.columns) if column.expands]
        if not expanding:
            return self._aligned_one_to_one(names)
        first, after_last = expanding[0], len(self.columns) - expanding[-1] - 1
        middle = len(names) - first - after_last
        if middle < 0:
            return [None] * len(names)
        spread = self.columns[first].refs if len(expanding) == 1 else None
        tail = [column.refs for column in self.columns[len(self.columns) - after_last :]]
        return [*(column.refs for column in self.columns[:first]), *[spread] * middle, *tail]

    def _aligned_one_to_one(self, names: Sequence[str]) -> list[Refs]:
        if len(self.columns) != len(names):
            return [None] * len(names)
        # An expression without an alias is called differently by DuckDB and SQLGlot; but a name that belongs to
        # another place would mean that the two disagree about the order.
        traced = {column.name for column in self.columns}
        pairs = zip(self.columns, (name.lower() for name in names), strict=True)
        return [None if column.name != name and name in traced else column.refs for column, name in pairs]


UNKNOWN = Relation(columns=(), influences=None)


def by_position(left: Relation, right: Relation) -> Relation:
    """Return what `left UNION right` knows: columns meet by position and are called as on the left."""
    influences = union([left.influences, right.influences])
    if len(left.columns) != len(right.columns) or any(c.expands for c in [*left.columns, *right.columns]):
        return Relation(columns=(), influences=influences)
    pairs = zip(left.columns, right.columns, strict=True)
    return Relation([Column(a.name, union([a.refs, b.refs])) for a, b in pairs], influences)


def by_name(left: Relation, right: Relation) -> Relation:
    """Return what `left UNION BY NAME right` knows; a column that one side lacks is NULL there."""
    influences = union([left.influences, right.influences])
    if any(c.expands for c in [*left.columns, *right.columns]):
        return Relation(columns=(), influences=influences)
    names = list(dict.fromkeys(c.name for c in [*left.columns, *right.columns]))
    sides = [replace(side, others=NOTHING) for side in (left, right)]
    return Relation([Column(name, union([side.lookup(name) for side in sides])) for name in names], influences)
