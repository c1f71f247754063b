"""How to reach a RabbitMQ server: settings and connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from etl_resources.resilience import Policy
from etl_resources.secret import Secret
from etl_resources.tls import context

if TYPE_CHECKING:
    import pika


class RabbitmqConnection(dg.ConfigurableResource):
    """Where a server is and how to log in. Nothing connects before it is used."""

    host: str = Field(description="Host name or address.")
    port: int | None = Field(default=None, description="5671, or 5672 without TLS.")
    vhost: str = "/"
    user: str
    password: Secret = Field(description="{env: NAME}.")
    tls: bool = Field(default=True, description="false only for a server on the same machine: all goes in clear.")
    ca_file: str | None = Field(
        default=None, description="File with the certificate of the authority; left out, those of the system."
    )
    resilience: Policy = Policy()

    @property
    def address(self) -> str:
        """Where this points to, for messages."""
        return f"RabbitMQ at {self.host}:{self._port} vhost {self.vhost} as {self.user}"

    @property
    def _port(self) -> int:
        return self.port or (5671 if self.tls else 5672)

    def ping(self) -> bool:
        """Log in and out; raises as `connect`."""
        from etl_resources.rabbitmq_errors import translated

        connection = self.resilience.call(self.connect)
        with translated(self.address):
            connection.close()
        return True

    def connect(self) -> pika.BlockingConnection:
        """Return a connection, at the first attempt or not at all. It belongs to the thread that uses it.

        Raises:
            UnavailableError, CredentialsRejectedError, ConfigurationError
        """
        import logging

        from etl_resources.extras import client
        from etl_resources.rabbitmq_errors import translated

        pika = client("pika", extra="rabbitmq")
        if logging.getLogger("pika").level == logging.NOTSET:
            # It writes every failed attempt with its traceback; the error that is raised says it once.
            logging.getLogger("pika").setLevel(logging.CRITICAL)
        parameters = pika.ConnectionParameters(
            host=self.host, port=self._port, virtual_host=self.vhost,
            credentials=pika.PlainCredentials(self.user, self.password.reveal(), erase_on_connect=True),
            ssl_options=self._tls(), connection_attempts=1, socket_timeout=self.resilience.timeout,
            stack_timeout=self.resilience.timeout, blocked_connection_timeout=self.resilience.silence,
            # The client gives up when it has heard nothing for one heartbeat, the server after two.
            heartbeat=max(1, min(60, round(self.resilience.silence / 2))),
            client_properties={"connection_name": "etl"},
        )  # fmt: skip
        with translated(self.address):
            return pika.BlockingConnection(parameters)

    def _tls(self) -> pika.SSLOptions | None:
        import pika

        if not self.tls:
            return None
        return pika.SSLOptions(context(self.ca_file, where=self.address, setting="ca_file"), self.host)
