"""What all sources of tables have in common: how a table is named, and how the batches of one read end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from etl_resources.exceptions import ConfigurationError
from etl_resources.source import Batch, Position

if TYPE_CHECKING:
    import pyarrow as pa

    Records = tuple[pa.RecordBatch, pa.RecordBatch | None]
    """Records, and those that could not be read, in `unreadable_schema()`."""

T = TypeVar("T")


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
