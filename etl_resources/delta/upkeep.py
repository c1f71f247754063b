"""Upkeep of tables: many small files become few large ones, and files that nobody needs any more are deleted.

It changes no row and moves no transaction, so it needs no account; and it gives way: where another run commits at the
same time, the compaction is the one that is not done.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etl_resources.delta.handle import Handle
    from etl_resources.lake import LakeTable

SMALL_BYTES = 16 * 2**20
"""A file below this size is a small one."""
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


def optimize(table: LakeTable, target_bytes: int) -> Upkept:
    """Put small files together; see `LakeTable.optimize`."""
    from deltalake.exceptions import CommitFailedError

    from etl_resources.lake import REWRITE

    handle = table.open()
    if handle is None:
        return Upkept(reason="the table does not exist")
    before = len(handle.file_sizes())
    try:
        handle.delta.optimize.compact(
            target_size=target_bytes, commit_properties=_properties({REWRITE: handle.committed(REWRITE) + 1})
        )
    except CommitFailedError as error:
        reason = f"not compacted now: another run changed the table ({str(error).splitlines()[0]})"
        _log.info("%s: %s", table.name, reason)
        return Upkept(before, before, reason=reason)
    return Upkept(before, len(handle.file_sizes()))


def vacuum(table: LakeTable, retention: timedelta) -> list[str]:
    """Delete files that are in no version younger than `retention`; see `LakeTable.vacuum`."""
    handle = table.open()
    if handle is None:
        return []
    hours = -(-retention // timedelta(hours=1))
    return handle.delta.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)


def tidy(table: LakeTable) -> Upkept:
    """Optimise and vacuum when there are many small files; see `LakeTable.tidy`."""
    from deltalake.exceptions import DeltaError

    from etl_resources.lake import RETENTION, TARGET_FILE_BYTES

    handle = table.open()
    if handle is None or not _scattered(handle):
        return Upkept(reason="there are few small files")
    try:
        done = optimize(table, TARGET_FILE_BYTES)
        deleted = vacuum(table, RETENTION) if done.compacted else []
    except (DeltaError, OSError) as error:
        # The data are committed: that a table could not be tidied must not make their run a failed one.
        _log.warning("%s was not compacted: %s", table.name, error)
        return Upkept(reason=f"not compacted now: {error}")
    return Upkept(done.before, done.after, len(deleted), done.reason)


def _scattered(handle: Handle) -> bool:
    small = sum(size < SMALL_BYTES for size in handle.file_sizes())
    return small > MANY_FILES


def _properties(versions: dict[str, int]) -> object:
    from deltalake import CommitProperties

    from etl_resources.delta.commit import transactions_of

    return CommitProperties(app_transactions=transactions_of(versions))
