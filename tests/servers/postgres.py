"""A private PostgreSQL server on a free port of the loopback interface, gone when the test session ends."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.servers.process import copies, owned_directory, shared
from tests.servers.proxy import free_port

SUPERUSER = "postgres"
# The driver reads all types whenever it connects, and the row types of the catalogue, each a tree of others, cost it
# four fifths of the time. No test reads rows of the catalogue as values, so they are hidden from it.
_HIDE_ROW_TYPES = (
    "UPDATE pg_type SET typreceive = 0, typsend = 0 WHERE (typtype = 'c' OR typelem IN (SELECT oid FROM pg_type"
    " WHERE typtype = 'c')) AND typnamespace IN (SELECT oid FROM pg_namespace"
    " WHERE nspname IN ('pg_catalog', 'pg_toast', 'information_schema'))\n"
)


def binaries() -> Path:
    """Return the newest folder that holds PostgreSQL's server programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if not found:
        raise RuntimeError("no PostgreSQL server under /usr/lib/postgresql: run tests/servers/install.sh")
    return found[-1]


class PostgresServer:
    """A running server: `port`, databases to be made by `database()`, roles by `role()`."""

    def __init__(self, directory: Path, *, settings: dict[str, str] | None = None) -> None:
        self.directory, self.port = directory, free_port()
        self.data = directory / "data"
        self.configuration = {
            "listen_addresses": "127.0.0.1", "unix_socket_directories": str(directory), "wal_level": "logical",
            "max_replication_slots": "10", "max_wal_senders": "10", "max_prepared_transactions": "10", "fsync": "off",
            "shared_buffers": "128MB", "max_wal_size": "4GB", "log_line_prefix": "%m [%p] ",
            "wal_init_zero": "off", "autovacuum": "off",  # the latter takes transaction numbers whenever it likes
            **(settings or {}),
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def run(self, program: str, *args: str, given: str | None = None) -> None:
        """Run one of PostgreSQL's programs to its end as the user of the server."""
        done = subprocess.run(
            [binaries() / program, *args], capture_output=True, text=True, check=False, input=given, **self.demoted()
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}\n{done.stderr}")

    def initialise(self) -> None:
        """Make the data directory. Local connections are trusted, except for the role `limited`, which needs a
        password."""
        self.run("initdb", "-D", str(self.data), "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        hba = self.data / "pg_hba.conf"
        hba.write_text("host all limited 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
        for database in ("template1", "postgres"):
            self.run("postgres", "--single", "-O", "-D", str(self.data), database, given=_HIDE_ROW_TYPES)

    def start(self) -> None:
        """Start and wait until connections are taken."""
        options = [word for name, value in self.configuration.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [binaries() / "postgres", "-D", self.data, "-p", str(self.port), *options],
                stdout=log, stderr=log, **self.demoted(),
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while not self._answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.directory / 'log').read_text()[-3000:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT cuts connections and shuts down cleanly, SIGQUIT is a crash."""
        if self.process is None:
            return
        self.process.send_signal(how)
        self.process.wait(timeout=30)
        self.process = None

    def dsn(self, database: str = "postgres") -> str:
        return f"host=127.0.0.1 port={self.port} user={SUPERUSER} dbname={database} sslmode=disable"

    def settings(self, database: str = "postgres", **other: Any) -> dict[str, Any]:
        """Return what a PostgresSource or PostgresTarget needs to connect."""
        given = {"host": "127.0.0.1", "port": self.port, "database": database, "user": SUPERUSER}
        return {**given, "sslmode": "disable", **other}

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """Return a connection of the superuser that commits every statement."""
        return psycopg.connect(self.dsn(database), autocommit=True, **options)

    def database(self) -> str:
        """Make a database of its own and return its name."""
        self._databases += 1
        name = f"test_{self._databases}"
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def emptied_database(self) -> str:
        """Return a database with nothing in it: always the same one, which is quicker than making another."""
        name = "emptied"
        with self.connect() as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchall():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
                return name
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [name]
            )
        with self.connect(name) as connection:
            schemas = connection.execute(
                "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"
            ).fetchall()
            for (schema,) in schemas:
                connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
            connection.execute("CREATE SCHEMA public")
            connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
        return name

    @staticmethod
    def demoted() -> dict[str, Any]:
        """Return how to start a program so that it does not run as root, which PostgreSQL refuses."""
        if os.geteuid() != 0:
            return {"cwd": "/"}
        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                user = pwd.getpwnam(name)
                return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
        raise RuntimeError("running as root, and there is neither a user postgres nor nobody")


@contextmanager
def running_postgres(settings: dict[str, str] | None = None) -> Iterator[PostgresServer]:
    """Give a fresh server and remove it afterwards: a copy of the first one, with the same identifier."""
    with _own_directory() as directory:
        server = PostgresServer(directory, settings=settings)
        _copy_first(server.data)
        with _running(server):
            yield server


@contextmanager
def running_replica(primary: PostgresServer) -> Iterator[PostgresServer]:
    """Give a hot standby of the primary, which follows it until it is promoted or removed."""
    with _own_directory() as directory:
        server = PostgresServer(directory)
        where = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", SUPERUSER]
        server.run("pg_basebackup", *where, "-D", str(server.data), "-R", "-X", "stream", "-c", "fast")
        with _running(server):
            yield server


def _own_directory() -> AbstractContextManager[Path]:
    own = PostgresServer.demoted()
    return owned_directory("etl-postgres-", (own["user"], own["group"]) if "user" in own else None)


@contextmanager
def _running(server: PostgresServer) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.stop(signal.SIGQUIT)  # nothing of it is needed any more


_copy_first = copies(_own_directory, PostgresServer)
shared_postgres = shared(running_postgres)
