"""A session with MySQL or MariaDB whose results come as blocks of bytes, from which columns are cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etl_resources.mysql_errors import translated

if TYPE_CHECKING:
    import pymysql
    from pymysql.protocol import FieldDescriptorPacket

    from etl_resources.mysql_wire import Block


class Session:
    """One connection. Statements are SQL text whose names and values are already quoted; times are in UTC."""

    def __init__(self, connection: pymysql.Connection[Any], where: str) -> None:
        self._connection, self.where = connection, where
        self._streaming = False
        self.is_mariadb = "mariadb" in connection.get_server_info().lower()

    def execute(self, *statements: str) -> None:
        """Run statements that give no rows."""
        with translated(self.where):
            for statement in statements:
                self._connection.query(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the few rows of a query."""
        with translated(self.where), self._connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def value(self, query: str) -> Any:
        """Return the one value of a query."""
        return self.rows(query)[0][0]

    def fields(self, query: str) -> list[FieldDescriptorPacket]:
        """Return what the server says of the columns of a query, of which no row is read."""
        with translated(self.where):
            self._connection.query(f"SELECT * FROM {query} AS t LIMIT 0")  # noqa: S608 - a quoted name, or a user's query
            return list(self._connection._result.fields)  # noqa: SLF001 - the driver shows less in public

    def stream(self, query: str, *, rows: int) -> tuple[list[FieldDescriptorPacket], Iterator[Block]]:
        """Return the columns of a result, and its rows in blocks of at most `rows`, as they come in.

        The iterator ends where the server has said that the result is complete, and nowhere else. Until then nothing
        else can be asked in this session.
        """
        from pymysql.err import raise_mysql_exception

        from etl_resources.mysql_wire import blocks

        connection = self._connection
        with translated(self.where):
            connection.query(query, unbuffered=True)
        result = connection._result  # noqa: SLF001 - the rows are read from its wire, and not through its objects
        # Else the driver would read the rest of an abandoned result, row by row.
        result.unbuffered_active = False
        connection._sock.settimeout(connection._read_timeout)  # noqa: SLF001

        def receive(size: int) -> bytes:
            with translated(self.where):
                received: bytes = connection._rfile.read1(size)  # noqa: SLF001
                return received

        def fail(packet: bytes) -> None:
            with translated(self.where):
                raise_mysql_exception(packet)

        def read() -> Iterator[Block]:
            self._streaming = True
            yield from blocks(receive, fail, rows=rows, where=self.where)
            self._streaming = False

        return list(result.fields), read()

    def close(self) -> None:
        """End the connection; what was not committed is undone by the server."""
        import pymysql

        if self._streaming:
            self._connection._force_close()  # noqa: SLF001 - there is more on the wire, which nobody wants
            return
        try:
            self._connection.close()
        except pymysql.Error:
            # The connection is gone already; what broke it is on its way up.
            return
