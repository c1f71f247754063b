"""A session with SQL Server that gives Arrow record batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import UnavailableError
from etl_resources.sqlserver_errors import translated

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.lifeline import Lifeline

_FIRST_ROWS = 1024
_BATCH_BYTES = 1 << 24


class Session:
    """One connection. Statements are T-SQL text whose names and values are already quoted."""

    def __init__(self, connection: Any, lifeline: Lifeline, where: str) -> None:
        self._connection, self._lifeline, self.where = connection, lifeline, where

    def execute(self, statement: str) -> None:
        """Run a statement that gives no rows."""
        with self._cursor() as cursor, self._calling():
            cursor.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the few rows of a query; raises as `stream`."""
        rows = self._fetch(query)
        self._check_count(len(rows))
        return rows

    def _fetch(self, query: str) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor, self._calling():
            cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()]

    def _check_count(self, rows: int) -> None:
        """Compare with the server's own count: the driver sometimes takes a connection that breaks for the end."""
        sent = [count for (count,) in self._fetch("SELECT ROWCOUNT_BIG()")]
        if sent != [rows]:
            told = f"{sent[0]} were sent" if sent else "the server does not answer any more"
            raise UnavailableError(f"the result broke off after {rows} rows; {told}", where=self.where)

    def value(self, query: str) -> Any:
        """Return the one value of a query; None: it has no row."""
        rows = self.rows(query)
        return rows[0][0] if rows else None

    def stream(self, query: str, *, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the result in record batches of at most `batch_rows` and about 16 MB, as they come in.

        At least one is given, without rows if there are none.

        Raises:
            UnavailableError: also where the server has sent more rows than arrived.
        """
        rows = 0
        with self._cursor() as cursor:
            with self._calling():
                cursor.execute(query)
            size, first = min(batch_rows, _FIRST_ROWS), True
            while True:
                with self._calling():
                    batch = cursor.arrow_batch(size)
                rows += batch.num_rows
                if batch.num_rows or first:
                    yield batch
                first = False
                if not batch.num_rows:
                    break
                size = max(1, min(batch_rows, _BATCH_BYTES * batch.num_rows // max(1, batch.nbytes)))
        self._check_count(rows)

    @contextmanager
    def _calling(self) -> Iterator[None]:
        with translated(self.where), self._lifeline.watched():
            yield

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        with translated(self.where):
            cursor = self._connection.cursor()
        try:
            yield cursor
        finally:
            self._quietly(cursor)

    def close(self) -> None:
        """End the connection; what was not committed is undone by the server."""
        self._quietly(self._connection)
        self._lifeline.close()

    def _quietly(self, closable: Any) -> None:
        """Close what may be broken already; what broke it is on its way up."""
        import mssql_python

        with suppress(mssql_python.Error, RuntimeError, UnavailableError), self._lifeline.watched():
            closable.close()
