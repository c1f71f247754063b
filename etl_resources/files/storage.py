"""Where files are: a local disk, or an object store by URI. Finds, describes and opens them."""

from __future__ import annotations

import difflib
import functools
import glob
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, cast

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.secret import Secret

COMMITS = "_etl_commits.json"
"""Name of the record that a file target keeps beside its data; never a data file."""

_READ_AHEAD = 4 << 20


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file as it was when it was looked at; `path` is absolute, or a URI."""

    path: str
    size: int
    modified_ns: int
    etag: str | None = None

    def same_state(self, other: FileInfo) -> bool:
        """Tell whether the file looks untouched since `other` was taken."""
        return (self.size, self.modified_ns, self.etag) == (other.size, other.modified_ns, other.etag)


@dataclass(frozen=True)
class Storage:
    """Access to files by local path or URI, with the settings of one connection.

    `options` are the store's own settings as obstore names them (`endpoint`, `region` …), `secrets` those of them that
    are secret (`access_key_id` …), `client_options` those of the HTTP client (`allow_http`, `timeout` …).
    """

    options: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    client_options: Mapping[str, str] = field(default_factory=dict)
    _stores: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def find(self, pattern: str, *, after: str | None = None) -> list[FileInfo]:
        """Return the files that match a path or glob, by path; none: an empty list. `**` spans folders.

        Only those whose path sorts behind `after`: S3 and GCS then list only these.
        """
        with storage_errors(pattern):
            if is_uri(pattern):
                return self._find_objects(pattern, after)
            found = self._find_local(pattern)
            return found if after is None else [f for f in found if f.path > after]

    def stat(self, path: str) -> FileInfo:
        """Return size and modification time now.

        Raises:
            NotFoundError: it is not there.
        """
        with storage_errors(path):
            if is_uri(path):
                store, key = self.store(path)
                import obstore

                return _info(path, cast("Mapping[str, Any]", obstore.head(store, key)))
            found = local_path(path).stat()
            return FileInfo(path, found.st_size, found.st_mtime_ns)

    def open(self, path: str) -> IO[bytes]:
        """Return the file, readable and seekable."""
        with storage_errors(path):
            if not is_uri(path):
                return local_path(path).open("rb")
            import obstore

            store, key = self.store(path)
            return cast("IO[bytes]", _ObjectFile(obstore.open_reader(store, key, buffer_size=_READ_AHEAD), path))

    def nearest(self, pattern: str) -> list[str]:
        """Return names beside `pattern` that look like it, for an error message."""
        folder, _, name = pattern.rpartition("/")
        if is_uri(pattern):
            beside = [f.path.rpartition("/")[2] for f in self._list_objects(folder + "/")]
        else:
            # A folder that is not there has no names; that is what is being reported.
            parent = local_path(folder or ("/" if pattern.startswith("/") else "."))
            beside = sorted(p.name for p in parent.iterdir()) if parent.is_dir() else []
        return difflib.get_close_matches(name, beside, n=3, cutoff=0.5) or beside[:3]

    def store(self, uri: str) -> tuple[Any, str]:
        """Return the object store of a URI and the key in it."""
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        scheme, _, rest = uri.partition("://")
        name, _, key = rest.partition("/")
        root = f"{scheme}://{name}"
        if root not in self._stores:
            config = {**self.options, **{name: secret.reveal() for name, secret in self.secrets.items()}}
            retry: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
            try:
                self._stores[root] = from_url(
                    root, config=cast("Any", config), client_options=cast("Any", dict(self.client_options)),
                    retry_config=retry,
                )  # fmt: skip
            except (BaseError, ValueError) as error:
                raise ConfigurationError(f"no object store for {root}: {_first_line(error)}", where=uri) from None
        return self._stores[root], key

    def _find_local(self, pattern: str) -> list[FileInfo]:
        local = local_path(pattern)
        if local.is_dir():
            raise ConfigurationError(
                f"{pattern} is a folder", where=pattern, fix=f"say which files of it: {pattern.rstrip('/')}/*.csv"
            )
        # Unlike Path.glob, glob leaves hidden files out: those that are still being written.
        names = [str(local)] if local.exists() else glob.glob(str(local), recursive=True)  # noqa: PTH207
        files = (Path(os.path.abspath(n)) for n in names)  # noqa: PTH100 - symbolic links stay as the user named them
        return [self.stat(str(f)) for f in sorted(files, key=str) if f.is_file() and f.name != COMMITS]

    def _find_objects(self, pattern: str, after: str | None) -> list[FileInfo]:
        if not re.search(r"[*?\[]", pattern):
            try:
                return [self.stat(pattern)] if after is None or pattern > after else []
            except NotFoundError:
                return []
        fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0] + "/"
        found = (f for f in self._list_objects(fixed, after) if matches(pattern, f.path))
        return sorted(found, key=lambda f: f.path)

    def _list_objects(self, folder: str, after: str | None = None) -> Iterator[FileInfo]:
        import obstore

        store, prefix = self.store(folder)
        offset = self.store(after)[1] if after else None
        for page in obstore.list(store, prefix or None, offset=offset, chunk_size=1000):
            for meta in page:
                yield _info(folder[: len(folder) - len(prefix)] + meta["path"], cast("Mapping[str, Any]", meta))


class _ObjectFile(io.RawIOBase):
    """An object as a Python file; obstore's own gives bytes of a type of its own, and errors of its own."""

    def __init__(self, reader: Any, path: str) -> None:
        self._reader, self._path = reader, path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with storage_errors(self._path):
            return bytes(self._reader.read(size) if size >= 0 else self._reader.read())

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
        super().close()


