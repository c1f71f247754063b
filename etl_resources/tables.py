"""What all sources of tables have in common: how a table is named, and how the batches of one read end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.hints import nearest
from etl_resources.source import Batch, Position

if TYPE_CHECKING:
    import pyarrow as pa

    Records = tuple[pa.RecordBatch, pa.RecordBatch | None]
    """Records, and those that could not be read, in `unreadable_schema()`."""

T = TypeVar("T")


class Named(Protocol):
    """Something that has a name, as a column has."""

    @property
    def name(self) -> str:
        """The name."""


C = TypeVar("C", bound=Named)


def table_or_query(options: T) -> T:
    """Return the options of a stream, of which exactly one of `table` and `query` is given.

    Raises:
        ValueError: none or both are; pydantic makes it its own.
    """
    given: Any = options
    if (given.table is None) == (given.query is None):
        raise ValueError("give either `table` or `query`")
    return options


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
