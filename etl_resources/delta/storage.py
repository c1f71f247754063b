"""Files under the folder of a table, on local disk or in an object store, through one small interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

_HTTP = frozenset(
    {
        "allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type", "http1_only",
        "http2_keep_alive_interval", "http2_keep_alive_timeout", "http2_keep_alive_while_idle", "http2_only",
        "pool_idle_timeout", "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes", "proxy_url",
        "randomize_addresses", "timeout", "user_agent",
    }
)  # fmt: skip
"""Settings of the HTTP client. Delta takes them among those of the store; obstore breaks off if it finds them there."""
_ONLY_DELTA = frozenset({"max_retries", "retry_timeout", "aws_s3_allow_unsafe_rename", "allow_unsafe_rename"})


def is_local(uri: str) -> bool:
    """Tell whether `uri` is a path on this machine."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """Return the path of a local URI."""
    return Path(uri.removeprefix("file://"))


def split_options(options: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return Delta's storage options as obstore wants them: those of the store, and those of its HTTP client."""
    store: dict[str, str] = {}
    client: dict[str, Any] = {}
    for given, value in options.items():
        name = given.lower()
        bare = name.removeprefix("aws_").removeprefix("google_").removeprefix("azure_")
        if bare in _HTTP:
            client[bare] = value
        elif name not in _ONLY_DELTA:
            store[name] = value
    return store, client


class FileStore:
    """Opens files for writing and deletes them; `path` arguments are relative to `uri`."""

    def __init__(self, uri: str, storage_options: Mapping[str, str]) -> None:
        self._uri = uri.rstrip("/")
        self._options = dict(storage_options)
        self._remote: Any = None

    def location(self, path: str) -> str:
        """Return the full path or URI."""
        return str(local_path(self._uri) / path) if is_local(self._uri) else f"{self._uri}/{path}"

    def open(self, path: str) -> Any:
        """Open a new file for writing; it has `write`, `tell`, `close`."""
        if is_local(self._uri):
            target = local_path(self._uri) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            return target.open("xb")
        import obstore

        return _Counting(obstore.open_writer(self._store(), path))

    def read(self, path: str) -> Any:
        """Open a file for reading, whole in memory where it is remote."""
        import io

        if is_local(self._uri):
            return self.location(path)
        import obstore

        return io.BytesIO(bytes(obstore.get(self._store(), path).bytes()))

    def delete(self, path: str) -> None:
        """Delete a file; one that is not there is fine."""
        if is_local(self._uri):
            (local_path(self._uri) / path).unlink(missing_ok=True)
            return
        import obstore

        try:
            obstore.delete(self._store(), path)
        except FileNotFoundError:  # S3 does not mind, GCS and Azure do
            return

    def _store(self) -> Any:
        if self._remote is None:
            from obstore.store import from_url

            store, client = split_options(self._options)
            self._remote = from_url(self._uri, config=cast("Any", store), client_options=cast("Any", client))
        return self._remote


class _Counting:
    """A writer that knows how far it has come; obstore's does not."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._written = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self._writer.write(data)
        self._written += memoryview(data).nbytes
        return memoryview(data).nbytes

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        if not self.closed:
            self._writer.close()
            self.closed = True
