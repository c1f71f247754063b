"""How to reach a MySQL or MariaDB server: settings and connections, shared by whatever talks to one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from etl_resources import tls
from etl_resources.extras import client
from etl_resources.resilience import Policy
from etl_resources.secret import Secret

if TYPE_CHECKING:
    import pymysql

    from etl_resources.mysql_session import Session

_CHECKS: dict[str, tls.Check] = {"verify_identity": "identity", "verify_ca": "authority", "required": "nothing"}
_NEVER = 31_536_000


class MysqlConnection(dg.ConfigurableResource):
    """Where a server is and how to log in. Nothing connects before it is used."""

    host: str = Field(description="Host name or address.")
    port: int = 3306
    database: str
    user: str
    password: Secret | None = Field(default=None, description="{env: NAME}; left out where the server asks for none.")
    ssl_mode: str = Field(
        default="verify_identity",
        # MySQL's own `preferred` is left out: it goes on in clear text without a word.
        pattern="^(verify_identity|verify_ca|required|disabled)$",
        description="verify_identity, verify_ca, required (encrypted, to whomever) or disabled; disabled only for a"
        " server on the same machine.",
    )
    ssl_ca: str | None = Field(
        default=None, description="File with the certificate authority's certificate; those of the system else."
    )
    statement_timeout: float = Field(default=0.0, ge=0, description="Seconds one query may take; 0: any time.")
    resilience: Policy = Policy()

    @property
    def address(self) -> str:
        """Where this points to, for messages."""
        return f"MySQL database {self.database} at {self.host}:{self.port} as {self.user}"

    def _tls(self) -> dict[str, Any]:
        if self.ssl_mode == "disabled":
            return {"ssl_disabled": True}
        return {"ssl": tls.context(self.ssl_ca, where=self.address, setting="ssl_ca", check=_CHECKS[self.ssl_mode])}

    def _connect(self) -> pymysql.Connection[Any]:
        driver = client("pymysql", extra="mysql")
        client("numpy", extra="mysql")
        from etl_resources.mysql_errors import translated

        policy = self.resilience
        with translated(self.address):
            connection: pymysql.Connection[Any] = driver.connect(
                host=self.host, port=self.port, database=self.database, user=self.user,
                password=self.password.reveal().encode() if self.password else "",
                charset="utf8mb4", autocommit=True, local_infile=False,
                connect_timeout=policy.timeout, read_timeout=policy.timeout, write_timeout=policy.silence,
                program_name="etl", **self._tls(),
            )  # fmt: skip
        # From here on the server may take its time to answer; the driver looks at this before it reads.
        connection._read_timeout = policy.silence  # noqa: SLF001
        return connection

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session whose times are in UTC; transactions are begun and ended by statements.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError, ConfigurationError, EngineError
        """
        from etl_resources.mysql_session import Session

        def start() -> Session:
            session = Session(self._connect(), self.address)
            # A reader that waits for a slow lake must not be taken for one that is gone.
            session.execute(
                f"SET SESSION time_zone = '+00:00', net_write_timeout = {_NEVER}, wait_timeout = {_NEVER}",
                "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            )
            if self.statement_timeout:
                limit = self.statement_timeout
                session.execute(
                    f"SET SESSION max_statement_time = {limit}"
                    if session.is_mariadb
                    else f"SET SESSION max_execution_time = {round(limit * 1000)}"
                )
            return session

        session = self.resilience.call(start)
        try:
            yield session
        finally:
            session.close()

    def ping(self) -> bool:
        """Log in and out; raises as `session`."""
        with self.session() as session:
            session.value("SELECT 1")
        return True
