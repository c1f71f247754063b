"""The lake: Delta tables on local disk, S3, GCS or Azure, written so that no commit can happen twice."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from etl_resources.delta.storage import is_local, local_path
from etl_resources.exceptions import ConcurrentCommitError
from etl_resources.secret import Secret

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable

    from etl_resources.delta.staging import Staging

COMMIT_KEY = "etl"
"""Key of the commit metadata under which the account, the position and the run id stand, as JSON."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Identity and account of one commit.

    `version` is the number of the piece of work within `app_id`, 1, 2, 3 …; it becomes the Delta `txn`, and a version
    that is already there is refused. `record` (JSON-serialisable) is stored with the commit. `marks` are further
    `txn`s of the same commit, such as the version of another table that was read; they outlive the cleaning of the log.
    """

    app_id: str
    version: int
    record: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, int] = field(default_factory=dict)

    def properties(self) -> CommitProperties:
        """Return what delta-rs wants."""
        from deltalake import CommitProperties, Transaction

        text = json.dumps({**self.record, "app_id": self.app_id, "version": self.version}, default=str)
        transactions = {self.app_id: self.version, **self.marks}
        return CommitProperties(
            custom_metadata={COMMIT_KEY: text},
            app_transactions=[Transaction(app_id, version) for app_id, version in transactions.items()],
        )


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


class Handle:
    """A Delta table as it was when it was opened.

    What is decided from a handle (which rows are new, which version comes next) has to be committed with the same
    handle: then Delta refuses the commit if somebody else was faster.
    """

    def __init__(self, delta: DeltaTable, table: LakeTable) -> None:
        self.delta = delta
        self.table = table

    @property
    def version(self) -> int:
        """Version of the Delta table."""
        return self.delta.version()

    def schema(self) -> pa.Schema:
        """Return the Arrow schema."""
        import pyarrow as pa

        return pa.schema(self.delta.schema().to_arrow())

    def committed(self, app_id: str) -> int:
        """Return the number of the last commit under `app_id`, 0 if there is none."""
        return self.delta.transaction_version(app_id) or 0

    def rows(self) -> int:
        """Count the rows, out of the log."""
        return self.delta.count()

    def record(self, app_id: str) -> dict[str, Any] | None:
        """Return the record of the newest commit under `app_id` that the Delta log still has."""
        return next((record for record in self.records() if record.get("app_id") == app_id), None)

    def records(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the records of the commits, newest first, each with `delta_version` and `timestamp` (ms) added."""
        for entry in self.delta.history(limit):
            if COMMIT_KEY in entry:
                stamps = {"delta_version": entry["version"], "timestamp": entry["timestamp"]}
                yield {**json.loads(entry[COMMIT_KEY]), **stamps}

    def files(self, column: str | None = None, above: int | None = None) -> list[str]:
        """Return the URIs of the data files; with `column` and `above`, those that may hold a greater value."""
        import pyarrow as pa

        actions = pa.table(self.delta.get_add_actions(flatten=True))
        names = actions.column("path").to_pylist()
        bounds = f"max.{column}"
        if above is not None and bounds in actions.column_names:
            highs = actions.column(bounds).to_pylist()
            names = [name for name, high in zip(names, highs, strict=True) if high is None or high > above]
        return [self.table.location(name) for name in names]

    def plain_files(self) -> bool:
        """Tell whether the data files alone are the table: no deletion vectors, no partition columns."""
        features = self.delta.protocol().reader_features or []
        return "deletionVectors" not in features and not self.delta.metadata().partition_columns


