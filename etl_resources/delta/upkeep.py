"""Upkeep of tables: many small files become few large ones, and files that nobody needs any more are deleted.

It changes no row and moves no transaction of the data, so it needs no account; and it gives way: where another run
commits at the same time, the compaction is the one that is not done.

delta-rs has a compaction of its own. Two of them at once, or one beside a replacement of the table, are no conflict to
it, and leave every row there twice (measured, 1.6.6); and it drops the transactions by which they could be kept apart.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from etl_resources.delta.handle import DataFile
from etl_resources.exceptions import RowsNotConservedError

if TYPE_CHECKING:
    from etl_resources.delta.handle import Handle
    from etl_resources.delta.staging import Staging
    from etl_resources.lake import LakeTable

SMALL_BYTES = 16 * 2**20
"""Files below this size are worth being put together without being asked."""
MANY_FILES = 50
"""So many small files are worth a compaction."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Upkept:
    """What became of an attempt: number of data files before and after, and why nothing was done, if nothing was."""

    before: int = 0
    after: int = 0
    deleted: int = 0
    """Files that were deleted from the storage."""
    reason: str = ""

    @property
    def compacted(self) -> bool:
        """Whether files were put together."""
        return self.after < self.before


def optimize(table: LakeTable, target_bytes: int, *, below: int | None = None) -> Upkept:
    """Put files of less than `below` bytes (default: three quarters of the target) together.

    Raises:
        RowsNotConservedError: the new files have other rows than the old ones; nothing was committed.
    """
    from deltalake.exceptions import CommitFailedError

    handle = table.open()
    if handle is None:
        return Upkept(reason="the table does not exist")
    files = handle.data_files()
    if not handle.plain_files():
        return Upkept(len(files), len(files), reason="not compacted: it has deletion vectors or partition columns")
    limit = target_bytes * 3 // 4 if below is None else below
    small = [file for file in files if file.size < limit]
    if len(small) < 2:
        return Upkept(len(files), len(files), reason="there are no small files to put together")
    with table.stage(handle, handle.schema(), file_bytes=target_bytes) as staged:
        _copy(handle, small, staged)
        staged.finish()
        try:
            with staged.committing(table._files):  # noqa: SLF001 - a part of it, in a room of its own
                _swap(handle, small, staged)
        except CommitFailedError as error:
            staged.discard()
            reason = f"not compacted now: another run changed the table ({str(error).splitlines()[0]})"
            _log.info("%s: %s", table.name, reason)
            return Upkept(len(files), len(files), reason=reason)
    return Upkept(len(files), len(files) - len(small) + len(staged.paths()))


def vacuum(table: LakeTable, retention: timedelta) -> list[str]:
    """Delete files that are in no version younger than `retention`; see `LakeTable.vacuum`."""
    handle = table.open()
    if handle is None:
        return []
    hours = -(-retention // timedelta(hours=1))
    return handle.delta.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)


def tidy(handle: Handle) -> Upkept:
    """Optimise and vacuum when there are many small files; see `LakeTable.tidy`."""
    from deltalake.exceptions import DeltaError

    from etl_resources.lake import RETENTION, TARGET_FILE_BYTES

    table = handle.table
    if sum(file.size < SMALL_BYTES for file in handle.data_files()) <= MANY_FILES:
        return Upkept(reason="there are few small files")
    try:
        done = optimize(table, TARGET_FILE_BYTES, below=SMALL_BYTES)
        deleted = vacuum(table, RETENTION) if done.compacted else []
    except (DeltaError, OSError) as error:
        # The data are committed: that a table could not be tidied must not make their run a failed one.
        _log.warning("%s was not compacted: %s", table.name, error)
        return Upkept(reason=f"not compacted now: {error}")
    return Upkept(done.before, done.after, len(deleted), done.reason)


def _copy(handle: Handle, files: Sequence[DataFile], staged: Staging) -> None:
    """Write the rows of the files into new ones, in the order in which they came."""
    import pyarrow.parquet as pq

    from etl_resources.delta.evolution import conform

    store, schema, where = staged.store, handle.schema(), handle.table.name
    for file in sorted(files, key=lambda file: file.modified):
        with pq.ParquetFile(store.read(file.path)) as parquet:
            for batch in parquet.iter_batches():
                staged.write(conform(batch, schema, where=where))
    staged.finish()
    expected = sum(file.rows for file in files)
    if staged.stored_rows != expected:
        raise RowsNotConservedError(
            f"{staged.stored_rows} rows came out of a compaction of {expected}; nothing was committed",
            where=where,
            fix="a data file has other rows than the log says: look for what else writes to the table",
        )


def _swap(handle: Handle, files: Sequence[DataFile], staged: Staging) -> None:
    from deltalake import CommitProperties

    from etl_resources.delta.commit import transactions_of
    from etl_resources.delta.swapping import actions
    from etl_resources.lake import REWRITE

    handle.delta.create_write_transaction(
        actions(files, staged, data_change=False),
        "append",
        handle.schema(),
        commit_properties=CommitProperties(
            custom_metadata={"upkeep": "compaction"},
            app_transactions=transactions_of({REWRITE: handle.committed(REWRITE) + 1}),
        ),
    )
