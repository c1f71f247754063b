"""Landing: records are staged beside a bronze table and committed with account, position and errors, piece by piece."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etl_assets.account import RowAccount
from etl_assets.error_rows import from_unreadable
from etl_assets.error_writer import ErrorWriter
from etl_assets.partitions import Part
from etl_assets.provenance import identified, with_provenance
from etl_assets.run import Run
from etl_resources.delta.memory import use_frugal_pool
from etl_resources.lake import Commit, Handle
from etl_resources.source import Batch, Position

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.bronze import Bronze
    from etl_resources.delta.staging import Staging

_log = logging.getLogger(__name__)
LEDGER_SECONDS = 5.0
"""For how long the ledger may be behind the commits of a run; what a killed run left out, the next one copies."""
REPEATED = "delivered_before"
"""What a queue or a log delivered again, and the source recognised."""


@dataclass(frozen=True)
class Landed:
    """What one run brought into bronze."""

    account: RowAccount
    batches: tuple[int, ...]
    delta_version: int | None


@dataclass
class Piece:
    """A piece of work that is being staged: everything between two commits."""

    number: int
    staged: Staging
    schema: pa.Schema
    """Columns of the table."""
    given: pa.Schema
    """Columns of the last batch of the source, which `schema` holds."""
    rows: int = 0
    read: int = 0
    unreadable: int = 0
    repeated: int = 0
    unchanged: int = 0
    position: Position | None = None


class Landing:
    """One run's way into one bronze table; `narrow`: it lands many tables at once."""

    def __init__(self, bronze: Bronze, run: Run, handle: Handle | None, *, narrow: bool = False) -> None:
        use_frugal_pool()  # before the source takes memory: what is taken here and given back there costs twice
        self.bronze, self.run, self.handle, self._narrow = bronze, run, handle, narrow
        self.errors = ErrorWriter(bronze.lake, bronze.app_id, run)
        # Counted from what the position was read from: whoever commits in between makes this run be refused.
        self.number = (handle.committed(bronze.app_id) if handle is not None else 0) + 1
        self.read_at = datetime.now(UTC)
        self.account = RowAccount()
        self.batches: list[int] = []
        self.version: int | None = None
        self.piece: Piece | None = None
        self.read_before = 0
        self._copied_at = time.monotonic()

    def landed(self) -> Landed:
        """Copy the accounts into the ledger; returns what has been committed."""
        self._copy_accounts()
        return Landed(self.account, tuple(self.batches), self.version)

    def prepare(self, schema: pa.Schema) -> Handle:
        """Open the table with the columns of a stream, creating or widening it; returns the handle to commit with."""
        from etl_resources.delta.evolution import landing_schema

        table, partitioned = self.bronze.table, self.bronze.stream.window is not None
        incoming = with_provenance(landing_schema(schema), partitioned=partitioned, where=table.name)
        # Silver prunes by the batch; the rest may be personal data, which the log would keep for good.
        personal = [name for name in incoming.names if not name.startswith("_")]
        self.handle = table.evolve(self.handle or table.ensure(incoming, personal=personal), incoming)
        return self.handle

    def stage(self, batch: Batch) -> Piece:
        """Write a batch beside the table; nobody sees it before `commit`."""
        from etl_resources.delta.evolution import conform, landing_schema, merge_schemas

        table, window = self.bronze.table, self.bronze.stream.window
        if self.piece is None:
            handle = self.prepare(batch.data.schema)
            schema = handle.schema()
            self.piece = Piece(self.number, table.stage(handle, schema, narrow=self._narrow), schema, batch.data.schema)
        piece = self.piece
        if not batch.data.schema.equals(piece.given):
            piece.given = batch.data.schema
            incoming = with_provenance(landing_schema(piece.given), partitioned=window is not None, where=table.name)
            if not merge_schemas(piece.schema, incoming, where=table.name).equals(piece.schema):
                piece.schema = self.prepare(piece.given).schema()
                piece.staged.widen(piece.schema)
        rows = conform(
            identified(batch.data, piece.number, piece.rows, self.read_at, window), piece.schema, where=table.name
        )
        piece.staged.write(rows)
        piece.rows += batch.data.num_rows
        piece.read = batch.rows_read - self.read_before
        piece.repeated += batch.repeated
        if batch.unreadable is not None and batch.unreadable.num_rows:
            first = piece.rows + piece.unreadable
            piece.unreadable += batch.unreadable.num_rows
            self.errors.stage(from_unreadable(batch.unreadable, self.bronze.app_id, piece.number, first, self.run))
        self.run.progress(self.bronze.app_id, self.account.read + piece.read)
        return piece

    def same(self, rows: int) -> None:
        """Count rows that were read and are in the table as they are; a batch must have been staged before."""
        assert self.piece is not None  # noqa: S101 - see above
        self.piece.unchanged += rows

    def discard(self) -> None:
        """Give up what is staged, because of an error; what was committed before stays, and is accounted for."""
        if self.piece is not None:
            self.piece.staged.discard()
            self.piece = None
        self.errors.discard()
        try:
            self._copy_accounts()
        except Exception as error:  # noqa: BLE001 - the one on its way says more; the next run copies them first of all
            _log.warning("the accounts of %s were not copied: %s", self.bronze.table.name, error)

    def commit(
        self,
        position: Position | None,
        *,
        marks: Mapping[str, int] | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Commit what is staged, errors first; with nothing staged, the position alone.

        Args:
            position: where the source has been read to.
            marks: further Delta transactions of the commit.
            record: further entries of the commit's record.

        Raises:
            RowsNotConservedError: the source says it produced other rows than arrived.
            ErrorBudgetExceededError: too many records are unreadable.
            ConcurrentCommitError: another run of the same stream was faster; nothing was written.
        """
        bronze, handle, piece = self.bronze, self.handle, self.piece
        assert handle is not None  # noqa: S101 - set by `prepare`
        account = self._account(piece)
        total = self.account + account
        bronze.budget.check(dict(total.rejected), total.read, where=bronze.table.name)
        self.run.point("bronze:before_errors")
        errors = self.errors.commit(self.number, handle, piece.unreadable if piece is not None else 0)
        self.run.point("bronze:before_commit")
        window = bronze.stream.window
        entries = {
            "run_id": self.run.run_id,
            "attempt": self.errors.attempt,
            "account": account.to_json(),
            "position": position,
            "partition": None if window is None else Part.of(window).to_json(),
            **(record or {}),
        }
        commit = Commit(bronze.app_id, self.number, entries, {**errors, **(marks or {})})
        if piece is None:
            self.handle = bronze.table.mark(handle, commit)
        else:
            self.handle = bronze.table.append(handle, piece.staged, commit)
            self.read_before += piece.read
        self.piece = None
        self.version = self.handle.version
        self.batches.append(self.number)
        self.number += 1
        self.run.point("bronze:after_commit")
        self.errors.settle(self.handle)
        self.account = total
        if time.monotonic() - self._copied_at > LEDGER_SECONDS:
            self._copy_accounts()

    def _copy_accounts(self) -> None:
        """Bring the ledger up to date; it is a table with a commit of its own, as dear as that of the rows."""
        if self.handle is not None and self.batches:
            self.bronze.ledger.copy(self.handle, self.bronze.app_id)
            self._copied_at = time.monotonic()

    def _account(self, piece: Piece | None) -> RowAccount:
        if piece is None:
            return RowAccount()
        piece.staged.finish()
        return RowAccount(
            read=piece.read,
            inserted=piece.staged.stored_rows,
            unchanged=piece.unchanged,
            filtered={REPEATED: piece.repeated} if piece.repeated else {},
            rejected={"unreadable": piece.unreadable} if piece.unreadable else {},
        ).check(where=self.bronze.table.name)
