"""A private Snowflake: fakesnow in an environment and a process of its own, behind `snowflake_server`.

fakesnow wants versions of its own (of Snowflake's client, for one), so it is installed once into a cache folder outside
of the repository. Where that is impossible, the tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import pytest

from tests.servers.process import running_process, shared
from tests.servers.proxy import free_port
from tests.servers.s3 import BUCKET, S3, shared_s3

VERSION = "0.12.1"
NEEDS = (f"fakesnow[server]=={VERSION}", "snowflake-connector-python==4.8.1")
USER, PASSWORD = "ETL", "the password"
ROWS_PER_CHUNK = 20_000
INTEGRATION = "UNLOADS"
UNLOAD = {"to": f"s3://{BUCKET}/snowflake"}


@dataclass(frozen=True)
class Snowflake:
    """A running server; every database name that is used comes into being."""

    port: int
    s3: S3

    def settings(self, **other: Any) -> dict[str, Any]:
        """Return what a SnowflakeSource needs to connect."""
        os.environ["TEST_SNOWFLAKE_PASSWORD"] = PASSWORD
        given = {
            "account": "fakesnow", "user": USER, "password": {"env": "TEST_SNOWFLAKE_PASSWORD"}, "database": "TEST",
            "default_schema": "PUBLIC", "host": "127.0.0.1", "port": self.port, "protocol": "http",
            "storage_integration": INTEGRATION, "store": {
                "options": self.s3.options, "secrets": self.s3.secrets, "client_options": self.s3.client_options,
            },
        }  # fmt: skip
        return {**given, **other}

    def connect(self) -> Any:
        """Return a connection of Snowflake's own client."""
        import snowflake.connector

        return snowflake.connector.connect(
            user=USER, password=PASSWORD, account="fakesnow", host="127.0.0.1", port=self.port, protocol="http",
            database="TEST", schema="PUBLIC", login_timeout=20, network_timeout=60,
            platform_detection_timeout_seconds=0.0,
        )  # fmt: skip

    def execute(self, *statements: str) -> None:
        """Run statements."""
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def python() -> Path:
    """Return the interpreter that has fakesnow, installing it if it is not there; skip where that is impossible."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = caches / "etl-test-servers" / f"fakesnow-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    interpreter, ready = folder / "bin" / "python", folder / ".installed"
    with filelock.FileLock(folder / ".lock"):
        if not ready.exists():
            venv.create(folder, with_pip=True, clear=False)
            words = [str(interpreter), "-m", "pip", "install", "--quiet", *NEEDS]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=400)
            if done.returncode:
                pytest.skip(f"fakesnow could not be installed: {done.stderr.strip()[-300:]}")
            ready.write_text("\n".join(NEEDS))
    return interpreter


@contextmanager
def running_snowflake(port: int | None = None) -> Iterator[Snowflake]:
    """Start a server without any table. Takes three seconds."""
    port, s3 = port or free_port(), shared_s3()
    script = Path(__file__).with_name("snowflake_server.py")
    words = [str(python()), "-P", str(script), str(port), USER, PASSWORD, str(ROWS_PER_CHUNK), str(s3.port)]
    # -P: beside the script there are modules that are called like packages. And without the paths of the interpreter
    # that runs the tests: its packages are of other versions.
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PYTHON")}
    with running_process(words, port, env=environment):
        yield Snowflake(port, s3)


shared_snowflake = shared(running_snowflake)
