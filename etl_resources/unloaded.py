"""Large results by way of object storage: a warehouse writes Parquet files there, which are read and removed."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field

from etl_resources.exceptions import EtlError, RowsNotConservedError
from etl_resources.files.storage import Storage, storage_errors
from etl_resources.secret import Secret

if TYPE_CHECKING:
    import pyarrow as pa

_LOG = logging.getLogger(__name__)


class ObjectStore(dg.Config):
    """How an object store is reached, by the names that obstore has for its settings."""

    options: dict[str, str] = Field(default_factory=dict, description="Settings of the store: endpoint, region …")
    secrets: dict[str, Secret] = Field(default_factory=dict, description="access_key_id, secret_access_key …")
    client_options: dict[str, str] = Field(default_factory=dict, description="HTTP settings: allow_http, timeout …")

    def storage(self) -> Storage:
        """Return the access to it."""
        return Storage(self.options, self.secrets, self.client_options)

    def option(self, name: str) -> str | None:
        """Return a setting, which may have been written with or without `aws_`."""
        return self.options.get(name) or self.options.get(f"aws_{name}")

    def secret(self, name: str) -> str | None:
        """Return a secret setting, found as `option` is.

        Raises:
            ConfigurationError: its variable is not set.
        """
        found = self.secrets.get(name) or self.secrets.get(f"aws_{name}")
        return found.reveal() if found else None


class Unload(BaseModel):
    """Have the result written to object storage, and read it there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: str = Field(
        pattern=r"^s3://[^/*?\[]+(/[^*?\[]*)?$",
        description="URI of a prefix. Each read makes a folder of its own below it, and removes it.",
    )


@contextmanager
def folder_below(prefix: str, storage: Storage) -> Iterator[str]:
    """Give the URI of a new folder; whatever lies in it is removed when the block ends or fails."""
    folder = f"{prefix.rstrip('/')}/etl-{uuid.uuid4().hex}/"
    try:
        yield folder
    finally:
        try:
            remove(folder, storage)
        except EtlError as error:
            # What was read is right, or has failed for a reason of its own, which must not be hidden.
            _LOG.warning("objects are left in %s, remove them: %s", folder, error)


def remove(folder: str, storage: Storage) -> None:
    """Remove all objects of a folder."""
    import obstore

    with storage_errors(folder):
        store, prefix = storage.store(folder)
        for page in obstore.list(store, prefix, chunk_size=1000):
            obstore.delete(store, [meta["path"] for meta in page])


def read_files(
    paths: Sequence[str], storage: Storage, expected: int, where: str, batch_rows: int
) -> Iterator[pa.Table]:
    """Yield the rows of Parquet files, row group by row group; together they are `expected` rows.

    Raises:
        RowsNotConservedError: they are not.
        UnavailableError, NotFoundError, CredentialsRejectedError: a file is damaged, is not there, may not be read.
    """
    from etl_resources.files.parquet_format import read_parquet

    rows = 0
    for path in paths:
        with storage_errors(path), storage.open(path) as stream:
            for chunk in read_parquet(stream, path, batch_rows):
                rows += chunk.records
                if chunk.data is not None and chunk.records:
                    yield chunk.data
    if rows != expected:
        raise RowsNotConservedError(
            f"the server wrote {expected:,} rows, and its files hold {rows:,}", where=where, fix="run again"
        )
