"""A session with PostgreSQL that moves Arrow record batches (ADBC: binary COPY both ways)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import EtlError, UnavailableError
from etl_resources.postgres_errors import translated

if TYPE_CHECKING:
    import pyarrow as pa
    from adbc_driver_postgresql import dbapi

    from etl_resources.lifeline import Lifeline


class Session:
    """One connection. Statements are SQL text whose names and values are already quoted.

    Every wait for the server is watched by `line`, if there is one, which is let go of at the end. Several threads may
    use it, one at a time: a call of the driver on a connection that another thread closes meanwhile is a crash.
    """

    def __init__(self, connection: dbapi.Connection, where: str, line: Lifeline | None = None) -> None:
        self._connection, self.where, self._line = connection, where, line
        self._one_at_a_time = threading.Lock()
        self._closed = False

    @contextmanager
    def _asking(self) -> Iterator[None]:
        with self._one_at_a_time:
            if self._closed:
                raise UnavailableError("the connection was closed while it was in use", where=self.where)
            with self._watched():
                yield

    @contextmanager
    def _watched(self) -> Iterator[None]:
        with translated(self.where), nullcontext() if self._line is None else self._line.watched():
            yield

    def execute(self, statement: str) -> int:
        """Run a statement; return the rows it inserted, updated or deleted (-1: it is of another kind)."""
        with self._asking(), self._connection.cursor() as cursor:
            cursor.execute(statement)
            return int(cursor.rowcount)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the few rows of a query."""
        with self._asking(), self._connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def value(self, query: str) -> Any:
        """Return the one value of a query."""
        return self.rows(query)[0][0]

    @contextmanager
    def stream(self, query: str, *, batch_bytes: int) -> Iterator[Iterator[pa.RecordBatch]]:
        """Give the result in record batches of about `batch_bytes`, as they come in.

        The iterator ends where the server has said that the result is complete, and nowhere else.
        """
        with self._asking():
            cursor = self._connection.cursor()
        try:
            with self._asking():
                cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(batch_bytes)})
                cursor.execute(query)
                reader = cursor.fetch_record_batch()

            def batches() -> Iterator[pa.RecordBatch]:
                while True:
                    with self._asking():
                        try:
                            batch = reader.read_next_batch()
                        except StopIteration:
                            return
                    yield batch

            yield batches()
        finally:
            with self._one_at_a_time:
                cursor.close()

    def copy(self, schema: str | None, table: str, batch: pa.RecordBatch) -> int:
        """COPY a record batch into a table (`schema` None: a temporary one); return the rows sent.

        The columns of the batch must be in the binary form of the table's columns: nothing is converted.
        """
        with self._asking(), self._connection.cursor() as cursor:
            if schema is None:
                return int(cursor.adbc_ingest(table, batch, mode="append", temporary=True))
            return int(cursor.adbc_ingest(table, batch, mode="append", db_schema_name=schema))

    @contextmanager
    def transaction(self, begin: str = "BEGIN") -> Iterator[None]:
        """Commit what the block does, or nothing of it."""
        self.execute(begin)
        try:
            yield
        except BaseException:
            self._roll_back()
            raise
        self.execute("COMMIT")

    def _roll_back(self) -> None:
        try:
            self.execute("ROLLBACK")
        except EtlError:
            # The connection is gone, and the transaction with it; what broke it is on its way up.
            return

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what the block did if it raises; the transaction goes on either way."""
        self.execute("SAVEPOINT etl")
        try:
            yield
        except EtlError:
            self.execute("ROLLBACK TO SAVEPOINT etl")
            self.execute("RELEASE SAVEPOINT etl")
            raise
        self.execute("RELEASE SAVEPOINT etl")

    def close(self) -> None:
        """End the connection, once the call of another thread has ended; the server undoes what was not committed.

        A result that is still read fails with UnavailableError. A second call does nothing.
        """
        with self._one_at_a_time:
            if self._closed:
                return
            self._closed = True
            try:
                with self._watched():
                    self._connection.close()
            finally:
                if self._line is not None:
                    self._line.close()
