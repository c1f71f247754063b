"""A table that computes hashes of its rows: what has changed is found without moving the rows that have not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from etl_resources.source import Position

if TYPE_CHECKING:
    import pyarrow as pa

    Records = tuple[pa.RecordBatch, pa.RecordBatch | None]
    """Records, and those that could not be read, in `unreadable_schema()`."""

HASH = "_hash"
"""Column (int64) of a row's hash."""


class HashedTable(ABC):
    """One consistent snapshot of a table, as long as its context is open (`Source.hashed`).

    Rows whose values differ in any way that a reader can tell have different hashes, but for the accidents of 64 bits;
    the same row has the same hash in every snapshot with the same `hashed_by`.
    """

    hashed_by: str
    """Names the function and the columns that go into it: hashes are comparable only if it is equal."""
    schema: pa.Schema
    """Of the rows, without `_hash`."""
    position: Position
    """Of the snapshot, as `Source.latest` tells it."""

    @abstractmethod
    def count(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def hashes(self, batch_rows: int) -> Iterator[Records]:
        """Yield the key columns and `_hash` of every row."""

    @abstractmethod
    def rows(self, batch_rows: int) -> Iterator[Records]:
        """Yield every row, with `_hash`."""

    @abstractmethod
    def pick(self, keys: pa.Table, batch_rows: int) -> Iterator[Records] | None:
        """Yield the rows of some keys, and perhaps others, with `_hash`; None: this key cannot be looked up."""
