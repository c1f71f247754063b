"""How to reach Redshift: settings and connections, shared by whatever reads or writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field, model_validator

from etl_resources.extras import client
from etl_resources.redshift_login import Iam, Login
from etl_resources.resilience import Policy
from etl_resources.secret import Secret
from etl_resources.unloaded import ObjectStore

if TYPE_CHECKING:
    from redshift_connector import Connection

    from etl_resources.redshift_session import Session


class RedshiftConnection(dg.ConfigurableResource):
    """Where a cluster or workgroup is and how to log in. Nothing connects before it is used.

    Amazon's own driver connects, and not Dagster's resource around psycopg2: that one holds the password itself,
    checks no certificate unless told otherwise, writes every statement to the log and fetches results whole.
    """

    host: str = Field(description="Endpoint of the cluster or workgroup.")
    port: int = 5439
    database: str
    user: str | None = Field(default=None, description="By `iam` it may be left out: AWS makes it of who asks.")
    password: Secret | None = Field(default=None, description="{env: NAME}")
    iam: Iam | None = Field(
        default=None, description="Instead of a password: {region: …, cluster: …} or {region: …, workgroup: …}."
    )
    sslmode: Literal["verify-full", "verify-ca", "disable"] = Field(
        default="verify-full",
        description="verify-full, verify-ca or disable; disable only for a server on this machine.",
    )
    statement_timeout: float = Field(
        default=3600.0, gt=0, description="Seconds until a query has to give its first row, or an UNLOAD its end."
    )
    iam_role: str | None = Field(
        default=None,
        description="For `unload`: ARN of the role that writes to S3, or `default`; left out, `store`'s keys.",
    )
    store: ObjectStore = Field(default=ObjectStore(), description="For `unload`: how this machine reaches the objects.")
    resilience: Policy = Policy()

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> RedshiftConnection:
        if (self.password is None) == (self.iam is None):
            raise ValueError("give one of `password` and `iam`")
        if self.iam is not None:
            self.iam.check(self.user)
        elif self.user is None:
            raise ValueError("give the `user` whose `password` it is")
        return self

    @property
    def address(self) -> str:
        """Where this points to, for messages."""
        who = self.user or "the user that AWS names"
        return f"Redshift database {self.database} at {self.host}:{self.port} as {who}"

    def _login(self) -> Login:
        if self.iam is not None:
            return self.iam.login(self.user, self.database, self.resilience)
        assert self.user is not None  # noqa: S101 - as was checked
        assert self.password is not None  # noqa: S101 - the same
        return Login(self.user, self.password.reveal())

    def _connect(self) -> Connection:
        driver = client("redshift_connector", extra="redshift")
        client("numpy", extra="redshift")
        from etl_resources.redshift_errors import translated

        login = self._login()
        settings: dict[str, Any] = {
            "host": self.host, "port": self.port, "database": self.database, "user": login.user,
            "password": login.password, "ssl": self.sslmode != "disable", "timeout": self.resilience.timeout,
            "application_name": "etl", "client_protocol_version": 0,
            # A far end that vanished without a word while a statement runs is noticed within two minutes.
            "tcp_keepalive": True, "tcp_keepalive_idle": 30, "tcp_keepalive_interval": 10, "tcp_keepalive_count": 9,
        }  # fmt: skip
        if self.sslmode != "disable":
            settings["sslmode"] = self.sslmode
        with translated(self.address):
            connection: Connection = driver.connect(**settings)
        return connection

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session whose times are in UTC.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError, ConfigurationError, EngineError
        """
        from etl_resources.redshift_session import Session

        waits = self.resilience

        def start() -> Session:
            session = Session(
                self._connect(), self.address, silence=waits.silence, longest=max(self.statement_timeout, waits.silence)
            )
            # Else a double loses digits on its way.
            session.execute("SET timezone TO 'UTC'", "SET datestyle TO 'ISO'", "SET extra_float_digits TO 2")
            return session

        session = self.resilience.call(start)
        try:
            yield session
        finally:
            session.close()

    def ping(self) -> bool:
        """Log in and out; raises as `session`."""
        with self.session() as session:
            session.rows("SELECT 1")
        return True
