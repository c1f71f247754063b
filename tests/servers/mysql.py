"""A private MariaDB server on a free port of the loopback interface, gone when the test session ends."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pymysql

from tests.servers.process import copies, owned_directory, shared
from tests.servers.proxy import free_port

SUPERUSER = "root"


class MysqlServer:
    """A running server: `port`, databases to be made by `database()`."""

    def __init__(self, directory: Path, *, settings: dict[str, str] | None = None) -> None:
        self.directory, self.port = directory, free_port()
        self.data = directory / "data"
        self.configuration = {
            # A server that starts removes the temporary tables of all others that share its folder for them.
            "tmpdir": str(directory),
            "bind-address": "127.0.0.1", "socket": str(directory / "s.sock"), "pid-file": str(directory / "pid"),
            "log-bin": "binlog", "binlog-format": "ROW", "binlog-row-image": "FULL", "binlog-row-metadata": "FULL",
            "server-id": "1", "gtid-strict-mode": "1", "innodb-flush-log-at-trx-commit": "0",
            "innodb-buffer-pool-size": "64M", "innodb-log-file-size": "64M", "character-set-server": "utf8mb4",
            **(settings or {}),
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def initialise(self) -> None:
        """Make the data directory, in which root needs no password."""
        program = shutil.which("mariadb-install-db")
        if program is None:
            raise RuntimeError("no MariaDB server: run tests/servers/install.sh")
        done = subprocess.run(
            [program, "--no-defaults", f"--datadir={self.data}", *_as_user(), f"--tmpdir={self.directory}",
             "--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=64M"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}\n{done.stderr}")

    def start(self) -> None:
        """Start and wait until connections are taken."""
        program = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
        options = [f"--{name}={value}" for name, value in self.configuration.items()]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "--no-defaults", f"--datadir={self.data}", f"--port={self.port}", "--skip-name-resolve",
                 *_as_user(), *options],
                stdout=log, stderr=log, cwd="/",
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while not self._answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"MariaDB did not start:\n{(self.directory / 'log').read_text()[-3000:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server: SIGTERM shuts down cleanly, SIGKILL is a crash."""
        if self.process is None:
            return
        self.process.send_signal(how)
        self.process.wait(timeout=60)
        self.process = None

    def settings(self, database: str | None = None, **other: Any) -> dict[str, Any]:
        """Return what a MysqlSource needs to connect."""
        given = {"host": "127.0.0.1", "port": self.port, "user": SUPERUSER, "database": database or "mysql"}
        return {**given, "ssl_mode": "disabled", **other}

    def connect(self, database: str | None = None, **options: Any) -> pymysql.Connection[Any]:
        """Return a connection of the superuser that commits every statement, unless told otherwise."""
        given = {"user": SUPERUSER, "autocommit": True, "charset": "utf8mb4", **options}
        if "ssl" not in options:
            given["ssl_disabled"] = True  # the driver would read all authorities of the system each time
        return pymysql.connect(host="127.0.0.1", port=self.port, database=database, **given)

    def execute(self, database: str | None, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements in a connection of their own; return the rows of the last."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def database(self) -> str:
        """Make a database of its own and return its name."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(None, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return name


def _as_user() -> list[str]:
    """Return the option by which a server that root starts gives up being root."""
    return ["--user=mysql"] if os.geteuid() == 0 else []


@contextmanager
def running_mysql(settings: dict[str, str] | None = None) -> Iterator[MysqlServer]:
    """Give a fresh server, whose data are a copy of the first one's, and remove it afterwards."""
    with _own_directory() as directory:
        server = MysqlServer(directory, settings=settings)
        _copy_first(server.data)
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGKILL)  # nothing of it is needed any more


def _own_directory() -> AbstractContextManager[Path]:
    user = pwd.getpwnam("mysql") if os.geteuid() == 0 else None
    return owned_directory("etl-mysql-", user and (user.pw_uid, user.pw_gid))


_copy_first = copies(_own_directory, MysqlServer)
shared_mysql = shared(running_mysql)
