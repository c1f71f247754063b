"""Publish: load a table of the lake into a target, once per version."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_assets.account import RowAccount
from etl_assets.error_rows import from_refused
from etl_assets.error_writer import ErrorWriter
from etl_assets.errors import Budget
from etl_assets.ledger import Ledger, ledger_row
from etl_assets.run import Run
from etl_resources.counted import Counted
from etl_resources.engines.duckdb import DuckDB, quote
from etl_resources.exceptions import ConfigurationError, ErrorBudgetExceededError, RowsNotConservedError
from etl_resources.lake import Handle, Lake
from etl_resources.target import CommitToken, Counts, Load, Mode, Target, TargetOptions

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class PublishSpec:
    """One table and where it goes."""

    pipeline: str
    name: str
    table: tuple[str, ...]
    options: TargetOptions
    mode: Mode
    key: Sequence[str] = ()
    budget: Budget = Budget()  # noqa: RUF009 - frozen


@dataclass(frozen=True)
class Published:
    """What one run did to a target."""

    account: RowAccount
    lake_version: int
    already_there: bool


class Publisher:
    """Loads one table into one target."""

    def __init__(self, lake: Lake, engine: DuckDB, spec: PublishSpec) -> None:
        self.lake, self.engine, self.spec = lake, engine, spec
        self.app_id = f"publish/{spec.pipeline}/{spec.name}"
        self.ledger = Ledger(lake)

    def publish(self, target: Target, run: Run) -> Published:
        """Load the newest version of the table, unless the target has it already.

        Raises:
            RowsNotConservedError: the target accounts for other rows than the table has.
            ErrorBudgetExceededError: the target refuses too many rows; nothing was published.
        """
        handle = self.lake.table(*self.spec.table).open()
        # The number of its commits, not its Delta version: a compaction changes no row and publishes nothing.
        number = handle.committed(handle.table.name) if handle is not None else 0
        if handle is None or number == 0:
            raise ConfigurationError(
                f"{'/'.join(self.spec.table)} has not been loaded yet", where=self.app_id, fix="materialize it first"
            )
        refusals = _Refusals(self, number, handle.rows(), run)
        counts = self._write(target, handle, number, refusals)
        run.point("publish:after_write")
        account = _account(counts).check(where=self.app_id)
        if not counts.already_committed:
            refusals.check(account)
        known = not counts.already_committed or counts.read > 0
        if known:
            _complete(account, handle.rows(), self.app_id)
            self._record(account, number, handle.version, run)
        if not counts.already_committed:
            refusals.settle()
        if known and self.spec.mode != "append":
            refusals.retire()
        run.progress(self.app_id, account.read)
        return Published(account, handle.version, counts.already_committed)

    def _write(self, target: Target, handle: Handle, number: int, refusals: _Refusals) -> Counts:
        spec, run = self.spec, refusals.run
        with self.engine.session() as session:
            relation = session.lake_relation(handle)
            columns = [name for name in handle.schema().names if not name.startswith("_")]
            stream = session.stream(f"SELECT {', '.join(map(quote, columns))} FROM {relation}")  # noqa: S608
            rows = Counted(stream, handle.rows())
            reader = rows.reader()
            load = Load(
                options=spec.options,
                schema=reader.schema,
                mode=spec.mode,
                # A table that was deleted and made anew counts from one again: it is another table to the target.
                token=CommitToken(f"{self.app_id}@{handle.delta.metadata().id}", number, run.run_id),
                key=tuple(spec.key),
                on_refused=refusals.take,
            )
            run.point("publish:before_write")
            try:
                with rows.checked(self.app_id):
                    return target.write(load, reader)
            except ErrorBudgetExceededError:
                refusals.withdraw()
                raise
            finally:
                refusals.errors.discard()

    def _record(self, account: RowAccount, number: int, version: int, run: Run) -> None:
        record = {
            "version": number,
            "delta_version": version,
            "run_id": run.run_id,
            "account": account.to_json(),
            "timestamp": time.time() * 1000,
        }
        self.ledger.write(self.app_id, [ledger_row(self.app_id, record)], number)


class _Refusals:
    """Takes the rows that a target refuses, before it commits the others."""

    def __init__(self, publisher: Publisher, number: int, rows: int, run: Run) -> None:
        self.errors = ErrorWriter(publisher.lake, publisher.app_id, run)
        self.publisher, self.number, self.rows, self.run = publisher, number, rows, run
        self.rules: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()

    def take(self, refused: pa.Table) -> None:
        """Keep refused rows for good; the budget is for all of the load."""
        app_id = self.publisher.app_id
        self.rules.update(refused["rule"].to_pylist())
        self.publisher.spec.budget.check(self.rules, self.rows, where=app_id)
        self.errors.stage(from_refused(refused, app_id, self.number, self.run, self._seen))
        self.run.point("publish:before_errors")
        self.errors.commit(self.number, None, refused.num_rows)
        self.run.point("publish:after_errors")

    def check(self, account: RowAccount) -> None:
        """Hold what was handed over against what the target says that it refused."""
        handed = sum(self.rules.values())
        if handed != account.rejected_rows:
            raise RowsNotConservedError(
                f"the target refused {account.rejected_rows} rows and handed {handed} of them over",
                where=self.publisher.app_id,
                fix="the others are in the target's commit; this is a defect of the target: please report it",
            )

    def settle(self) -> None:
        """Withdraw what other attempts at this load found."""
        self.errors.settle_as(self.number, self.errors.attempt)

    def retire(self) -> None:
        """Close the errors of the loads that this one has replaced."""
        import pyarrow.compute as pc

        note = "a newer version of the table was published"
        self.errors.retire(lambda rows: pc.less(rows["commit"], self.number), "obsolete", note)

    def withdraw(self) -> None:
        """Withdraw everything that was found, because nothing was published."""
        self.errors.settle_as(self.number, "")


def _complete(account: RowAccount, rows: int, where: str) -> None:
    """Hold the account against the lake's own log: the target must have been given every row of the version."""
    RowAccount(read=rows, inserted=account.read).check(where=where)


def _account(counts: Counts) -> RowAccount:
    return RowAccount(
        read=counts.read,
        inserted=counts.inserted,
        updated=counts.updated,
        unchanged=counts.unchanged,
        superseded=counts.superseded,
        rejected=dict(counts.rejected),
        removed=counts.deleted,
    )
