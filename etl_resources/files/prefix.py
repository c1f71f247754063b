"""A prefix of an object store that a target writes: every load is one object, which appears as a whole or not at all.

The object carries the record of its load as its own metadata, so there is no second step that could be missing. There
is no step that changes several objects at once; so a prefix is either replaced, and is then one object of one name, or
appended to, and has one object per load.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.files.commits import Commits, file_name, file_stem
from etl_resources.files.storage import Storage, storage_errors
from etl_resources.target import CommitToken, Mode

_REPLACED = "data"
_METADATA = "etlcommits"  # Azure takes letters, digits and underscores only, and proxies drop underscores


class Prefix:
    """The objects under `uri`, all with the suffix of one format."""

    def __init__(self, uri: str, storage: Storage, suffix: str) -> None:
        self.uri, self._storage, self._suffix = uri.rstrip("/") + "/", storage, suffix

    def key(self, token: CommitToken, mode: Mode) -> str:
        """Return the name of the object of a load."""
        return _REPLACED + self._suffix if mode == "replace" else file_name(token, self._suffix)

    def commits(self, app_id: str, mode: Mode | None) -> Commits:
        """Return what is there of one publishing asset.

        Raises:
            ConfigurationError: it is replaced here and appended there, or is another asset's.
        """
        names = sorted(f.path.rpartition("/")[2] for f in self._storage.find(f"{self.uri}*{self._suffix}"))
        replaced = _REPLACED + self._suffix
        others = [n for n in names if n != replaced]
        if mode and ((mode == "replace" and others) or (mode == "append" and replaced in names)):
            raise ConfigurationError(
                f"{self.uri} holds loads of the other mode: {names[0]}", where=self.uri,
                fix="in an object store a folder is either replaced or appended to; use one of its own for each",
            )  # fmt: skip
        own = [n for n in others if n.startswith(file_stem(app_id) + "-")]
        if not own and replaced not in names:
            return Commits()
        record = self._record(own[-1] if own else replaced)
        if mode == "replace" and (strangers := sorted(record.commits.keys() - {app_id})):
            raise ConfigurationError(
                f"{self.uri}{replaced} is published by {strangers[0]}",
                where=self.uri,
                fix="use one of its own for each",
            )
        return record

    def put(self, app_id: str, name: str, file: Path, commits: Commits) -> None:
        """Upload a file with the record of its load (of no other: an object's metadata are limited to 2 kB)."""
        import obstore

        with storage_errors(self.uri):
            store, key = self._storage.store(self.uri + name)
            obstore.put(store, key, file, attributes=cast("Any", {_METADATA: commits.of(app_id, name).dumps()}))

    def _record(self, name: str) -> Commits:
        import obstore

        with storage_errors(self.uri + name):
            store, key = self._storage.store(self.uri + name)
            attributes = cast("Mapping[str, str]", obstore.get(store, key).attributes)
        text = attributes.get(_METADATA)
        if text is None:
            raise NotFoundError(
                f"{self.uri}{name} has no record of its load", where=self.uri, fix="give the target a prefix of its own"
            )
        return Commits.loads(text, self.uri)
