"""A private Google Cloud Storage (the server of `gcs_server`, in a process of its own)."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import running_process, shared
from tests.servers.proxy import free_port

BUCKET = "lake"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Gcs:
    """`options`, `secrets` and `client_options` are what a file source or target needs to reach it."""

    port: int
    private_key: str = ""

    @property
    def options(self) -> dict[str, str]:
        return {}

    @property
    def secrets(self) -> dict[str, dict[str, str]]:
        """The service account, which also says where the store is; its variable is set here."""
        name = f"TEST_GCS_ACCOUNT_{self.port}"
        account = {
            "gcs_base_url": f"http://127.0.0.1:{self.port}", "disable_oauth": not self.private_key,
            "client_email": "etl@example.org", "private_key": self.private_key, "private_key_id": "1",
        }  # fmt: skip
        os.environ[name] = json.dumps(account)
        return {"service_account_key": {"env": name}}

    @property
    def client_options(self) -> dict[str, str]:
        return {"allow_http": "true", "timeout": "20s"}


@contextmanager
def running_gcs(*, public_key: str | None = None) -> Iterator[Gcs]:
    """Start a server with an empty bucket; with a public key it asks for tokens signed by the private one."""
    with tempfile.TemporaryDirectory(prefix="etl-gcs-") as folder:
        port, key = free_port(), Path(folder) / "public.pem"
        if public_key is not None:
            key.write_text(public_key)
        words = [
            sys.executable,
            "-m",
            "tests.servers.gcs_server",
            str(port),
            BUCKET,
            *([str(key)] if public_key else []),
        ]
        with running_process(words, port, cwd=ROOT):
            yield Gcs(port)


shared_gcs = shared(running_gcs)


def key_pair() -> tuple[str, str]:
    """Return a private key for a service account, and the public one for the server."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key, pem = rsa.generate_private_key(65537, 2048), serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()
