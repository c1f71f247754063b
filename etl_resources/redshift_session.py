"""A session with Redshift whose results come as blocks of bytes, from which columns are cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError
from etl_resources.redshift_errors import translated
from etl_resources.redshift_wire import Block, Field, ServerError, results

if TYPE_CHECKING:
    import socket

    from redshift_connector import Connection

_QUERY = b"Q"


class Session:
    """One connection. Statements are SQL text whose names and values are already quoted; each commits by itself.

    The driver connects and logs in; from then on statements go over its socket, because it would hold every result
    whole. `silence` are seconds without a byte within an answer, `longest` those until its first row comes.
    """

    def __init__(self, connection: Connection, where: str, *, silence: float, longest: float) -> None:
        self._connection, self.where, self._silence, self._longest = connection, where, silence, longest
        self._socket: socket.socket = connection._usock  # noqa: SLF001 - the driver gives results in no other way
        self._busy = False

    def execute(self, *statements: str) -> None:
        """Run statements whose answer is of no interest."""
        for statement in statements:
            self.rows(statement)

    def rows(self, query: str) -> list[tuple[str | None, ...]]:
        """Return the few rows of a query, as texts."""
        count, found = 0, []
        for part in self._answer(query, 10_000):
            if isinstance(part, Block):
                texts = [column.cast("string").to_pylist() for column in part.columns(count, self.where)]
                found += list(zip(*texts, strict=True))
            else:
                count = len(part)
        return found

    def fields(self, query: str) -> tuple[Field, ...]:
        """Return the columns of a query, which is run without giving a row.

        Raises:
            ConfigurationError: it is no query.
        """
        answer = list(self._answer(query, 1))
        if not answer or isinstance(answer[0], Block):
            raise ConfigurationError("there are no columns to read", where=self.where, fix="give a SELECT")
        return answer[0]

    def stream(self, query: str, *, rows: int) -> Iterator[tuple[Field, ...] | Block]:
        """Yield the columns of a result, and then its rows in blocks of at most `rows`, as they come in.

        Ends where the server has said that the result is complete, and nowhere else. Until then nothing else can be
        asked in this session.
        """
        return self._answer(query, rows)

    def _answer(self, query: str, rows: int) -> Iterator[tuple[Field, ...] | Block]:
        text = query.encode() + b"\0"
        self._busy = True
        with translated(self.where):
            self._socket.settimeout(self._silence)
            self._socket.sendall(_QUERY + (len(text) + 4).to_bytes(4, "big") + text)
        parts = results(self._receive, rows=rows, where=self.where)
        while True:
            with translated(self.where):
                try:
                    part = next(parts, None)
                except ServerError:
                    self._busy = False  # it is ready for the next statement
                    raise
            if part is None:
                break
            yield part
        self._busy = False

    def _receive(self, size: int, begun: bool) -> bytes:  # noqa: FBT001 - as `Receive` has it
        # The columns may be told long before the first row is found.
        self._socket.settimeout(self._silence if begun else self._longest)
        return self._socket.recv(size)

    def close(self) -> None:
        """End the connection; a statement that has not ended is given up."""
        if self._busy:
            self._socket.close()  # there is more on the wire, which nobody wants
            return
        with translated(self.where):
            self._connection.close()
