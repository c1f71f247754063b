"""A private S3 (moto, in a process of its own)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.servers.process import running_process, shared
from tests.servers.proxy import free_port

BUCKET = "lake"
# A conditional put looks for the object, and then puts it: without a switch of threads in between, that is one step.
_SERVER = "import sys; sys.setswitchinterval(60); from moto.server import main; main(sys.argv[1:])"


@dataclass(frozen=True)
class S3:
    """`options`, `secrets` and `client_options` are what a file source or target needs to reach it."""

    port: int

    @property
    def options(self) -> dict[str, str]:
        return {"endpoint": f"http://127.0.0.1:{self.port}", "region": "us-east-1"}

    @property
    def secrets(self) -> dict[str, dict[str, str]]:
        return {"access_key_id": {"env": "TEST_S3_KEY"}, "secret_access_key": {"env": "TEST_S3_SECRET"}}

    @property
    def client_options(self) -> dict[str, str]:
        return {"allow_http": "true", "timeout": "20s"}


@contextmanager
def running_s3(*, open_requests: int | None = None, program: str = _SERVER) -> Iterator[S3]:
    """Start a server with an empty bucket; after `open_requests` requests it checks credentials (None: never)."""
    os.environ.setdefault("TEST_S3_KEY", "key")
    os.environ.setdefault("TEST_S3_SECRET", "secret")
    port = free_port()
    environment = dict(os.environ, MOTO_PORT=str(port))
    if open_requests is not None:
        environment["INITIAL_NO_AUTH_ACTION_COUNT"] = str(open_requests)
    with running_process([sys.executable, "-c", program, "-H", "127.0.0.1", "-p", str(port)], port, env=environment):
        _create_bucket(port)
        yield S3(port)


shared_s3 = shared(running_s3)


def _create_bucket(port: int) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("PUT", f"/{BUCKET}", headers={"Host": "s3.amazonaws.com"})
    assert connection.getresponse().status == 200
    connection.close()
