"""Target `file`: Parquet, CSV or JSON lines in a folder or under a prefix of an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field, model_validator

from etl_resources.exceptions import ConfigurationError
from etl_resources.files.commits import Commits, file_name
from etl_resources.files.encode import write_file
from etl_resources.files.folder import Folder
from etl_resources.files.prefix import Prefix
from etl_resources.files.storage import Storage, is_uri, local_path, storage_errors
from etl_resources.scratch import Scratch
from etl_resources.secret import Secret
from etl_resources.target import Counts, Load, Target, TargetOptions

if TYPE_CHECKING:
    import pyarrow as pa

_COMPRESSED = {"gzip": ".gz", "zstd": ".zst"}


class FileTargetOptions(TargetOptions):
    """What is written under `target: {type: file, ...}`."""

    type: Literal["file"] = "file"
    path: str = Field(description="Folder, local or the URI of an object store; it belongs to this target alone.")
    format: Literal["parquet", "csv", "jsonl"] = Field(default="parquet", description="Format of the files.")
    compression: Literal["zstd", "snappy", "gzip", "none"] | None = Field(
        default=None, description="Left out: zstd for Parquet, none for CSV and JSON lines."
    )

    @model_validator(mode="after")
    def _known_compression(self) -> FileTargetOptions:
        if self.format != "parquet" and self.compression == "snappy":
            raise ValueError("snappy is for Parquet only")
        return self


class FileTarget(Target):
    """Writes every load as one file, which is seen as a whole or not at all.

    `options`, `secrets` and `client_options` are those of the object store, as obstore names them.
    """

    options: dict[str, str] = Field(
        default_factory=dict, description="Settings of the object store: endpoint, region …"
    )
    secrets: dict[str, Secret] = Field(default_factory=dict, description="Secret settings, e.g. secret_access_key.")
    client_options: dict[str, str] = Field(default_factory=dict, description="HTTP settings: allow_http, timeout …")

    options_type: ClassVar[type[TargetOptions]] = FileTargetOptions
    modes: ClassVar[frozenset[str]] = frozenset({"replace", "append"})
    gaps: ClassVar[Mapping[str, str]] = {"refused_rows": "a file has no constraints, so it refuses no row"}

    def write(self, load: Load, batches: Iterable[pa.RecordBatch]) -> Counts:
        """Write one load; nothing of it is seen before all of it is.

        Raises:
            ConfigurationError: mode upsert, or a folder that is not this target's own.
            ConcurrentCommitError: another load is writing to the folder.
            SchemaConflictError: the format has no form for a type or value.
            UnavailableError, CredentialsRejectedError, NotFoundError: the disk or the store says so.
        """
        options = cast("FileTargetOptions", load.options)
        if load.mode not in self.modes:
            raise ConfigurationError(
                f"a file target has no mode {load.mode}",
                where=options.path,
                fix=f"one of {', '.join(sorted(self.modes))}",
            )
        return self._write_objects(load, batches) if is_uri(options.path) else self._write_folder(load, batches)

    def committed_version(self, options: TargetOptions, app_id: str) -> int | None:
        """Return the highest version committed under `app_id`, or None."""
        options = cast("FileTargetOptions", options)
        if is_uri(options.path):
            return self._prefix(options).commits(app_id, None).version(app_id)
        with storage_errors(options.path):
            return Folder(_folder(options)).commits().version(app_id)

    def _write_folder(self, load: Load, batches: Iterable[pa.RecordBatch]) -> Counts:
        options = cast("FileTargetOptions", load.options)
        folder, name = Folder(_folder(options)), file_name(load.token, _suffix(options))
        with storage_errors(options.path), folder.locked():

            def show(_: Path, commits: Commits) -> None:
                folder.show(commits)

            before = folder.commits()
            if _is_committed(before, load):
                return before.counts(load.token)
            with folder.staged() as staging:
                return _write(load, batches, staging / name, before, show)

    def _write_objects(self, load: Load, batches: Iterable[pa.RecordBatch]) -> Counts:
        options = cast("FileTargetOptions", load.options)
        prefix = self._prefix(options)
        name = prefix.key(load.token, load.mode)
        before = prefix.commits(load.token.app_id, load.mode)
        if _is_committed(before, load):
            return before.counts(load.token)
        with storage_errors(options.path), Scratch() as staging:

            def put(file: Path, commits: Commits) -> None:
                prefix.put(load.token.app_id, name, file, commits)

            return _write(load, batches, Path(staging) / name, before, put)

    def _prefix(self, options: FileTargetOptions) -> Prefix:
        return Prefix(options.path, Storage(self.options, self.secrets, self.client_options), _suffix(options))


def _write(
    load: Load, batches: Iterable[pa.RecordBatch], file: Path, before: Commits, show: Callable[[Path, Commits], None]
) -> Counts:
    """Write the file aside, then show it together with its record."""
    options = cast("FileTargetOptions", load.options)
    rows = write_file(file, batches, load.schema, options.format, options.compression)
    deleted = sum(before.files.values()) if load.mode == "replace" else 0
    counts = Counts(read=rows, inserted=rows, deleted=deleted)
    show(file, before.after(load.token, load.mode, file.name, counts))
    return counts


def _is_committed(before: Commits, load: Load) -> bool:
    version = before.version(load.token.app_id)
    return version is not None and version >= load.token.version


def _folder(options: FileTargetOptions) -> Path:
    return local_path(options.path).absolute()


def _suffix(options: FileTargetOptions) -> str:
    packed = "" if options.format == "parquet" else _COMPRESSED.get(options.compression or "", "")
    return f".{options.format}{packed}"


TARGET = FileTarget
