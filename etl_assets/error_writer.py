"""The errors of one piece of work: committed before its data, and settled after them.

Between the two commits a run may be killed, or another run may be faster. So a row of `ops/errors` names the attempt
that wrote it, the data name the attempt that came through, and what other attempts have written is withdrawn, at once
or by the next run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from etl_assets.error_rows import Status, error_schema, filled
from etl_assets.errors import ErrorTable, newest
from etl_assets.run import Run
from etl_resources.exceptions import ConcurrentCommitError, RowsNotConservedError
from etl_resources.lake import Commit, Handle, Lake

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.delta.staging import Staging

SEEN = "errors"
"""Delta `txn` of a data table: how many attempts had written errors for it when its newest commit was made."""


class ErrorWriter:
    """Writes the errors of `app_id`, one piece of work after the other."""

    def __init__(self, lake: Lake, app_id: str, run: Run) -> None:
        self.errors = ErrorTable(lake)
        self.app_id, self.run = app_id, run
        self.attempt = f"{run.run_id}:{uuid4().hex[:8]}"
        self._staged: Staging | None = None
        self._handle: Handle | None = None
        self._newest: Handle | None = None

    def stage(self, rows: pa.Table) -> None:
        """Keep rows of `error_schema()` for the next `commit`, on disk."""
        if rows.num_rows == 0:
            return
        if self._staged is None:
            self._handle = self.errors.ensure()
            self._staged = self.errors.table.stage(self._handle, error_schema())
        assert self._handle is not None  # noqa: S101 - set together
        for batch in filled(rows, attempt=self.attempt, event=self._handle.version + 1).to_batches():
            self._staged.write(batch)

    def discard(self) -> None:
        """Drop what was staged."""
        if self._staged is not None:
            self._staged.discard()
            self._staged = None

    def commit(self, number: int, data: Handle | None, rows: int) -> dict[str, int]:
        """Commit what was staged for piece of work `number`; returns marks for the commit of its data.

        Args:
            data: the data table as it is before the piece of work.
            rows: how many errors there must be, as the account says.

        Raises:
            RowsNotConservedError: others were staged; nothing was committed.
            ConcurrentCommitError: another run is writing errors of the same table at this moment.
        """
        self._check(rows)
        handle = self._open()
        attempts = handle.committed(self._attempts) if handle is not None else 0
        clean = attempts == 0 or attempts <= self._settled(data, handle)
        if self._staged is not None:
            assert handle is not None  # noqa: S101 - staging created it
            attempts += 1
            marks = {self.app_id: max(number, handle.committed(self.app_id))}
            try:
                self.errors.table.append(handle, self._staged, Commit(self._attempts, attempts, marks=marks))
            except ConcurrentCommitError as error:
                raise ConcurrentCommitError(
                    f"another run works on number {number} of {self.app_id} at the same time; this run wrote nothing",
                    where=self.app_id,
                    fix="nothing is lost or doubled; run again when the other run has ended",
                ) from error
            self._staged = None
            self.errors.table.tidy(handle)
        return {SEEN: attempts} if clean and attempts else {}

    def _check(self, rows: int) -> None:
        staged = 0
        if self._staged is not None:
            self._staged.finish()
            staged = self._staged.stored_rows
        if staged != rows:
            raise RowsNotConservedError(
                f"{rows} rows were rejected, but {staged} were kept as errors; nothing was committed",
                where=self.app_id,
                fix="this is a defect of the platform or of the storage: please report it",
            )

    def ever(self) -> bool:
        """Tell, by a look at the log alone, whether errors of this table were ever committed."""
        handle = self._open()
        return handle is not None and handle.committed(self._attempts) > 0

    def settle(self, data: Handle | None) -> None:
        """Withdraw what overtaken or killed attempts at the newest piece of work wrote; cheap if there were none."""
        handle = self._open()
        if data is None or handle is None:
            return
        if handle.committed(self._attempts) <= self._settled(data, handle):
            return
        record: dict[str, Any] = data.record(self.app_id) or {}
        if "attempt" in record:
            self.settle_as(data.committed(self.app_id), record["attempt"])

    def settle_as(self, number: int, winner: str) -> None:
        """Withdraw what other attempts than `winner` wrote for piece of work `number`."""
        handle = self._open()
        attempts = handle.committed(self._attempts) if handle is not None else 0
        if handle is None or attempts <= handle.committed(self._settled_mark):
            return
        self.withdraw(number, winner)
        if handle.committed(self.app_id) <= number:  # else a killed run wrote for a number that is still to come
            nothing = error_schema().empty_table()
            self.errors.close(nothing, "withdrawn", "", self.run, marks={self._settled_mark: attempts})

    def withdraw(self, number: int, winner: str) -> None:
        """Take back the errors of piece of work `number` that only other attempts than `winner` have found."""
        import pyarrow.compute as pc

        events = self.errors.events({"asset": self.app_id, "commit": number})
        found = pc.filter(events["error_id"], pc.equal(events["attempt"], winner)).combine_chunks()
        last = newest(events)
        others = pc.and_(pc.equal(last["status"], "open"), pc.invert(pc.is_in(last["error_id"], value_set=found)))
        ids = pc.filter(last["error_id"], others).combine_chunks()
        if len(ids) == 0:
            return
        # A row that was rejected earlier as well is again in the state that it was in before.
        history = self.errors.events({"asset": self.app_id}, ids=ids)
        overtaken = pc.and_(pc.equal(history["commit"], number), pc.not_equal(history["attempt"], winner))
        before = newest(history.filter(pc.invert(overtaken)))
        new = pc.invert(pc.is_in(last["error_id"], value_set=before["error_id"].combine_chunks()))
        self.errors.restate(before)
        note = "found by a run that was killed or overtaken"
        self.errors.close(last.filter(pc.and_(others, new)), "withdrawn", note, self.run)

    def retire(self, is_stale: Callable[[pa.Table], Any], status: Status, note: str) -> None:
        """Close the open errors of this table for which `is_stale` holds.

        Args:
            is_stale: gives booleans for a table with the columns `commit`, `batch` and `attempt`.
            status: what has become of them.
            note: why.
        """
        import pyarrow.compute as pc

        columns = ("error_id", "status", "commit", "batch", "attempt", "event", "happened_at")
        last = newest(self.errors.events({"asset": self.app_id}, columns=columns))
        last = last.filter(pc.equal(last["status"], "open"))
        ids = pc.filter(last["error_id"], is_stale(last)).combine_chunks()
        if len(ids):
            rows = newest(self.errors.events({"asset": self.app_id}, ids=ids))
            self.errors.close(rows, status, note, self.run)

    def _open(self) -> Handle | None:
        """Return the errors as they are now; None: there were never any."""
        self._newest = self.errors.table.newest(self._newest)
        return self._newest

    @property
    def _attempts(self) -> str:
        return f"{self.app_id}#attempts"

    @property
    def _settled_mark(self) -> str:
        return f"{self.app_id}#settled"

    def _settled(self, data: Handle | None, handle: Handle | None) -> int:
        seen = data.committed(SEEN) if data is not None else 0
        return max(seen, handle.committed(self._settled_mark) if handle is not None else 0)
