"""What all sources of tables have in common: how a table is named, and how the batches of one read end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from pydantic import Field, model_validator

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.hints import nearest
from etl_resources.source import Batch, Position, StreamOptions

if TYPE_CHECKING:
    import pyarrow as pa

    Records = tuple[pa.RecordBatch, pa.RecordBatch | None]
    """Records, and those that could not be read, in `unreadable_schema()`."""


class Named(Protocol):
    """Something that has a name, as a column has."""

    @property
    def name(self) -> str:
        """The name."""


class Typed(Named, Protocol):
    """A column with its Arrow type."""

    @property
    def arrow(self) -> pa.DataType:
        """The type."""


C = TypeVar("C", bound=Named)
TypedColumn = TypeVar("TypedColumn", bound=Typed)


class TableOptions(StreamOptions):
    """A table or a query, and which of its columns."""

    table: str | None = Field(default=None, description="`table` or `schema.table`.")
    query: str | None = Field(default=None, description="A SELECT.")
    columns: tuple[str, ...] | None = Field(default=None, description="Only these columns, in this order.")

    @model_validator(mode="after")
    def _table_or_query(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either `table` or `query`")
        return self


@dataclass(frozen=True)
class TablePlan(Generic[TypedColumn]):
    """What is known about a stream of a table or a query before it is read."""

    relation: str
    columns: list[TypedColumn]
    conditions: list[str]
    cursor: TypedColumn | None
    where: str

    def schema(self) -> pa.Schema:
        """Return the Arrow schema of what is read."""
        import pyarrow as pa

        return pa.schema([(column.name, column.arrow) for column in self.columns])

    def query(self, selected: str, conditions: list[str]) -> str:
        """Return the statement; `selected` and `conditions` are SQL, their names quoted."""
        body = f"SELECT {selected} FROM {self.relation} AS t"  # noqa: S608 - all names are quoted
        return body + (" WHERE " + " AND ".join(conditions) if conditions else "")


def split_name(name: str, quotes: str = '""') -> tuple[str | None, str]:
    """Return schema and table of `schema.table` or `table`.

    The parts are taken as they stand, upper and lower case included; a part that contains a dot is put between
    `quotes` (two characters), as in SQL, where a closing one that is part of the name is doubled.

    Raises:
        ConfigurationError: it is neither.
    """
    first, last = map(re.escape, quotes)
    part = rf"{first}(?:[^{last}]|{last}{last})+{last}|[^.{first}{last}]+"
    if not (match := re.fullmatch(rf"(?:({part})\.)?({part})", name)):
        raise ConfigurationError(f"{name!r} names no table", fix="write `table` or `schema.table`")
    schema, table = match.groups()
    return (_unquoted(schema, quotes) if schema else None), _unquoted(table, quotes)


def _unquoted(part: str, quotes: str) -> str:
    return part[1:-1].replace(quotes[1] * 2, quotes[1]) if part.startswith(quotes[0]) else part


def positioned(
    batches: Iterable[Records], position: Position | None, schema: pa.Schema, *, keep_empty: bool
) -> Iterator[Batch]:
    """Yield the batches, each held back until it is known whether it is the last, which carries the position.

    Where there is no record at all: one batch without rows if `keep_empty`, else none.
    """
    import pyarrow as pa

    rows_read = 0
    held: Records | None = None
    for batch in batches:
        rows = batch[0].num_rows + (batch[1].num_rows if batch[1] is not None else 0)
        if not rows:
            continue
        if held is not None:
            yield Batch(held[0], rows_read, unreadable=held[1])
        held = batch
        rows_read += rows
    if held is None and keep_empty:
        held = pa.RecordBatch.from_pylist([], schema=schema), None
    if held is not None:
        yield Batch(held[0], rows_read, position, held[1])


def column_named(name: str, columns: Sequence[C], where: str) -> C:
    """Return the column of a name, or else the only one that has it in another case.

    Raises:
        NotFoundError: there is none, or several; names the nearest.
    """
    exact = [c for c in columns if c.name == name] or [c for c in columns if c.name.lower() == name.lower()]
    if len(exact) != 1:
        names = [c.name for c in columns]
        near = nearest(name, names) or nearest(name.upper(), names)
        raise NotFoundError(
            f"there is no column {name}" if not exact else f"several columns are called {name}", where=where,
            fix=near or f"there are {', '.join(names)}",
        )  # fmt: skip
    return exact[0]
