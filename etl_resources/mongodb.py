"""How to reach a MongoDB deployment: settings and clients, shared by everything that speaks to one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, field_validator

from etl_resources.exceptions import ConfigurationError
from etl_resources.resilience import Policy
from etl_resources.secret import Secret

if TYPE_CHECKING:
    import pymongo

EXTRA = "mongodb"
# Options of a URI that would switch off what is on, or carry a secret, past the fields that say so.
_OWN_FIELDS = re.compile(
    r"(tls|ssl|auth|readconcern|readpreference|serverselectiontimeout|sockettimeout|connecttimeout|timeoutms)",
    re.IGNORECASE,
)


class MongoConnection(dg.ConfigurableResource):
    """Where a deployment is and how to log in. Nothing connects before it is used."""

    uri: str = Field(
        description="mongodb://host1,host2/?replicaSet=rs0 or mongodb+srv://name, without user and password."
    )
    database: str
    user: str | None = Field(default=None, description="Left out where the server asks for none.")
    password: Secret | None = Field(default=None, description="{env: NAME}.")
    auth_source: str = Field(default="admin", description="Database that keeps the user.")
    auth_mechanism: str | None = Field(
        default=None, pattern="^(SCRAM-SHA-256|SCRAM-SHA-1|PLAIN|MONGODB-X509)$",
        description="SCRAM-SHA-256, SCRAM-SHA-1, PLAIN or MONGODB-X509; left out, server and client agree on one.",
    )  # fmt: skip
    tls: bool = Field(default=True, description="False only for a server on the same machine.")
    tls_ca_file: str | None = Field(
        default=None, description="File with the certificate authority; left out, those that the system trusts."
    )
    tls_certificate_key_file: str | None = Field(default=None, description="File with a client certificate and key.")
    read_preference: str = Field(
        default="primary", pattern="^(primary|primaryPreferred|secondary|secondaryPreferred|nearest)$",
        description="Which members of a replica set are read: primary, primaryPreferred, secondary,"
        " secondaryPreferred or nearest.",
    )  # fmt: skip
    resilience: Policy = Policy()

    @field_validator("uri")
    @classmethod
    def _no_secret_in_the_uri(cls, uri: str) -> str:
        """Not a ValueError: its message would show the value, which may hold a password."""
        address, _, options = uri.partition("?")
        if not address.startswith(("mongodb://", "mongodb+srv://")):
            raise ConfigurationError("`uri` does not begin with mongodb:// or mongodb+srv://")
        if "@" in uri:
            raise ConfigurationError(
                "`uri` holds a user or a password", fix="give `user`, and `password: {env: NAME_OF_A_VARIABLE}`"
            )
        if taken := sorted({o.partition("=")[0] for o in re.split("[&;]", options) if _OWN_FIELDS.match(o)}):
            raise ConfigurationError(
                f"{', '.join(taken)} in `uri`: there is a setting of the connection for it",
                fix="tls, tls_ca_file, auth_source, auth_mechanism, read_preference, resilience",
            )
        return uri

    @property
    def address(self) -> str:
        """Where this points to, for messages."""
        hosts = re.sub(r"^mongodb(\+srv)?://", "", self.uri).partition("/")[0]
        return f"MongoDB database {self.database} at {hosts}" + (f" as {self.user}" if self.user else "")

    def _settings(self) -> dict[str, Any]:
        milliseconds = round(self.resilience.timeout * 1000)
        settings: dict[str, Any] = {
            "tls": self.tls, "readPreference": self.read_preference, "appname": "etl", "tz_aware": True,
            "uuidRepresentation": "standard",
            "serverSelectionTimeoutMS": milliseconds, "connectTimeoutMS": milliseconds,
            "socketTimeoutMS": round(self.resilience.silence * 1000),
            "tlsCAFile": self.tls_ca_file, "tlsCertificateKeyFile": self.tls_certificate_key_file,
        }  # fmt: skip
        if self.user is not None or self.auth_mechanism is not None:
            settings |= {
                "username": self.user, "password": self.password.reveal() if self.password else None,
                "authSource": "$external" if self.auth_mechanism in {"PLAIN", "MONGODB-X509"} else self.auth_source,
                "authMechanism": self.auth_mechanism,
            }  # fmt: skip
        return {name: value for name, value in settings.items() if value is not None}

    @contextmanager
    def client(self) -> Iterator[pymongo.MongoClient[Any]]:
        """Give a client that has reached a server and logged in.

        Raises:
            UnavailableError, CredentialsRejectedError, ConfigurationError: as their names say.
        """
        from etl_resources.extras import client
        from etl_resources.mongodb_errors import translated

        mongo = client("pymongo", extra=EXTRA)

        def connect() -> pymongo.MongoClient[Any]:
            with translated(self.address):
                made: pymongo.MongoClient[Any] = mongo.MongoClient(self.uri, **self._settings())
                try:
                    made.get_database(self.database).command("hello", read_preference=made.read_preference)
                except BaseException:
                    made.close()
                    raise
                return made

        with translated(self.address), self.resilience.call(connect) as connected:
            yield connected

    def ping(self) -> bool:
        """Log in and out; raises as `client`."""
        with self.client():
            return True
