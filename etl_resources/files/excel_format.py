"""Excel: one sheet, every column a string, since a column of a sheet has no type of its own."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError, NotFoundError, UnavailableError
from etl_resources.files.chunks import Chunk, Unreadable

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 10_000


def read_excel(stream: IO[bytes], origin: str, *, sheet: str | None, skip_rows: int) -> Iterator[Chunk]:
    """Yield the rows of a sheet (None: the first), cells as text: 1 and 1.5, true, 2024-02-29, 2024-02-29T12:00:00.

    Values of formulas are those that were saved. Blank rows are none. A row with more cells than the header is set
    aside with its cells as they read.

    Raises:
        NotFoundError: no such sheet.
        ConfigurationError: a column name comes twice.
        UnavailableError: not a whole workbook.
    """
    from openpyxl import load_workbook

    try:
        book = load_workbook(stream, read_only=True, data_only=True)
    except Exception as error:  # openpyxl lets errors of zip, XML and its own models through
        raise UnavailableError(f"{origin} is not a whole Excel workbook: {error}", where=origin) from error
    try:
        rows = _numbered(_sheet(book, sheet, origin), skip_rows)
        names = _names(rows, origin)
        if names:
            yield Chunk(_table([], names), 0)
        while names and (taken := list(islice(rows, _ROWS))):
            yield _chunk(taken, names)
    finally:
        book.close()


def _sheet(book: Any, name: str | None, origin: str) -> Any:
    if name is None:
        return book.worksheets[0]
    if name not in book.sheetnames:
        raise NotFoundError(f"no sheet {name!r} in {origin}", where=origin, fix=f"it has {', '.join(book.sheetnames)}")
    return book[name]


def _numbered(sheet: Any, skip_rows: int) -> Iterator[tuple[int, list[str | None]]]:
    sheet.reset_dimensions()  # what the file says about its own size is often wrong
    for n, row in enumerate(sheet.iter_rows(values_only=True), 1):
        cells = [_text(value) for value in row]
        while cells and cells[-1] is None:
            cells.pop()
        if cells and n > skip_rows:
            yield n, cells


def _names(rows: Iterator[tuple[int, list[str | None]]], origin: str) -> list[str]:
    names = next(rows, (0, []))[1]
    unique = [name or f"column_{n}" for n, name in enumerate(names, 1)]
    twice = sorted({n for n in unique if unique.count(n) > 1})
    if twice:
        raise ConfigurationError(f"the header of {origin} names a column twice: {', '.join(twice)}", where=origin)
    return unique


def _chunk(rows: list[tuple[int, list[str | None]]], names: list[str]) -> Chunk:
    import json

    width = len(names)
    unreadable = [
        Unreadable(f"{len(cells)} cells instead of {width}", json.dumps(cells, ensure_ascii=False).encode(), n)
        for n, cells in rows
        if len(cells) > width
    ]
    fitting = [cells + [None] * (width - len(cells)) for _, cells in rows if len(cells) <= width]
    return Chunk(_table(fitting, names), len(rows), unreadable)


def _table(rows: list[list[str | None]], names: list[str]) -> pa.Table:
    import pyarrow as pa

    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return pa.table([pa.array(column, pa.string()) for column in columns], names=names)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, dt.datetime):
        return value.isoformat() if value.time() != dt.time() else value.date().isoformat()
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
