"""A commit that puts staged files in place of some others; whatever else is appended meanwhile stays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etl_resources.delta.commit import Commit, lost
from etl_resources.delta.rewriting import _taken_back

if TYPE_CHECKING:
    from etl_resources.delta.handle import DataFile, Handle
    from etl_resources.delta.staging import Staging


def swap(handle: Handle, files: Sequence[DataFile], staged: Staging, commit: Commit) -> Handle:
    """Put the staged files in place of `files`; returns the table after it.

    Raises:
        ConcurrentCommitError: another run has rewritten some of the files, or has done the same; nothing was committed.
        RowsNotConservedError: the table has other rows after it than it should; it is as it was.
    """
    from deltalake.transaction import RemoveAction

    from etl_resources.lake import REWRITE

    table, gone = handle.table, {file.path for file in files}
    staged.finish()

    def write(opened: Handle) -> None:
        present = {file.path for file in opened.data_files()}
        if not gone <= present:
            # Delta would add the new files all the same, and rows would be doubled.
            raise lost(opened, commit)
        before, version = opened.rows(), opened.version
        now = int(time.time() * 1000)
        removes = [
            RemoveAction(path=file.path, data_change=True, deletion_timestamp=now, size=file.size, partition_values={})
            for file in files
        ]
        properties = commit.properties({REWRITE: opened.committed(REWRITE) + 1})
        opened.delta.create_write_transaction(
            [*removes, *staged.actions(data_change=True)], "append", opened.schema(), commit_properties=properties
        )
        wanted = before - sum(file.rows for file in files) + staged.stored_rows
        opened.refresh()
        done = table.open(opened.version)
        if opened.version == version + 1 and done is not None and done.rows() != wanted:
            raise _taken_back(opened, version, commit, f"the table has {done.rows()} rows instead of {wanted}")

    with staged.committing(table._files):  # noqa: SLF001 - a part of it, in a room of its own
        return table._commit(handle, commit, write)  # noqa: SLF001 - as above
