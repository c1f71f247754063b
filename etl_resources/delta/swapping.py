"""A commit that puts staged files in place of some others; whatever else is appended meanwhile stays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etl_resources.delta.commit import Commit, lost
from etl_resources.delta.rewriting import taken_back

if TYPE_CHECKING:
    from deltalake.transaction import AddAction, RemoveAction

    from etl_resources.delta.handle import DataFile, Handle
    from etl_resources.delta.staging import Staging


def swap(handle: Handle, files: Sequence[DataFile], staged: Staging, commit: Commit) -> Handle:
    """Put the staged files in place of `files`; returns the table after it.

    Raises:
        ConcurrentCommitError: another run has rewritten some of the files, or has done the same; nothing was committed.
        RowsNotConservedError: the table has other rows after it than it should; it is as it was.
    """
    table = handle.table
    staged.finish()
    with staged.committing(table._files):  # noqa: SLF001 - a part of it, in a room of its own
        return table._commit(handle, commit, lambda opened: exchange(opened, files, staged, commit))  # noqa: SLF001


def exchange(
    opened: Handle, files: Sequence[DataFile], staged: Staging, commit: Commit, *, alone: bool = False
) -> None:
    """Commit the finished files of `staged` in place of `files` by this very handle.

    Args:
        alone: what is committed was decided on the whole table, so that nobody may have put rows into it meanwhile.

    Raises:
        ConcurrentCommitError, RowsNotConservedError: as `swap`.
    """
    from etl_resources.lake import REWRITE

    gone = {file.path for file in files}
    before = {file.path: file.rows for file in opened.data_files()}
    if not gone <= before.keys():
        # Delta would add the new files all the same, and rows would be doubled.
        raise lost(opened, commit)
    version, properties = opened.version, commit.properties({REWRITE: opened.committed(REWRITE) + 1})
    opened.delta.create_write_transaction(
        actions(files, staged, data_change=True), "append", opened.schema(), commit_properties=properties
    )
    opened.refresh()
    _verify(opened, version, before, gone, staged.stored_rows, commit, alone=alone)


def actions(files: Sequence[DataFile], staged: Staging, *, data_change: bool) -> list[AddAction | RemoveAction]:
    """Return what puts the staged files in place of `files`; without `data_change` they hold the same rows."""
    from deltalake.transaction import RemoveAction

    now = int(time.time() * 1000)
    removes = [
        RemoveAction(
            path=file.path, data_change=data_change, deletion_timestamp=now, size=file.size, partition_values={}
        )
        for file in files
    ]
    return [*removes, *staged.actions(data_change=data_change)]


def _verify(
    opened: Handle, version: int, before: dict[str, int], gone: set[str], stored: int, commit: Commit, *, alone: bool
) -> None:
    """Look at the table right before and right behind the commit; what Delta let pass all the same is taken back.

    Between the version that was read and the commit there may be others: Delta sees no conflict between a commit of
    this kind and one that rewrites the same files without our mark.
    """
    table, files = opened.table, before
    for number in range(version + 1, opened.version + 1):
        found = opened if number == opened.version else table.open(number)
        if found is None:
            return  # nobody keeps versions for so short a time; the fence has looked whether the commit is there
        if found.committed(commit.app_id) < commit.version:
            files = {file.path: file.rows for file in found.data_files()}
            continue
        wanted = sum(files.values()) - sum(before[path] for path in gone) + stored
        if not gone <= files.keys() or (alone and files.keys() != before.keys()):
            raise taken_back(opened, number - 1, commit, "somebody else changed the table at the same time")
        if found.rows() != wanted:
            raise taken_back(opened, number - 1, commit, f"the table has {found.rows()} rows instead of {wanted}")
        return
