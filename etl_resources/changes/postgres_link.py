"""The connections with which a PostgreSQL change log is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from etl_resources.changes.postgres_peek import prepare
from etl_resources.exceptions import EtlError, LogLostError, UnavailableError
from etl_resources.postgres_errors import translated

if TYPE_CHECKING:
    import psycopg

    from etl_resources.postgres import PostgresConnection
    from etl_resources.postgres_session import Session

RESNAPSHOT = "read the streams anew: `on_lost: resnapshot`, or `etl capture resnapshot`; deletes are found as well"


class Link:
    """Two connections to one database: `session` streams, and `ask` is answered meanwhile."""

    def __init__(self, connection: PostgresConnection) -> None:
        self.where = connection.address
        self._connection = connection
        self._stack = ExitStack()
        self.client: psycopg.Connection[Any] = self._stack.enter_context(connection.client())
        self._line = connection.lifeline(self.client)
        self._stack.callback(self._line.close)
        # What we commit has to be in the log at once, and need not be on a standby.
        self.ask("SET synchronous_commit = local")

    @cached_property
    def session(self) -> Session:
        """The connection that streams; opened when it is used first."""
        session = self._stack.enter_context(self._connection.session())
        # Keys are kept as text between two sessions.
        prepare(session)
        return session

    def ask(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a statement that commits by itself."""
        with self.asking():
            cursor = self.client.execute(query.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Use `client`: what goes wrong comes out as an error of the tree, and a server that is gone does as well."""
        with translated(self.where), self._line.watched():
            yield

    @contextmanager
    def limit(self, name: str, seconds: float) -> Iterator[None]:
        """Let `ask` wait at most so long, by the setting of that name (`lock_timeout`, `statement_timeout`)."""
        before = self.ask(f"SHOW {name}")[0][0]
        self.ask("SELECT set_config(%s, %s, false)", [name, f"{round(seconds * 1000)}ms"])
        try:
            yield
        finally:
            # A connection that has gone takes its settings along.
            with suppress(UnavailableError):
                self.ask("SELECT set_config(%s, %s, false)", [name, before])

    def close(self) -> None:
        """Hang up."""
        # What can go wrong here is only that the far end has hung up first.
        with suppress(EtlError):
            self._stack.close()


@contextmanager
def slot_errors(slot: str, where: str) -> Iterator[None]:
    """Say what an error means that the server has raised about the slot."""
    try:
        yield
    except EtlError as error:
        # While rows are streamed, the driver gives the server's text without its code.
        code = getattr(error.__cause__, "sqlstate", None) or ""
        text = error.what
        if code == "55006" or "is active for PID" in text:
            raise UnavailableError(
                f"another run follows slot {slot}: {text}",
                where=where,
                fix="let it end; one run at a time reads a slot",
            ) from error
        if "can no longer get changes" in text or "can no longer access" in text:
            raise LogLostError(
                f"slot {slot} is lost, the server has removed log that it needed: {text}", where=where, fix=RESNAPSHOT
            ) from error
        if code == "42704" or re.search(r'(slot|publication) ".*" does not exist', text):
            raise LogLostError(f"slot {slot} cannot go on: {text}", where=where, fix=RESNAPSHOT) from error
        if code == "55000":
            raise LogLostError(f"slot {slot} cannot be read: {text}", where=where, fix=RESNAPSHOT) from error
        raise
