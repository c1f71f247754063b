"""A private Azure Blob Storage: azurite, Microsoft's emulator, from npm, in a process of its own.

It is installed once into a cache folder outside of the repository; where there is no node or npm the tests are skipped.
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import pytest

from tests.servers.process import running_process, shared
from tests.servers.proxy import free_port

CONTAINER = "lake"
VERSION = "3.37.0"
ACCOUNT = "devstoreaccount1"
# The key of the emulator's one account, which Microsoft documents: no secret.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Azure:
    """`options`, `secrets` and `client_options` are what a file source or target needs to reach it."""

    port: int

    @property
    def options(self) -> dict[str, str]:
        return {"account_name": ACCOUNT, "endpoint": f"http://127.0.0.1:{self.port}/{ACCOUNT}"}

    @property
    def secrets(self) -> dict[str, dict[str, str]]:
        os.environ["TEST_AZURE_KEY"] = KEY
        return {"account_key": {"env": "TEST_AZURE_KEY"}}

    @property
    def client_options(self) -> dict[str, str]:
        return {"allow_http": "true", "timeout": "20s"}


def installed() -> Path:
    """Return the emulator's start file, installing it if it is not there; skip the test where that is impossible."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = caches / "etl-test-servers" / f"azurite-{VERSION}"
    start = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if not shutil.which("node"):
        pytest.skip("azurite needs node, which is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lock"):
        if not start.exists():
            _install(folder)
    return start


def _install(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("azurite is installed by npm, which is not there")
    words = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"azurite@{VERSION}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"npm could not install azurite: {done.stderr.strip()[-300:]}")


@contextmanager
def running_azure() -> Iterator[Azure]:
    """Start an emulator with an empty container."""
    port = free_port()
    words = ["node", str(installed()), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"]
    words += ["--skipApiVersionCheck", "--silent", "--disableTelemetry"]
    with running_process(words, port):
        _create_container(port)
        yield Azure(port)


shared_azure = shared(running_azure)


def _create_container(port: int) -> None:
    """Make the container by a request signed with the account's shared key."""
    import base64
    import hashlib
    import hmac
    from email.utils import formatdate

    date, version = formatdate(usegmt=True), "2021-08-06"
    # Of all lines of the signed text only the verb and those named here are filled.
    resource = f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
    text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n{resource}"
    digest = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {ACCOUNT}:{digest}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("PUT", f"/{ACCOUNT}/{CONTAINER}?restype=container", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 201, answer.read()
    connection.close()
