"""Compaction of a change log: of closed days, only the events that silver and replays still need stay in bronze.

One Delta commit puts them in place of all; a kill leaves the old or the new. What stays keeps its `_batch` and `_row`,
and columns that an event left out are filled, because the events that had them go. Only what silver has judged is
compacted, so that the errors tell which events decided nothing. Silver is not touched; a silver table that is older
than the compaction (restored, say) is built anew by its next run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from etl_assets.account import RowAccount
from etl_assets.compaction_keeping import KEPT, find_kept
from etl_assets.compaction_record import COMPACTED_MARK, compacted, compaction_of
from etl_assets.run import Run
from etl_assets.silver_changes import completed
from etl_assets.silver_extent import rows_between
from etl_assets.silver_work import BRONZE_MARK
from etl_resources.exceptions import ConcurrentCommitError, RowsNotConservedError
from etl_resources.lake import Commit, Handle

if TYPE_CHECKING:
    from etl_assets.silver import Silver
    from etl_resources.delta.handle import DataFile
    from etl_resources.delta.staging import Staging
    from etl_resources.engines.duckdb import Session

WORTH = 0.1
"""A run compacts by itself when this share of what is closed is new since the last time, and this share would go."""


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt: events that stay and that went, or why nothing was done."""

    kept: int = 0
    gone: int = 0
    upto: int = 0
    reason: str = ""