def _info(path: str, meta: Mapping[str, Any]) -> FileInfo:
    # Azure quotes the tag in the description of a blob, and not in a listing.
    tag = meta["e_tag"]
    return FileInfo(path, meta["size"], int(meta["last_modified"].timestamp() * 1e9), tag and tag.strip('"'))


def is_uri(path: str) -> bool:
    """Tell an object-store URI from a local path (`file://` is local)."""
    return "://" in path and not path.startswith("file://")


def local_path(path: str) -> Path:
    """Return the path of a local file, `file://` and `~` resolved."""
    return Path(path.removeprefix("file://")).expanduser()


@functools.lru_cache(maxsize=256)
def glob_pattern(pattern: str) -> str:
    """Return a regular expression for a glob: `*` and `?` stay within a folder, `**/` is any number of folders."""
    tokens = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    return "".join(
        tokens.get(p) or (_char_class(p) if p.startswith("[") and p.endswith("]") else re.escape(p)) for p in parts
    )


def matches(pattern: str, uri: str) -> bool:
    """Tell whether an object is one of those that a glob means."""
    return re.fullmatch(glob_pattern(pattern), uri) is not None and not uri.endswith("/" + COMMITS)


def _char_class(token: str) -> str:
    return "[" + ("^" + token[2:] if token[1] == "!" else token[1:])


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Turn what an operating system or an object store raises into an error of the tree."""
    try:
        yield
    except EtlError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{where} is not there", where=where, fix="check the path") from error
    except PermissionError as error:
        raise CredentialsRejectedError(
            f"{where} may not be opened: {error.strerror or _first_line(error)}", where=where,
            fix="check the rights of the account, or the connection's secrets",
        ) from error  # fmt: skip
    except OSError as error:
        raise UnavailableError(f"{where} could not be accessed: {error}", where=where) from error
    except Exception as error:  # obstore's errors cannot be named here without importing obstore
        known = _of_object_store(error, where)
        if known is None:
            raise
        raise known from error


def _of_object_store(error: Exception, where: str) -> EtlError | None:
    from obstore import exceptions as store_errors

    text = _first_line(error)
    # A listing that is answered by 403 or 404 is a GenericError; only its text tells.
    status = re.search(r"status code: (\d{3})", text)
    code = int(status.group(1)) if status else 0
    if code in {401, 403} or isinstance(error, store_errors.PermissionDeniedError | store_errors.UnauthenticatedError):
        return CredentialsRejectedError("the store refused access", where=where, fix="check the connection's secrets")
    if code == 404 or isinstance(error, store_errors.NotFoundError):
        return NotFoundError(f"{where} is not there", where=where, fix="check bucket and path")
    if isinstance(error, store_errors.BaseError):
        return UnavailableError(f"the store did not answer: {text}", where=where)
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
