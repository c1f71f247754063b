"""Bronze: what a source gave, as it came, appended with its provenance; one commit per piece of work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from etl_assets.account import RowAccount
from etl_assets.error_rows import from_unreadable
from etl_assets.error_writer import ErrorWriter
from etl_assets.errors import Budget
from etl_assets.ledger import Ledger
from etl_assets.partitions import Part, overtaken, read_batches
from etl_assets.provenance import identified, with_provenance
from etl_assets.run import Run
from etl_resources.exceptions import RowsNotConservedError
from etl_resources.lake import Commit, Handle, Lake, LakeTable
from etl_resources.source import Batch, Position, Snapshot, Source, Stream

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.delta.staging import Staging

COMMIT_ROWS = 2_000_000
"""A source that can resume in the middle is committed about every so many rows."""
REPEATED = "delivered_before"
"""What a queue delivered again, and the source recognised."""
REFRESH_MARK = "refresh"
"""Delta `txn` that holds the batch with which the newest full refresh began."""


@dataclass(frozen=True)
class Landed:
    """What one run brought into bronze."""

    account: RowAccount
    batches: tuple[int, ...]
    delta_version: int | None


@dataclass
class _Work:
    """A piece of work that is being staged: everything between two commits."""

    number: int
    staged: Staging
    schema: pa.Schema
    rows: int = 0
    read: int = 0
    unreadable: int = 0
    repeated: int = 0
    position: Position | None = None


class Bronze:
    """Lands one stream in `bronze/<pipeline>/<stream>`."""

    def __init__(
        self,
        lake: Lake,
        pipeline: str,
        stream: Stream,
        *,
        commit_rows: int = COMMIT_ROWS,
        budget: Budget = Budget(),  # noqa: B008 - frozen
    ) -> None:
        self.table: LakeTable = lake.table("bronze", pipeline, stream.name)
        self.budget = budget
        self.stream = stream
        self.app_id = self.table.name
        self.lake = lake
        self.ledger = Ledger(lake)
        # A snapshot, a partition and a full refresh are whole or not there: silver concludes from what is missing.
        whole = isinstance(stream.capture, Snapshot) or stream.window is not None
        self._commit_rows = None if whole else commit_rows

    def position(self) -> Position | None:
        """Return where the source has been read to."""
        return self.position_at(self.table.open())

    def position_at(self, handle: Handle | None) -> Position | None:
        """Return where the source had been read to as of `handle`: it stands in the newest commit."""
        if handle is None or handle.committed(self.app_id) == 0:
            return None
        # In the log while it is young, in the ledger for good.
        record = handle.record(self.app_id) or self.ledger.last_record(self.app_id) or {}
        return record.get("position")

    def land(self, source: Source, run: Run, *, full_refresh: bool = False) -> Landed:
        """Read what is new and append it.

        Raises:
            RowsNotConservedError: the source says it produced other rows than arrived, or it stopped before its end.
            ErrorBudgetExceededError: too many records are unreadable; the work of the message was not committed.
            ConcurrentCommitError: another run of the same stream was faster; this one wrote nothing more.
        """
        opened = self.table.open()
        if opened is not None:
            self.ledger.copy(opened, self.app_id)
            ErrorWriter(self.lake, self.app_id, run).settle(opened)
        fresh = full_refresh or self.stream.window is not None
        since = None if fresh else self.position_at(opened)
        landing = _Landing(self, run, opened, since=since, full_refresh=full_refresh)
        landed = landing.consume(source.read(self.stream, since), source)
        if landing.handle is not None:
            self._retire_errors(landing.handle, landing.errors)
        return landed

    def _retire_errors(self, handle: Handle, errors: ErrorWriter) -> None:
        """Close the errors of records that were read anew, by a snapshot, a full refresh, or the same partition."""
        import pyarrow as pa
        import pyarrow.compute as pc

        first = handle.committed(REFRESH_MARK)
        if isinstance(self.stream.capture, Snapshot) and self.stream.window is None:
            first = handle.committed(self.app_id)
        old: set[int] = set()
        if self.stream.window is not None:
            old = overtaken(read_batches(self.ledger.rows(self.app_id, max(first - 1, 0))))
        if first or old:
            again = pa.array(sorted(old), pa.int64())
            errors.retire(
                lambda rows: pc.or_(pc.less(rows["commit"], first), pc.is_in(rows["commit"], value_set=again)),
                "obsolete",
                "its records were read anew",
            )


class _Landing:
    """One run of `Bronze.land`."""

    def __init__(
        self, bronze: Bronze, run: Run, handle: Handle | None, *, since: Position | None, full_refresh: bool
    ) -> None:
        self.bronze, self.run, self.handle, self.since, self.full_refresh = bronze, run, handle, since, full_refresh
        self.errors = ErrorWriter(bronze.lake, bronze.app_id, run)
        # Counted from what the position was read from: whoever commits in between makes this run be refused.
        self.number = (handle.committed(bronze.app_id) if handle is not None else 0) + 1
        self.read_at = datetime.now(UTC)
        self.account = RowAccount()
        self.batches: list[int] = []
        self.version: int | None = None
        self.work: _Work | None = None
        self.read_before = 0

    def consume(self, batches: Iterator[Batch], source: Source) -> Landed:
        """Stage every batch, committing where the source can resume."""
        limit = None if self.full_refresh else self.bronze._commit_rows  # noqa: SLF001 - one class in two halves
        try:
            for batch in batches:
                work = self._stage(batch)
                if batch.position is not None:
                    work.position = batch.position
                    if limit is not None and (batch.commit or work.rows >= limit):
                        self._commit(work, source)
            if self.work is not None:
                self._check_end(self.work)
                self._commit(self.work, source)
        except BaseException:
            if self.work is not None:
                self.work.staged.discard()
            self.errors.discard()
            raise
        return Landed(self.account, tuple(self.batches), self.version)

    def _check_end(self, work: _Work) -> None:
        """Notice a read that stopped before its end: the last batch carries a position, and only that in a snapshot."""
        if work.position is None and self.bronze.stream.window is None:
            raise RowsNotConservedError(
                f"the source ended after {work.read} records without the position that its last batch carries",
                where=self.bronze.table.name,
                fix="nothing more was committed; run again, and report it if it comes again: a defect of the source",
            )

    def _stage(self, batch: Batch) -> _Work:
        from etl_resources.delta.evolution import conform, landing_schema, merge_schemas

        table = self.bronze.table
        partitioned = self.bronze.stream.window is not None
        incoming = with_provenance(landing_schema(batch.data.schema), partitioned=partitioned, where=table.name)
        if self.work is None:
            # Silver prunes by the batch; the rest may be personal data, which the log would keep for good.
            personal = [name for name in incoming.names if not name.startswith("_")]
            handle = self.handle or table.ensure(incoming, personal=personal)
            self.handle = table.evolve(handle, incoming)
            schema = self.handle.schema()
            self.work = _Work(self.number, table.stage(self.handle, schema), schema)
        work = self.work
        merged = merge_schemas(work.schema, incoming, where=table.name)
        if not merged.equals(work.schema):
            assert self.handle is not None  # noqa: S101 - set with the work
            self.handle = table.evolve(self.handle, incoming)
            work.schema = self.handle.schema()
            work.staged.widen(work.schema)
        rows = identified(batch.data, work.number, work.rows, self.read_at, self.bronze.stream.window)
        work.staged.write(conform(rows, work.schema, where=table.name))
        work.rows += batch.data.num_rows
        work.read = batch.rows_read - self.read_before
        work.repeated += batch.repeated
        if batch.unreadable is not None and batch.unreadable.num_rows:
            first = work.rows + work.unreadable
            work.unreadable += batch.unreadable.num_rows
            self.errors.stage(from_unreadable(batch.unreadable, self.bronze.app_id, work.number, first, self.run))
        self.run.progress(self.bronze.app_id, self.account.read + work.read)
        return work

    def _commit(self, work: _Work, source: Source) -> None:
        bronze, handle = self.bronze, self.handle
        assert handle is not None  # noqa: S101 - set when the first batch was staged
        work.staged.finish()
        account = RowAccount(
            read=work.read,
            inserted=work.staged.stored_rows,
            filtered={REPEATED: work.repeated} if work.repeated else {},
            rejected={"unreadable": work.unreadable} if work.unreadable else {},
        ).check(where=bronze.table.name)
        total = self.account + account
        bronze.budget.check(dict(total.rejected), total.read, where=bronze.table.name)
        self.run.point("bronze:before_errors")
        marks = self.errors.commit(work.number, handle, work.unreadable)
        self.run.point("bronze:before_commit")
        window = bronze.stream.window
        record = {
            "run_id": self.run.run_id,
            "attempt": self.errors.attempt,
            "account": account.to_json(),
            # A partition neither uses nor moves the position.
            "position": bronze.position_at(handle) if window is not None else work.position,
            "partition": None if window is None else Part.of(window).to_json(),
        }
        if self.full_refresh and window is None:
            marks[REFRESH_MARK] = work.number
        commit = Commit(bronze.app_id, work.number, record, marks)
        self.handle = bronze.table.append(handle, work.staged, commit)
        self.work = None
        self.version = self.handle.version
        self.number += 1
        self.run.point("bronze:after_commit")
        bronze.ledger.copy(self.handle, bronze.app_id)
        self.errors.settle(self.handle)
        self.read_before += work.read
        self.account = total
        self.batches.append(work.number)
        self.run.point("bronze:before_acknowledge")
        if work.position is not None:
            source.acknowledge(bronze.stream, work.position)
        bronze.table.tidy(self.handle)
