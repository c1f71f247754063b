"""Files under the folder of a table, on local disk or in an object store, through one small interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def is_local(uri: str) -> bool:
    """Tell whether `uri` is a path on this machine."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """Return the path of a local URI."""
    return Path(uri.removeprefix("file://"))


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
        from obstore.exceptions import NotFoundError

        try:
            obstore.delete(self._store(), path)
        except NotFoundError:
            return

    def _store(self) -> Any:
        if self._remote is None:
            from obstore.store import from_url

            lowered = {name.lower(): value for name, value in self._options.items()}
            allow_http = lowered.pop("aws_allow_http", lowered.pop("allow_http", "false")) == "true"
            self._remote = from_url(self._uri, config=lowered, client_options={"allow_http": allow_http})  # type: ignore[call-overload]
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
