"""A private RabbitMQ server on free ports of the loopback interface, gone when the test process ends."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pika
import trustme

from tests.servers.process import shared
from tests.servers.proxy import free_port

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
PASSWORD = "the password of the user etl"
_PASSWORD_VARIABLE = "TEST_RABBITMQ_PASSWORD"


class RabbitServer:
    """A running server: the user `etl` may do everything, `limited` (with the same password) nothing.

    `port` talks in clear, `tls_port` with a certificate for localhost that `authority` (a PEM file) has signed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self.tls_port = free_port(), free_port()
        self.authority = directory / "authority.pem"
        self._processes: list[subprocess.Popen[bytes]] = []
        names = free_port()
        self._environment = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(directory),
            "RABBITMQ_NODENAME": f"t{self.port}@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port), "RABBITMQ_DIST_PORT": str(free_port()), "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"), "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"), "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
        }  # fmt: skip

    def initialise(self) -> None:
        """Write the configuration, the users and the certificates."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.authority))
        own = authority.issue_cert("localhost", "127.0.0.1")
        own.private_key_and_cert_chain_pem.write_to_path(str(self.directory / "own.pem"))
        everything = {"vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "vhosts": [{"name": "/"}],
            "users": [{"name": n, "password_hash": _hashed(PASSWORD), "tags": ""} for n in ("etl", "limited")],
            "permissions": [
                {"user": "etl", **everything},
                {"user": "limited", "vhost": "/", "configure": "^$", "write": "^$", "read": "^$"},
            ],
        }
        (self.directory / "definitions.json").write_text(json.dumps(definitions))
        (self.directory / "enabled_plugins").write_text("[].")
        settings = {
            "listeners.ssl.default": f"127.0.0.1:{self.tls_port}", "ssl_options.cacertfile": self.authority,
            "ssl_options.certfile": self.directory / "own.pem", "ssl_options.keyfile": self.directory / "own.pem",
            "ssl_options.verify": "verify_none", "load_definitions": self.directory / "definitions.json",
            "disk_free_limit.absolute": "50MB", "log.file.level": "warning",
        }  # fmt: skip
        (self.directory / "rabbitmq.conf").write_text("".join(f"{k} = {v}\n" for k, v in settings.items()))

    def start(self) -> None:
        """Start and wait until connections are taken: five to eight seconds."""
        with (self.directory / "output").open("ab") as log:
            if not self._processes:
                # Started first and by us: the server would leave one behind that outlives it.
                epmd = ["epmd", "-port", self._environment["ERL_EPMD_PORT"], "-address", "127.0.0.1"]
                self._processes.append(subprocess.Popen(epmd, env=self._environment, stdout=log, stderr=log))
            command = [str(PROGRAMS / "rabbitmq-server")]
            server = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, cwd=self.directory)
        self._processes.append(server)
        deadline = time.monotonic() + 60
        while not self._answers():
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError(f"RabbitMQ did not start:\n{(self.directory / 'output').read_text()[-3000:]}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        with suppress(pika.exceptions.AMQPError, OSError):
            self.connect().close()
            return True
        return False

    def stop(self) -> None:
        """Stop the server cleanly; connections are closed, durable queues and persistent messages stay."""
        server = self._processes.pop()
        server.terminate()
        server.wait(timeout=30)

    def remove(self) -> None:
        """Stop everything that was started."""
        while self._processes:
            self.stop()

    def settings(self, **other: Any) -> dict[str, Any]:
        """Return what a RabbitmqSource needs to connect, in clear."""
        os.environ[_PASSWORD_VARIABLE] = PASSWORD
        given = {"host": "127.0.0.1", "port": self.port, "tls": False, "user": "etl"}
        return {**given, "password": {"env": _PASSWORD_VARIABLE}, **other}

    def connect(self) -> pika.BlockingConnection:
        """Return a connection of the user `etl`."""
        credentials = pika.PlainCredentials("etl", PASSWORD)
        return pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", self.port, credentials=credentials, heartbeat=0)
        )

    def declare(self, queue: str, kind: str = "classic", **arguments: Any) -> None:
        """Make a durable queue (classic, quorum or stream)."""
        with self.connect() as connection:
            connection.channel().queue_declare(
                queue, durable=True, arguments={"x-queue-type": kind, **{f"x-{k}": v for k, v in arguments.items()}}
            )

    def publish(self, queue: str, bodies: Iterable[bytes], *, ids: bool = True, **properties: Any) -> None:
        """Put persistent messages into a queue, with `message_id` where `ids`, and wait until they are there."""
        with self.connect() as connection:
            channel = connection.channel()
            for body in bodies:
                name = {"message_id": os.urandom(8).hex()} if ids else {}
                channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2, **{**name, **properties}))
            channel.confirm_delivery()
            channel.queue_declare(queue, passive=True)

    def ready(self, queue: str) -> int:
        """Return how many messages of a queue wait for a consumer."""
        with self.connect() as connection:
            return int(connection.channel().queue_declare(queue, passive=True).method.message_count)


def _hashed(password: str) -> str:
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


@contextmanager
def running_rabbitmq() -> Iterator[RabbitServer]:
    """Give a fresh server and remove it afterwards."""
    if not PROGRAMS.exists():
        raise RuntimeError(f"no RabbitMQ server under {PROGRAMS}: run tests/servers/install.sh")
    directory = Path(tempfile.mkdtemp(prefix="etl-rabbitmq-"))
    server = RabbitServer(directory)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.remove()
        shutil.rmtree(directory, ignore_errors=True)


shared_rabbitmq = shared(running_rabbitmq)