def compact(silver: Silver, run: Run, days: int, *, now: datetime | None = None, worth: float = WORTH) -> Outcome:
    """Compact the bronze table under a silver table that follows a change log.

    Args:
        days: whole days (UTC) before today that stay as they are.
        now: the moment to count from; default: now.
        worth: do it only if this share of the events is new, and this share would go; 0: in any case.

    Raises:
        RowsNotConservedError: bronze has other rows than its accounts say; nothing was committed.
    """
    bronze, handle = silver.bronze.open(), silver.table.open()
    if bronze is None or handle is None:
        return Outcome(reason="silver has not been built yet")
    today = (now or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
    found = _closed(silver, bronze, handle.committed(BRONZE_MARK), today, days, worth)
    if isinstance(found, str):
        return Outcome(reason=found)
    try:
        return _Compacting(silver, run, bronze, handle, found).commit(worth)
    except ConcurrentCommitError as error:
        # Nothing is late, nothing is lost: what was to be done is still there tomorrow.
        return Outcome(reason=f"another run changed the table: {error.what}")


@dataclass(frozen=True)
class _Closed:
    """What is to be compacted: the batches up to `upto`, of which the accounts know `rows` events."""

    upto: int
    rows: int
    number: int
    """Of the compaction."""


def _closed(silver: Silver, bronze: Handle, judged: int, today: datetime, days: int, worth: float) -> _Closed | str:
    """Return what can be compacted, or why nothing can."""
    silver.ledger.copy(bronze, silver.bronze.name)
    last = compacted(silver.ledger, bronze)
    if worth and last is not None and last.at >= today:
        return "it was done today already"
    above, before, number = (0, 0, 0) if last is None else (last.upto, last.kept, last.number)
    end = today - timedelta(days=days)
    closed = [row for row in silver.ledger.rows(silver.bronze.name, above) if row["committed_at"] < end]
    rows = [row for row in closed if row["version"] <= judged]
    fresh = sum(int(row["inserted"]) for row in rows)
    if fresh == 0:
        return "silver has not read further" if closed and judged <= above else "no further day with changes is closed"
    if fresh < worth * (before + fresh):
        return f"only {fresh} events have come since the last time"
    if not bronze.plain_files():
        return "the table has deletion vectors or partition columns"
    return _Closed(int(rows[-1]["version"]), before + fresh, number + 1)


class _Compacting:
    """One compaction."""

    def __init__(self, silver: Silver, run: Run, bronze: Handle, table: Handle, closed: _Closed) -> None:
        self.silver, self.run, self.bronze, self.table = silver, run, bronze, table
        self.upto, self.expected, self.number = closed.upto, closed.rows, closed.number

    def commit(self, worth: float) -> Outcome:
        """Find out what stays, and commit it."""
        with self.silver.engine.session() as session:
            log = rows_between(session, self.bronze, 0, self.upto)
            find_kept(self.silver, session, self.bronze, self.table, log, self.upto)
            there, kept = session.execute(
                f"SELECT (SELECT count(*) FROM {log}), (SELECT count(*) FROM {KEPT})"  # noqa: S608
            )[0]
            if there - kept < worth * there or there == kept:
                # Noted, so that the next attempt waits until there is more.
                self._record(None, [], RowAccount(read=self.expected, unchanged=there))
                return Outcome(there, 0, self.upto, "too few of the events would go")
            files, mixed = self._files()
            schema = self.bronze.schema()
            with self.silver.bronze.stage(self.bronze, schema) as staged:
                self._write(session, log, staged)
                account = RowAccount(read=self.expected, unchanged=staged.stored_rows, superseded=there - kept)
                self._copy_newer(files, mixed, staged)
                self._record(staged, files, account)
        self._delete_files()
        return Outcome(kept, there - kept, self.upto)

    def _files(self) -> tuple[list[DataFile], list[DataFile]]:
        """Return the files that have rows of the batches, and those of them that may have rows of later ones."""
        import pyarrow as pa

        actions = pa.table(self.bronze.delta.get_add_actions(flatten=True))
        known = actions.select([name for name in ("path", "min._batch", "max._batch") if name in actions.column_names])
        bounds = {action["path"]: action for action in known.to_pylist()}
        files = [f for f in self.bronze.data_files() if (bounds[f.path].get("min._batch") or 0) <= self.upto]
        return files, [f for f in files if (bounds[f.path].get("max._batch") or self.upto + 1) > self.upto]

    def _write(self, session: Session, log: str, staged: Staging) -> None:
        from etl_resources.delta.evolution import conform

        stays = f"(SELECT l.* FROM {log} l SEMI JOIN {KEPT} k ON k._batch = l._batch AND k._row = l._row)"  # noqa: S608
        whole = completed(session, stays, lambda: log, self.silver.spec.log_key)
        for batch in session.stream(f"SELECT * FROM {whole}"):  # noqa: S608
            staged.write(conform(batch, staged.schema, where=self.silver.bronze.name))
        # What comes behind goes into files of its own: readers of what is new leave these out.
        staged.widen(staged.schema)

    def _copy_newer(self, files: Sequence[DataFile], mixed: Sequence[DataFile], staged: Staging) -> None:
        """Copy the rows of later batches that are in the same files."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        from etl_resources.delta.evolution import conform

        before, copied = staged.stored_rows, 0
        for file in mixed:
            with pq.ParquetFile(staged.store.read(file.path)) as parquet:
                for batch in parquet.iter_batches():
                    newer = batch.filter(pc.greater(batch.column("_batch"), self.upto))
                    copied += newer.num_rows
                    staged.write(conform(newer, staged.schema, where=self.silver.bronze.name))
        staged.finish()
        rows = sum(file.rows for file in files)
        if copied != rows - self.expected or staged.stored_rows - before != copied:
            raise RowsNotConservedError(
                f"the files that are to be rewritten have {copied} rows of later batches and {self.expected} of those "
                f"up to {self.upto}, but {rows} in all, as the log of the table says",
                where=self.silver.bronze.name,
                fix="nothing was committed: look for what else writes to the table",
            )

    def _record(self, staged: Staging | None, files: Sequence[DataFile], account: RowAccount) -> None:
        """Commit, with an account of its own: `unchanged` are the events that stay, `superseded` those that went."""
        from etl_resources.delta.swapping import swap

        table = self.silver.bronze
        app_id = compaction_of(table.name)
        account.check(where=app_id)
        record = {"run_id": self.run.run_id, "account": account.to_json(), "compacted_upto": self.upto}
        commit = Commit(app_id, self.number, record, {COMPACTED_MARK: self.upto})
        self.run.point("compaction:before_commit")
        fresh = table.mark(self.bronze, commit) if staged is None else swap(self.bronze, files, staged, commit)
        self.run.point("compaction:after_commit")
        self.silver.ledger.copy(fresh, app_id)

    def _delete_files(self) -> None:
        import logging

        from deltalake.exceptions import DeltaError

        try:
            self.silver.bronze.vacuum()
        except (DeltaError, OSError) as error:
            # It is committed: that old files could not be deleted must not make it a failure.
            logging.getLogger(__name__).warning("%s: old files stay: %s", self.silver.bronze.name, error)
