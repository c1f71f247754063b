"""How to reach Snowflake: settings and connections, shared by whatever reads or writes it."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field, model_validator

from etl_resources.exceptions import ConfigurationError, UnavailableError
from etl_resources.extras import client
from etl_resources.resilience import Policy
from etl_resources.secret import Secret

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection as Client

LONGEST_STATEMENT = 7 * 86_400
"""Seconds that Snowflake itself lets a statement run at the most."""


class SnowflakeConnection(dg.ConfigurableResource):
    """Where an account is and how to log in. Nothing connects before it is used.

    Snowflake's own client, and not Dagster's resource around it: that one holds the password itself, and takes seconds
    to import, as it brings Snowpark along.
    """

    account: str = Field(description="Account identifier, e.g. `myorg-myaccount`.")
    user: str
    password: Secret | None = Field(default=None, description="{env: NAME}")
    private_key: Secret | None = Field(default=None, description="{env: NAME} of the PEM text of the user's key.")
    private_key_passphrase: Secret | None = None
    token: Secret | None = Field(default=None, description="{env: NAME} of an OAuth or programmatic access token.")
    authenticator: str | None = Field(
        default=None, description="With `token`: `oauth` or `programmatic_access_token` (left out, the latter)."
    )
    database: str
    default_schema: str = Field(default="PUBLIC", description="Schema of tables that are named without one.")
    warehouse: str | None = Field(default=None, description="Left out, the user's own.")
    role: str | None = Field(default=None, description="Left out, the user's own.")
    host: str | None = Field(default=None, description="Left out, `<account>.snowflakecomputing.com`.")
    port: int = 443
    protocol: Literal["https", "http"] = Field(
        default="https", description="http only for a server on the same machine."
    )
    statement_timeout: int = Field(
        default=0, ge=0, description="Seconds one statement may take; 0: as the account has it."
    )
    resilience: Policy = Policy()

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> SnowflakeConnection:
        if sum(way is not None for way in (self.password, self.private_key, self.token)) != 1:
            raise ValueError("give one of `password`, `private_key` and `token`")
        return self

    @property
    def address(self) -> str:
        """Where this points to, for messages."""
        return f"Snowflake database {self.database} of {self.host or self.account} as {self.user}"

    def ping(self) -> bool:
        """Log in and out; raises as `client`."""
        with self.client():
            return True

    @contextmanager
    def client(self, *, fetches: int = 2) -> Iterator[Client]:
        """Give a connection; every statement commits by itself. `fetches`: parts of a result that are got ahead.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError, ConfigurationError
        """
        connector = client("snowflake.connector", extra="snowflake")
        from etl_resources.snowflake_errors import translated

        settings = self._settings(fetches)
        for talkative in ("result_batch", "vendored.urllib3.connectionpool"):
            # They warn with addresses whose signature opens a part of a result; what fails for good is raised anyway.
            logging.getLogger(f"snowflake.connector.{talkative}").setLevel(logging.CRITICAL)

        def connect() -> Client:
            with translated(self.address):
                opened: Client = connector.connect(**settings)
            return opened

        connection = self.resilience.call(connect)
        try:
            yield connection
        finally:
            connection.close(retry=False)

    def _settings(self, fetches: int) -> dict[str, Any]:
        waits = self.resilience
        session: dict[str, Any] = {
            "TIMEZONE": "UTC", "CLIENT_TELEMETRY_ENABLED": False, "CLIENT_RESULT_CHUNK_SIZE": 48, "QUERY_TAG": "etl",
        }  # fmt: skip
        if self.statement_timeout:
            session["STATEMENT_TIMEOUT_IN_SECONDS"] = self.statement_timeout
        settings: dict[str, Any] = {
            "account": self.account, "user": self.user, "database": self.database, "schema": self.default_schema,
            "warehouse": self.warehouse, "role": self.role, "host": self.host, "port": self.port,
            "protocol": self.protocol, "login_timeout": max(1, round(waits.timeout)),
            "socket_timeout": max(1, round(waits.silence)), "client_prefetch_threads": fetches,
            # The client cancels statements that take longer; that it does not ask for ever is seen to by `_waits`.
            "network_timeout": self.statement_timeout or LONGEST_STATEMENT,
            "backoff_policy": lambda: _waits(waits, self.address), "session_parameters": session,
            # Else decimals become floating-point numbers.
            "arrow_number_to_decimal": True,
            # Else it asks the cloud's metadata service where it runs.
            "platform_detection_timeout_seconds": 0.0,
        }  # fmt: skip
        given = {name: value for name, value in settings.items() if value is not None}
        return given | self._credentials()

    def _credentials(self) -> dict[str, Any]:
        if self.password is not None:
            return {"password": self.password.reveal()}
        if self.token is not None:
            kind = self.authenticator or "programmatic_access_token"
            return {"token": self.token.reveal(), "authenticator": kind}
        assert self.private_key is not None  # noqa: S101 - one of the three is given
        phrase = self.private_key_passphrase.reveal().encode() if self.private_key_passphrase else None
        return {"private_key": _der(self.private_key, phrase), "authenticator": "SNOWFLAKE_JWT"}


def _der(key: Secret, phrase: bytes | None) -> bytes:
    """Return a key as the client takes it."""
    client("snowflake.connector", extra="snowflake")  # which brings cryptography
    from cryptography.hazmat.primitives import serialization

    try:
        loaded = serialization.load_pem_private_key(key.reveal().encode(), phrase)
    except (ValueError, TypeError):
        raise ConfigurationError(
            f"environment variable {key.env} holds no private key in PEM form, or one of another passphrase",
            fix="give the text between and with the BEGIN and END lines",
        ) from None
    plain = serialization.NoEncryption()
    return loaded.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, plain)


def _waits(policy: Policy, where: str) -> Iterator[float]:
    """Yield how long the client waits between its own attempts at one request.

    Raises:
        UnavailableError: there were as many as the policy allows.
    """
    for failures in range(1, policy.attempts + 1):
        yield random.uniform(0, policy.ceiling(failures))  # noqa: S311 - spreads load, guards nothing
    raise UnavailableError(
        f"Snowflake did not answer, or broke off, {policy.attempts} times in a row",
        where=where,
        fix="look at the network between; run again",
    )
