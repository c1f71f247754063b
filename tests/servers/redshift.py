"""A private Redshift: the private PostgreSQL and S3 behind `redshift_server`, in a process of its own."""

from __future__ import annotations

import atexit
import functools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.servers.postgres import PostgresServer, shared_postgres
from tests.servers.proxy import free_port
from tests.servers.s3 import BUCKET, S3, shared_s3

USER, PASSWORD = "etl", "the password"
ROLE = "arn:aws:iam::123456789012:role/unload"
UNLOAD = {"to": f"s3://{BUCKET}/unloaded"}
_GETDATE = (
    "CREATE FUNCTION getdate() RETURNS timestamp LANGUAGE sql AS"
    " $$ SELECT date_trunc('second', clock_timestamp() AT TIME ZONE 'UTC') $$"
)


@dataclass(frozen=True)
class Redshift:
    """A running server, and those behind it."""

    port: int
    postgres: PostgresServer
    s3: S3

    def database(self) -> str:
        """Make a database of its own and return its name."""
        name = self.postgres.database()
        self.execute(name, _GETDATE)
        return name

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """Return a connection to the PostgreSQL behind it that commits every statement."""
        return self.postgres.connect(database)

    def execute(self, database: str, *statements: str) -> None:
        """Run statements in the PostgreSQL behind it."""
        with self.connect(database) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def settings(self, database: str, **other: Any) -> dict[str, Any]:
        """Return what a RedshiftSource needs to connect, by way of S3 too."""
        os.environ["TEST_REDSHIFT_PASSWORD"] = PASSWORD
        store = {"options": self.s3.options, "secrets": self.s3.secrets, "client_options": self.s3.client_options}
        given = {
            "host": "127.0.0.1", "port": self.port, "database": database, "user": USER, "sslmode": "disable",
            "password": {"env": "TEST_REDSHIFT_PASSWORD"}, "store": store, "iam_role": ROLE,
        }  # fmt: skip
        return {**given, **other}


@contextmanager
def running_redshift(port: int | None = None, certificate: Path | None = None) -> Iterator[Redshift]:
    """Start a server; with a `certificate` (file with certificate and key) it speaks TLS. Takes a second."""
    postgres, s3, port = shared_postgres(), shared_s3(), port or free_port()
    script = str(Path(__file__).with_name("redshift_server.py"))
    # -P: beside the script there are modules that are called like packages.
    words = [sys.executable, "-P", script, str(port), str(postgres.port), str(s3.port), PASSWORD]
    server = subprocess.Popen(
        words + ([str(certificate)] if certificate else []), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(port, server)
        yield Redshift(port, postgres, s3)
    finally:
        server.terminate()
        server.wait(10)


@functools.cache
def shared_redshift() -> Redshift:
    """Return a server that all tests of this process share, each in a database of its own, until the process ends."""
    running = ExitStack()
    atexit.register(running.close)
    return running.enter_context(running_redshift())


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert server.poll() is None, "the server ended"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError("the server did not start")
