"""How to reach a PostgreSQL server: settings and connections, shared by the source, the target and the change log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from etl_resources.resilience import Policy
from etl_resources.secret import Secret

if TYPE_CHECKING:
    import psycopg

    from etl_resources.lifeline import Lifeline
    from etl_resources.postgres_session import Session


class PostgresConnection(dg.ConfigurableResource):
    """Where a server is and how to log in. Nothing connects before it is used."""

    host: str = Field(description="Host name or address.")
    port: int = 5432
    database: str
    user: str
    password: Secret | None = Field(default=None, description="{env: NAME}; left out where the server asks for none.")
    sslmode: str = Field(
        default="verify-full",
        # libpq's `allow` and `prefer` are left out: they go on in clear text without a word.
        pattern="^(verify-full|verify-ca|require|disable)$",
        description="verify-full, verify-ca, require or disable; disable only for a server on the same machine.",
    )
    sslrootcert: str | None = Field(
        default=None,
        description="File with the certificate authority's certificate, or `system`; libpq's default else.",
    )
    statement_timeout: float = Field(default=0.0, ge=0, description="Seconds one statement may take; 0: any time.")
    resilience: Policy = Policy()

    @property
    def address(self) -> str:
        """Where this points to, for messages."""
        return f"PostgreSQL database {self.database} at {self.host}:{self.port} as {self.user}"

    def _conninfo(self) -> str:
        from psycopg.conninfo import make_conninfo

        settings: dict[str, Any] = {
            "host": self.host, "port": self.port, "dbname": self.database, "user": self.user,
            "password": self.password.reveal() if self.password else None, "sslmode": self.sslmode,
            "sslrootcert": self.sslrootcert, "connect_timeout": max(2, round(self.resilience.timeout)),
            "application_name": "etl", "client_encoding": "UTF8",
            # A far end that vanished without a word is noticed within two minutes instead of two hours.
            "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 5, "tcp_user_timeout": 120_000,
        }  # fmt: skip
        return make_conninfo(**{name: value for name, value in settings.items() if value is not None})

    @contextmanager
    def client(self, *, replication: bool = False) -> Iterator[psycopg.Connection[Any]]:
        """Give a connection for catalogue queries with parameters; every statement commits by itself.

        With `replication` it also takes the commands of the replication protocol, and no parameters.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError, ConfigurationError, EngineError
        """
        import psycopg

        from etl_resources.postgres_errors import translated

        def connect() -> psycopg.Connection[Any]:
            with translated(self.address):
                more: dict[str, Any] = {"replication": "database"} if replication else {}
                return psycopg.connect(self._conninfo(), autocommit=True, **more)

        with translated(self.address), self.resilience.call(connect) as connection:
            yield connection

    def ping(self) -> bool:
        """Log in and out; raises as `client`."""
        with self.client() as connection:
            connection.execute("SELECT 1")
        return True

    def lifeline(self, client: psycopg.Connection[Any]) -> Lifeline:
        """Return what hangs up on a connection of `client` when the server is gone without a word."""
        from etl_resources.postgres_watch import lifeline

        return lifeline(client, self._conninfo(), self.resilience, self.address)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session that moves Arrow record batches; transactions are begun and ended by statements.

        A server that says nothing for `resilience.silence` seconds, and is not at work, is gone.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError, ConfigurationError
        """
        session = self.resilience.call(self._begin)
        try:
            if self.statement_timeout:
                session.execute(f"SET statement_timeout = {round(self.statement_timeout * 1000)}")
            yield session
        finally:
            session.close()

    def _begin(self) -> Session:
        from adbc_driver_postgresql import dbapi

        from etl_resources.lifeline import Lifeline
        from etl_resources.postgres_errors import translated
        from etl_resources.postgres_session import Session
        from etl_resources.postgres_watch import at_work

        def connect() -> dbapi.Connection:
            with translated(self.address):
                return dbapi.connect(self._conninfo(), autocommit=True)

        policy = self.resilience
        connection, line = Lifeline.of(connect, (self.host, self.port), policy.silence, self.address)
        with translated(self.address), line.watched(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            ((pid,),) = cursor.fetchall()
        line.at_work = at_work(self._conninfo(), pid, policy, self.address)
        return Session(connection, self.address, line)
