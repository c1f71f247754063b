"""Publish: load a table of the lake into a target, once per version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_assets.account import RowAccount
from etl_assets.errors import Budget, ErrorTable, from_refused
from etl_assets.ledger import Ledger
from etl_assets.run import Run
from etl_resources.engines.duckdb import DuckDB, quote
from etl_resources.exceptions import ConfigurationError
from etl_resources.lake import Lake
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
    budget: Budget = Budget()


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
        """
        spec, errors = self.spec, ErrorTable(self.lake)
        handle = self.lake.table(*spec.table).open()
        if handle is None:
            raise ConfigurationError(
                f"{'/'.join(spec.table)} has not been loaded yet", where=self.app_id, fix="materialize it first"
            )
        number = handle.version + 1  # a Delta table begins with version 0, pieces of work with 1

        with self.engine.session() as session:
            relation = session.lake_relation(handle)
            columns = [name for name in handle.schema().names if not name.startswith("_")]
            reader = session.stream(f"SELECT {', '.join(map(quote, columns))} FROM {relation}")  # noqa: S608

            def committing(table: pa.Table) -> None:
                errors.stage(from_refused(table, self.app_id, number, run))
                spec.budget.check({"refused": table.num_rows}, handle.rows(), where=self.app_id)
                run.point("publish:before_errors")
                errors.commit(self.app_id, number, run)

            load = Load(
                options=spec.options,
                schema=reader.schema,
                mode=spec.mode,
                token=CommitToken(self.app_id, number, run.run_id),
                key=tuple(spec.key),
                on_refused=committing,
            )
            run.point("publish:before_write")
            try:
                counts = target.write(load, reader)
            finally:
                errors.discard()
        run.point("publish:after_write")
        account = _account(counts).check(where=self.app_id)
        if not counts.already_committed:
            _complete(account, handle.rows(), self.app_id)
        self._record(account, number, handle.version, run)
        run.progress(self.app_id, account.read)
        return Published(account, handle.version, counts.already_committed)

    def _record(self, account: RowAccount, number: int, version: int, run: Run) -> None:
        from etl_assets.ledger import ledger_row

        row = ledger_row(
            self.app_id,
            {
                "version": number,
                "delta_version": version,
                "run_id": run.run_id,
                "account": account.to_json(),
                "timestamp": _now_ms(),
            },
        )
        self.ledger.write(self.app_id, [row], number)


def _now_ms() -> float:
    import time

    return time.time() * 1000


def _complete(account: RowAccount, rows: int, where: str) -> None:
    """The target must have been given every row of the version: the lake's own log is the other side of the account."""
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
