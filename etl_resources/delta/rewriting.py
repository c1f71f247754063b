"""Commits that put rows in the place of all others, or of those that satisfy a condition.

delta-rs commits and tells afterwards what it did. So the rows that go in are counted before the commit, and what came
of them is compared after it; a commit that did something else is taken back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.counted import Counted
from etl_resources.delta.commit import Commit, transactions_of
from etl_resources.exceptions import RowsNotConservedError

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.delta.handle import Handle
    from etl_resources.delta.staging import Staging

Source = Callable[[], "pa.RecordBatchReader"]


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows that a commit inserts, updates and deletes."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0


def replace(handle: Handle, staged: Staging, commit: Commit, rewrite: str) -> None:
    """Put the staged files in place of all others; see `LakeTable.replace`."""
    adds, before = staged.finish(), handle.version
    # Delta notices no conflict between this and a compaction: both name all files, and rows would be doubled.
    properties = commit.properties({rewrite: handle.committed(rewrite) + 1})
    handle.delta.create_write_transaction([*adds], "overwrite", staged.schema, commit_properties=properties)
    handle.refresh()
    if handle.committed(commit.app_id) == commit.version and handle.rows() != staged.stored_rows:
        raise taken_back(handle, before, commit, f"the table has {handle.rows()} rows instead of {staged.stored_rows}")


def replace_where(handle: Handle, source: Source, predicate: str, commit: Commit, expected: Changes) -> None:
    """Put the rows of `source` in place of those that satisfy `predicate`; see `LakeTable.replace_where`."""
    from deltalake import write_deltalake

    before, rows = handle.version, Counted(source(), expected.inserted, handle.schema())
    wanted = handle.rows() - expected.deleted + expected.inserted
    with rows.checked(handle.table.name):
        write_deltalake(
            handle.delta,
            rows.reader(),
            mode="overwrite",
            predicate=predicate,
            commit_properties=commit.properties(),
        )
    if not _marked(handle, commit, expected) and handle.rows() != wanted:
        raise taken_back(handle, before, commit, f"the table has {handle.rows()} rows instead of {wanted}")


def _marked(handle: Handle, commit: Commit, expected: Changes) -> bool:
    """Keep the transaction of a commit that changed nothing: delta-rs makes no commit then, and drops it."""
    if handle.committed(commit.app_id) >= commit.version:
        return False
    if expected != Changes():
        raise RowsNotConservedError(
            f"Delta changed nothing, but {expected} was to be changed; nothing was committed",
            where=handle.table.name,
            fix="this is a defect of the platform or of the storage: please report it",
        )
    # By the same handle, so that another run that has done the same work in the meantime is noticed.
    handle.delta.create_write_transaction([], "append", handle.schema(), commit_properties=commit.properties())
    return True


def taken_back(handle: Handle, before: int, commit: Commit, what: str) -> RowsNotConservedError:
    """Undo the commit, its transactions included, and return the error that says so."""
    from deltalake import CommitProperties

    table = handle.table
    fresh, old = table.open(), table.open(before)
    assert fresh is not None  # noqa: S101 - it was just written
    assert old is not None  # noqa: S101 - it was just written
    undone = fresh.version == handle.version
    if undone:
        earlier = transactions_of({name: old.committed(name) for name in (commit.app_id, *commit.marks)})
        fresh.delta.restore(before, commit_properties=CommitProperties(app_transactions=earlier))
    return RowsNotConservedError(
        f"number {commit.version} of {commit.app_id} changed other rows than it should have: {what}; "
        + ("the commit was taken back" if undone else f"version {handle.version} of the table is WRONG"),
        where=table.name,
        fix="this is a defect of the platform or of the storage: please report it"
        + ("" if undone else f"; restore version {before} and run again"),
    )
