"""The lake: Delta tables on local disk, S3, GCS or Azure, written so that no commit can happen twice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from etl_resources.delta.commit import Commit, RewrittenError, fence
from etl_resources.delta.handle import Handle
from etl_resources.delta.staging import TARGET_FILE_BYTES
from etl_resources.delta.storage import is_local, local_path
from etl_resources.exceptions import UnavailableError
from etl_resources.secret import Secret

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake.transaction import AddAction

    from etl_resources.delta.merging import Merge
    from etl_resources.delta.rewriting import Changes, Source
    from etl_resources.delta.staging import Staging
    from etl_resources.delta.upkeep import Upkept

__all__ = ["Commit", "Handle", "Lake", "LakeTable"]

ATTEMPTS = 5
"""Tries at a commit while others rewrite files or add columns, which changes no row of the table."""
RETENTION = timedelta(days=7)
"""How long files stay that newer versions do without: for readers under way, and for time travel."""
CONFIGURATION = {"delta.checkpointInterval": "20"}
"""Of every table: to open one, all log entries since the last checkpoint are read."""
REWRITE = "rewrite"
"""Delta `txn` of commits that name every file of the table: a replacement and a compaction refuse each other by it."""


class Lake(dg.ConfigurableResource):
    """A folder of Delta tables."""

    uri: str = Field(default=".lake", description="Folder or object-store URI: /path, s3://, gs://, az://.")
    storage_options: dict[str, str] = Field(default={}, description="Options of the object store that are not secret.")
    secrets: dict[str, Secret] = Field(default={}, description="Options of the object store that are secret.")

    def options(self) -> dict[str, str]:
        """Return the storage options with the secrets read from the environment; never log the result."""
        return {**self.storage_options, **{name: secret.reveal() for name, secret in self.secrets.items()}}

    def table(self, *key: str) -> LakeTable:
        """Return the table of that key, whether it exists or not, e.g. `table("silver", "retail", "sales")`."""
        base = self.uri if not is_local(self.uri) else str(local_path(self.uri).absolute())
        return LakeTable("/".join([base.rstrip("/"), *key]), key, self.options())


@dataclass(frozen=True)
class LakeTable:
    """One Delta table of the lake.

    The rows of a table are changed under one application id (or only ever appended), so whatever else changes the
    table in the meantime, such as a compaction, leaves its content alone, and a commit may be tried again.
    """

    uri: str
    key: tuple[str, ...]
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The key, joined by slashes."""
        return "/".join(self.key)

    def location(self, path: str) -> str:
        """Return the URI of a file of the table."""
        return path if "://" in path or path.startswith("/") else f"{self.uri}/{path}"

    def open(self, version: int | None = None) -> Handle | None:
        """Open the newest version (or that one, for time travel); None: the table does not exist."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        if is_local(self.uri) and not (local_path(self.uri) / "_delta_log").exists():
            return None
        try:
            return Handle(DeltaTable(self.uri, version=version, storage_options=dict(self.storage_options)), self)
        except TableNotFoundError:
            return None

    def newest(self, known: Handle | None) -> Handle | None:
        """Return the table as it is now: a handle that is known goes on, which costs a tenth of opening it."""
        return known.refresh() if known is not None else self.open()

    def ensure(self, schema: pa.Schema, *, personal: Collection[str] = ()) -> Handle:
        """Open the table, creating it empty if it is not there.

        Args:
            schema: columns of a new table.
            personal: columns of which the log must keep no minimum and maximum, from now on if the table is there.
        """
        from deltalake import CommitProperties, DeltaTable
        from deltalake.exceptions import DeltaError

        from etl_resources.delta.statistics import protect, skipping_columns, skipping_property

        handle = self.open()
        if handle is not None:
            return self._attempt(handle, lambda opened: protect(opened, personal))
        if is_local(self.uri):
            local_path(self.uri).mkdir(parents=True, exist_ok=True)
        failure: DeltaError | None = None
        try:
            DeltaTable.create(
                self.uri,
                schema,
                configuration={**CONFIGURATION, **skipping_property(skipping_columns(schema, personal))},
                storage_options=dict(self.storage_options),
                # Tried again, it would become version 1, and take columns back that were added meanwhile.
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError as error:
            failure = error  # unless another run has just created it
        created = self.open()
        if created is None:
            raise failure or AssertionError(f"{self.name} was created and is not there")
        return created

    def evolve(self, handle: Handle, schema: pa.Schema) -> Handle:
        """Add the columns of `schema` that the table lacks; types never change.

        The handle returned may be newer than what the caller has decided from the one given: number the piece of work
        before.

        Raises:
            SchemaConflictError: a column has another type that cannot be held without loss.
        """
        from deltalake import write_deltalake

        from etl_resources.delta.evolution import merge_schemas

        def add_columns(opened: Handle) -> Handle:
            present = opened.schema()
            merged = merge_schemas(present, schema, where=self.name)
            if merged.equals(present):
                return opened
            write_deltalake(opened.delta, merged.empty_table(), mode="append", schema_mode="merge")
            return self._reopened()

        return self._attempt(handle, add_columns)

    def stage(
        self,
        handle: Handle | None,
        schema: pa.Schema,
        *,
        personal: Collection[str] = (),
        file_bytes: int = TARGET_FILE_BYTES,
        narrow: bool = False,
    ) -> Staging:
        """Return a writer for data files of this table; nobody sees them before a commit.

        Args:
            handle: the table; None: it is going to be created before the commit.
            schema: columns of the files.
            personal: columns of which no minimum and maximum is kept, on top of those that the table knows.
            file_bytes: about how large the files become.
            narrow: keep little in memory, because other tables are written at the same time.
        """
        from etl_resources.delta.staging import Staging
        from etl_resources.delta.statistics import skipping_columns

        known = handle.skipping() if handle is not None else None
        columns = [name for name in skipping_columns(schema, personal) if known is None or name in known]
        return Staging(self.uri, self.storage_options, schema, columns, file_bytes, narrow=narrow)

    def append(self, handle: Handle, staged: Staging, commit: Commit) -> Handle:
        """Commit the staged files as additional rows; returns the table after it (the same handle, gone on)."""
        adds = staged.finish()
        with staged.committing(self._files):
            return self._add(handle, adds, commit)

    def mark(self, handle: Handle, commit: Commit) -> Handle:
        """Commit no rows, only the record and the transaction."""
        return self._add(handle, [], commit)

    def _add(self, handle: Handle, adds: Sequence[AddAction], commit: Commit) -> Handle:
        def write(opened: Handle) -> None:
            opened.delta.create_write_transaction(
                [*adds], "append", opened.schema(), commit_properties=commit.properties()
            )

        return self._commit(handle, commit, write)

    def replace(self, handle: Handle, staged: Staging, commit: Commit) -> Handle:
        """Commit the staged files as the whole content, schema included: readers see the old or the new, never less.

        Raises:
            RowsNotConservedError: something else put rows into the table at the same time; it is as it was.
        """
        from etl_resources.delta.rewriting import replace

        staged.finish()
        with staged.committing(self._files):
            return self._commit(handle, commit, lambda opened: replace(opened, staged, commit, REWRITE))

    def replace_where(
        self, handle: Handle, source: Source, predicate: str, commit: Commit, expected: Changes
    ) -> Handle:
        """Commit the rows of `source` in place of those that satisfy the SQL `predicate`, and of no others.

        Args:
            source: gives a reader of the new rows, all of which satisfy the predicate; called once per try.
            expected: rows that are inserted and deleted.

        Raises:
            RowsNotConservedError: other rows were; the table is as it was.
        """
        from etl_resources.delta.rewriting import replace_where

        return self._commit(handle, commit, lambda opened: replace_where(opened, source, predicate, commit, expected))

    def merge(self, handle: Handle, what: Merge, commit: Commit) -> Handle:
        """Apply inserts, updates and deletes by key in one commit; columns that the changes lack keep their values.

        Keys are unique among the changes; none of their values is null.

        Raises:
            RowsNotConservedError: other rows would be, or were, changed than expected; the table is as it was.
        """
        from etl_resources.delta.merging import merge

        return self._commit(handle, commit, lambda opened: merge(opened, what, commit))

    def optimize(self, target_bytes: int = TARGET_FILE_BYTES) -> Upkept:
        """Put small files together to files of about `target_bytes`; what the table holds stays as it is."""
        from etl_resources.delta.upkeep import optimize

        return optimize(self, target_bytes)

    def vacuum(self, retention: timedelta = RETENTION) -> list[str]:
        """Delete files that no version younger than `retention` needs; returns their names."""
        from etl_resources.delta.upkeep import vacuum

        return vacuum(self, retention)

    def tidy(self, handle: Handle) -> Upkept:
        """Optimise and vacuum if there are many small files; meant to be called after every commit, and never fails.

        Args:
            handle: the table after the commit.
        """
        from etl_resources.delta.upkeep import tidy

        return tidy(handle)

    def _commit(self, handle: Handle, commit: Commit, write: Callable[[Handle], None]) -> Handle:
        def fenced(opened: Handle) -> Handle:
            with fence(opened, commit):
                write(opened)
            fresh = opened.refresh()
            if fresh.committed(commit.app_id) < commit.version:
                raise UnavailableError(
                    f"number {commit.version} of {commit.app_id} was committed, but is not there",
                    where=self.name,
                    fix="the storage lets one log entry replace another: use one with conditional puts, and run again",
                )
            return fresh

        return self._attempt(handle, fenced)

    def _attempt(self, handle: Handle, write: Callable[[Handle], Handle]) -> Handle:
        """Write by `handle`; where somebody rewrote files or added columns meanwhile, try again on the fresh table."""
        from deltalake.exceptions import CommitFailedError

        for attempt in range(ATTEMPTS):
            try:
                return write(handle)
            except (RewrittenError, CommitFailedError):
                if attempt == ATTEMPTS - 1:
                    raise
                handle = self._reopened()
        raise AssertionError("unreachable")

    def _files(self) -> set[str]:
        """Return the names of the data files as of now."""
        fresh = self.open()
        return {file.path for file in fresh.data_files()} if fresh is not None else set()

    def _reopened(self) -> Handle:
        fresh = self.open()
        assert fresh is not None  # noqa: S101 - it was open before
        return fresh
