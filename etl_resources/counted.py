"""Rows on their way into a commit, counted, so that a loss stops the commit and is not found out after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from etl_resources.exceptions import RowsNotConservedError

if TYPE_CHECKING:
    import pyarrow as pa


class Counted:
    """Passes batches on, and fails when other than `expected` rows have come by their end: nothing is committed then.

    With a `schema`, columns that the source lacks are NULL.
    """

    def __init__(self, source: pa.RecordBatchReader, expected: int, schema: pa.Schema | None = None) -> None:
        self._source, self._expected, self._schema = source, expected, schema or source.schema
        self._failure: Exception | None = None

    def reader(self) -> pa.RecordBatchReader:
        """Return a reader of the rows, for use within `checked`."""
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self._schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        from etl_resources.delta.evolution import conform

        rows = 0
        try:
            for batch in self._source:
                rows += batch.num_rows
                yield conform(batch, self._schema, where="the rows of a commit")
            self._check(rows)
        except Exception as error:  # kept, because what reads the rows may make a text of it
            self._failure = error
            raise

    def _check(self, rows: int) -> None:
        if rows != self._expected:
            raise RowsNotConservedError(
                f"{rows} rows were to be written, but the account says {self._expected}; nothing was committed",
                fix="this is a defect of the platform: please report it",
            )

    @contextmanager
    def checked(self, where: str) -> Iterator[None]:
        """Raise what went wrong in the source instead of what the reader of the rows makes of it."""
        try:
            yield
        except Exception as error:  # whatever the reader of the rows raises when its source fails
            if self._failure is None:
                raise
            if isinstance(self._failure, RowsNotConservedError):
                raise RowsNotConservedError(self._failure.what, where=where, fix=self._failure.fix) from error
            raise self._failure from error