@dataclass(frozen=True)
class LakeTable:
    """One Delta table of the lake."""

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

    def ensure(self, schema: pa.Schema, *, personal: Collection[str] = ()) -> Handle:
        """Open the table, creating it empty if it is not there.

        Args:
            schema: columns of a new table.
            personal: columns of which the log must keep no minimum and maximum.
        """
        from deltalake import DeltaTable

        from etl_resources.delta.statistics import skipping_columns

        handle = self.open()
        if handle is not None:
            return handle
        columns = ",".join(f"`{name}`" for name in skipping_columns(schema, personal))
        configuration = {"delta.dataSkippingStatsColumns": columns}
        if is_local(self.uri):
            local_path(self.uri).mkdir(parents=True, exist_ok=True)
        DeltaTable.create(
            self.uri,
            schema,
            mode="ignore",
            configuration=configuration if columns else None,
            storage_options=dict(self.storage_options),
        )
        created = self.open()
        assert created is not None  # noqa: S101 - it was created in the line above
        return created

    def evolve(self, handle: Handle, schema: pa.Schema) -> Handle:
        """Add the columns of `schema` that the table lacks; types never change.

        Raises:
            SchemaConflictError: a column has another type that cannot be held without loss.
        """
        from deltalake import write_deltalake

        from etl_resources.delta.evolution import merge_schemas

        present = handle.schema()
        merged = merge_schemas(present, schema, where=self.name)
        if merged.equals(present):
            return handle
        write_deltalake(handle.delta, merged.empty_table(), mode="append", schema_mode="merge")
        fresh = self.open()
        assert fresh is not None  # noqa: S101 - it was just written
        return fresh

    def stage(self, handle: Handle, schema: pa.Schema) -> Staging:
        """Return a writer for data files of this table; nobody sees them before a commit."""
        from etl_resources.delta.staging import Staging
        from etl_resources.delta.statistics import skipping_columns

        listed = handle.delta.metadata().configuration.get("delta.dataSkippingStatsColumns")
        known = None if listed is None else {name.strip("`") for name in listed.split(",")}
        columns = [name for name in skipping_columns(schema, ()) if known is None or name in known]
        return Staging(self.uri, self.storage_options, schema, columns)

    def append(self, handle: Handle, staged: Staging, commit: Commit) -> int:
        """Commit the staged files as additional rows; returns the new Delta version."""
        return self._commit(handle, staged.finish(), commit, "append", handle.schema())

    def replace(self, handle: Handle, staged: Staging, commit: Commit) -> int:
        """Commit the staged files as the whole content, schema included: readers see the old or the new, never less."""
        return self._commit(handle, staged.finish(), commit, "overwrite", staged.schema)

    def replace_where(self, handle: Handle, data: pa.RecordBatchReader, predicate: str, commit: Commit) -> int:
        """Commit `data` in place of the rows that satisfy the SQL `predicate`, and of no others."""
        from deltalake import write_deltalake

        with self._fence(handle, commit):
            write_deltalake(
                handle.delta, data, mode="overwrite", predicate=predicate, commit_properties=commit.properties()
            )
        return self._version(commit)

    def merge(
        self, handle: Handle, source: pa.RecordBatchReader, key: Sequence[str], commit: Commit
    ) -> Mapping[str, Any]:
        """Apply inserts, updates and deletes by key in one commit.

        Args:
            source: every column of the table and `_action`, one of `insert`, `update`, `delete`; keys are unique.
            key: columns that identify a row; none of their values is null.

        Returns:
            The metrics of delta-rs, `num_target_rows_inserted`, `…_updated`, `…_deleted` among them.
        """
        on = " AND ".join(f"t.`{name}` = s.`{name}`" for name in key)
        columns = {f"`{name}`": f"s.`{name}`" for name in handle.schema().names}
        with self._fence(handle, commit):
            # Streamed execution gives up the statistics of the source, so every file of the table would be scanned.
            merger = handle.delta.merge(
                source,
                on,
                source_alias="s",
                target_alias="t",
                streamed_exec=False,
                commit_properties=commit.properties(),
            )
            metrics = (
                merger.when_matched_delete("s._action = 'delete'")
                .when_matched_update(columns, "s._action = 'update'")
                .when_not_matched_insert(columns, "s._action = 'insert'")
                .execute()
            )
        self._after_merge(commit)
        return metrics

    def _after_merge(self, commit: Commit) -> None:
        """Keep the transaction of a merge that changed nothing: delta-rs makes no commit then, and drops it."""
        fresh = self.open()
        if fresh is not None and fresh.committed(commit.app_id) < commit.version:
            self.mark(fresh, commit)

    def mark(self, handle: Handle, commit: Commit) -> int:
        """Commit no rows, only the record and the transaction."""
        return self._commit(handle, [], commit, "append", handle.schema())

    def _commit(self, handle: Handle, adds: list[Any], commit: Commit, mode: str, schema: pa.Schema) -> int:
        with self._fence(handle, commit):
            handle.delta.create_write_transaction(adds, mode, schema, commit_properties=commit.properties())
        return self._version(commit)

    @contextmanager
    def _fence(self, handle: Handle, commit: Commit) -> Iterator[None]:
        """Let a commit through once; by the handle, Delta notices anybody who was faster."""
        from deltalake.exceptions import CommitFailedError

        if handle.committed(commit.app_id) >= commit.version:
            raise self._lost(commit)
        try:
            yield
        except CommitFailedError as error:
            if "oncurrent" in str(error):
                raise self._lost(commit) from error
            raise

    def _lost(self, commit: Commit) -> ConcurrentCommitError:
        return ConcurrentCommitError(
            f"another run committed number {commit.version} of {commit.app_id} first; this run wrote nothing",
            where=self.name,
            fix="nothing is lost or doubled; run again if there may be more to do, and do not start two runs at once",
        )

    def _version(self, commit: Commit) -> int:
        fresh = self.open()
        assert fresh is not None  # noqa: S101 - it was just written
        if fresh.committed(commit.app_id) < commit.version:
            raise self._lost(commit)
        return fresh.version
