"""A private server that speaks SQL Server's protocol, in a process of its own (see docs/connectors/sqlserver.md)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from etl_resources.secret import Secret
from tests.servers.process import shared
from tests.servers.proxy import free_port

USER, PASSWORD, VARIABLE = "etl", "Str0ng;Pass'}word", "TEST_SQLSERVER_PASSWORD"
ROOT = Path(__file__).parents[2]


class TdsServer:
    """A running server: `port`, and statements of a test through a connection of its own."""

    def __init__(
        self, directory: Path, *, certificate: tuple[Path, Path] | None = None, last_digit: int = 0
    ) -> None:  # fmt: skip
        self.directory, self.certificate, self.port = directory, certificate, free_port()
        self._environment = {"TDS_PASSWORD": PASSWORD, "TDS_LAST_DIGIT": str(last_digit)}
        self.process: subprocess.Popen[bytes] | None = None
        os.environ[VARIABLE] = PASSWORD

    def start(self) -> None:
        """Start with an empty database, and wait until connections are taken."""
        command = [sys.executable, "-m", "tests.servers.tds_server", str(self.port), *map(str, self.certificate or ())]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **self._environment}, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self.process.stdout
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the TDS server did not start:\n{(self.directory / 'log').read_text()[-3000:]}")

    def stop(self) -> None:
        """Kill the server: it has nothing to save."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def settings(self, **other: Any) -> dict[str, Any]:
        """Return what a SqlServerSource needs to connect."""
        given = {"host": "127.0.0.1", "port": self.port, "database": "master", "user": USER}
        return {**given, "password": Secret(env=VARIABLE), "encrypt": "no", **other}

    def connect(self, *, autocommit: bool = True) -> Any:
        """Return a connection of the real client."""
        import mssql_python

        mssql_python.pooling(enabled=False)
        encrypt = "Encrypt=yes;TrustServerCertificate=yes" if self.certificate else "Encrypt=no"
        password = PASSWORD.replace("}", "}}")
        return mssql_python.connect(
            f"Server=127.0.0.1,{self.port};Database=master;UID={USER};PWD={{{password}}};{encrypt}",
            autocommit=autocommit,
        )

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements, each committed by itself, and return the rows of the last."""
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def load(self, table: str, data: pa.Table) -> None:
        """Add rows to a table, through a file that both processes see."""
        with tempfile.NamedTemporaryFile(dir=self.directory, suffix=".parquet") as file:
            pq.write_table(data, file.name)
            self.execute(f"EXEC tds_load N'{table.replace(chr(39), chr(39) * 2)}', N'{file.name}'")


@contextmanager
def running_tds(**settings: Any) -> Iterator[TdsServer]:
    """Give a fresh server and remove it afterwards. Takes about half a second."""
    with tempfile.TemporaryDirectory(prefix="etl-tds-") as directory:
        server = TdsServer(Path(directory), **settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()


shared_tds = shared(running_tds)
