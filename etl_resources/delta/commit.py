"""Identity of a commit, and the fence that lets it through once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConcurrentCommitError

if TYPE_CHECKING:
    from deltalake import CommitProperties

    from etl_resources.delta.handle import Handle

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

    def properties(self, marks: Mapping[str, int] | None = None) -> CommitProperties:
        """Return what delta-rs wants; `marks` are added to the commit's own."""
        from deltalake import CommitProperties

        text = json.dumps({**self.record, "app_id": self.app_id, "version": self.version}, default=str)
        transactions = transactions_of({self.app_id: self.version, **self.marks, **(marks or {})})
        return CommitProperties(custom_metadata={COMMIT_KEY: text}, app_transactions=transactions)


def transactions_of(versions: Mapping[str, int]) -> list[Any]:
    """Return the Delta transactions for application id -> version."""
    from deltalake import Transaction

    return [Transaction(app_id, version) for app_id, version in versions.items()]


class RewrittenError(ConcurrentCommitError):
    """The files or the columns of the table changed, but nobody committed under the same application id.

    So the content that the commit was decided on is still there, and the commit may be tried on a fresh handle.
    """


@contextmanager
def fence(handle: Handle, commit: Commit) -> Iterator[None]:
    """Let a commit through once; by the handle, Delta notices anybody who was faster.

    Raises:
        RewrittenError: somebody changed the table in another way; nothing was written.
        ConcurrentCommitError: another run committed the same piece of work; nothing was written.
    """
    from deltalake.exceptions import CommitFailedError

    if handle.committed(commit.app_id) >= commit.version:
        raise lost(handle, commit)
    try:
        yield
    except CommitFailedError as error:
        fresh = handle.table.open()
        if fresh is None or fresh.committed(commit.app_id) != handle.committed(commit.app_id):
            raise lost(handle, commit) from error
        raise RewrittenError(
            f"the table was changed while number {commit.version} of {commit.app_id} was being committed, and this run "
            f"wrote nothing; Delta says: {str(error).splitlines()[0]}",
            where=handle.table.name,
            fix="nothing is lost or doubled; run again",
        ) from error


def lost(handle: Handle, commit: Commit) -> ConcurrentCommitError:
    """Return the error that says that another run was faster."""
    return ConcurrentCommitError(
        f"another run committed to {commit.app_id} first, so number {commit.version} was not written",
        where=handle.table.name,
        fix="nothing is lost or doubled; run again if there may be more to do, and do not start two runs at once",
    )
