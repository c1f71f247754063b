"""How to reach a SQL Server: settings and connections."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from etl_resources.resilience import Policy
from etl_resources.secret import Secret

if TYPE_CHECKING:
    from etl_resources.sqlserver_session import Session


class SqlServerConnection(dg.ConfigurableResource):
    """Where a server is and how to log in. Nothing connects before it is used."""

    host: str = Field(description="Host name or address.")
    port: int = 1433
    database: str
    user: str
    password: Secret
    encrypt: str = Field(
        default="yes",
        pattern="^(yes|strict|no)$",
        description="yes, strict (TDS 8), or no; no only for a server on the same machine.",
    )
    trust_server_certificate: bool = Field(default=False, description="Encrypt, and take any certificate.")
    hostname_in_certificate: str | None = Field(
        default=None, description="Name that the certificate may bear instead of that of `host`."
    )
    server_certificate: str | None = Field(
        default=None, description="With `encrypt: strict`: file with the one certificate that is taken."
    )
    statement_timeout: float = Field(
        default=0.0, ge=0, description="Seconds until a statement's first row; 0: as long as `silence` allows."
    )
    resilience: Policy = Policy()

    @property
    def address(self) -> str:
        """Where this points to, for messages."""
        return f"SQL Server database {self.database} at {self.host}:{self.port} as {self.user}"

    def _settings(self) -> str:
        given = {
            "Server": f"{self.host},{self.port}", "Database": self.database, "UID": self.user,
            "PWD": self.password.reveal(), "Encrypt": self.encrypt,
            "TrustServerCertificate": "yes" if self.trust_server_certificate else "no",
            "HostnameInCertificate": self.hostname_in_certificate, "ServerCertificate": self.server_certificate,
            # A connection that the driver mends on its own has lost its transaction, and the read its snapshot.
            "ConnectRetryCount": "0",
        }  # fmt: skip
        return ";".join(f"{name}={_braced(value)}" for name, value in given.items() if value is not None)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session in which every statement commits by itself unless a transaction was begun by one.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError, ConfigurationError, EngineError
        """
        from etl_resources.extras import client
        from etl_resources.sqlserver_session import Session

        driver = client("mssql_python", extra="sqlserver")
        driver.pooling(enabled=False)  # a connection out of a pool comes with the isolation level of the one before
        session = Session(*self.resilience.call(self._connect, driver), self.address)
        try:
            yield session
        finally:
            session.close()

    def _connect(self, driver: Any) -> tuple[Any, Any]:
        from etl_resources.lifeline import Lifeline
        from etl_resources.sqlserver_errors import translated

        def connect() -> Any:
            return driver.connect(self._settings(), autocommit=True, timeout=max(1, math.ceil(self.resilience.timeout)))

        with translated(self.address):
            connection, lifeline = Lifeline.of(connect, (self.host, self.port), self.resilience.silence, self.address)
            connection.timeout = math.ceil(self.statement_timeout)
        return connection, lifeline

    def ping(self) -> bool:
        """Log in and out; raises as `session`."""
        with self.session() as session:
            session.value("SELECT 1")
        return True


def _braced(value: str) -> str:
    return "{" + value.replace("}", "}}") + "}"
