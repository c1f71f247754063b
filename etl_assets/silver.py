"""Silver: one row per key. Reads the bronze rows it has not read, gives each a fate, commits them with the account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etl_assets.account import RowAccount
from etl_assets.errors import Budget
from etl_assets.ledger import Ledger
from etl_assets.run import Run
from etl_assets.silver_commit import Refinement
from etl_assets.silver_query import Judgement, judge
from etl_assets.silver_work import pending
from etl_resources.engines.duckdb import DuckDB, Session
from etl_resources.exceptions import ConfigurationError
from etl_resources.lake import Handle, Lake, LakeTable
from etl_resources.source import Window

if TYPE_CHECKING:
    from etl_assets.transforms import Step
    from etl_checks.contract import Contract
    from etl_checks.rules import RuleResult

COMMIT_ROWS = 8_000_000
"""Bronze rows per silver commit, at the most (whole bronze batches)."""


@dataclass(frozen=True)
class SilverSpec:
    """What a silver table is made of."""

    pipeline: str
    name: str
    key: Sequence[str]
    steps: Sequence[Step] = ()
    order: Sequence[str] = ()
    contract: Contract | None = None
    budget: Budget = Budget()
    snapshot: bool = False
    """Every bronze batch is a whole snapshot: a key that is not in the newest one leaves the table."""
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Table as a foreign key names it -> key of that table in the lake."""


@dataclass(frozen=True)
class Refined:
    """What one run did to a silver table."""

    account: RowAccount
    delta_version: int | None
    watched: Mapping[str, int]
    """Rule that does not reject -> rows on which it hit."""
    unlisted: tuple[str, ...] = ()


class Silver:
    """Refines `bronze/<pipeline>/<stream>` into `silver/<pipeline>/<stream>`."""

    def __init__(self, lake: Lake, engine: DuckDB, spec: SilverSpec, *, commit_rows: int = COMMIT_ROWS) -> None:
        self.lake, self.engine, self.spec = lake, engine, spec
        self.bronze: LakeTable = lake.table("bronze", spec.pipeline, spec.name)
        self.table: LakeTable = lake.table("silver", spec.pipeline, spec.name)
        self.app_id = self.table.name
        self.ledger = Ledger(lake)
        self.commit_rows = commit_rows

    def refine(self, run: Run, *, full_refresh: bool = False, window: Window | None = None) -> Refined:
        """Bring the table up to date with bronze.

        Args:
            full_refresh: build the table anew from all of bronze (since its last full refresh), aside, then swap.
            window: replace this partition with the newest bronze batch of it, and nothing else.

        Raises:
            ErrorBudgetExceededError, ContractViolationError: nothing was published.
            RowsNotConservedError: rows were lost between bronze and here.
        """
        total, version, watched, unlisted = RowAccount(), None, {}, ()
        while True:
            with self.engine.session() as session:
                bronze = self.bronze.open()
                if bronze is None:
                    return Refined(total, version, watched)
                handle = self.table.open()
                self._heal(handle, bronze)
                work = pending(self, session, bronze, handle, full_refresh=full_refresh, window=window)
                if work is None:
                    return Refined(total, version, watched, unlisted)
                judgement = self.judgement(session, bronze, work.relation)
                done = Refinement(self, session, judgement, work, handle, run)
                account, version = done.publish()
                total, unlisted = total + account, judgement.unlisted
                watched = {rule: watched.get(rule, 0) + rows for rule, rows in done.watched.items()}
            if full_refresh or window is not None:
                return Refined(total, version, watched, unlisted)

    def judgement(self, session: Session, bronze: Handle, relation: str) -> Judgement:
        """Compile the judgement of some bronze rows."""
        spec = self.spec
        return judge(
            bronze.schema(),
            relation,
            key=spec.key,
            steps=spec.steps,
            contract=spec.contract,
            references={name: self._reference(session, key) for name, key in spec.references.items()},
        )

    def reference_versions(self) -> dict[str, int]:
        """Return the Delta version of every table that a foreign key refers to."""
        opened = {name: self.lake.table(*key).open() for name, key in self.spec.references.items()}
        return {name: handle.version for name, handle in opened.items() if handle is not None}

    def _reference(self, session: Session, key: tuple[str, ...]) -> str:
        handle = self.lake.table(*key).open()
        if handle is None:
            raise ConfigurationError(
                f"a foreign key of {self.app_id} refers to {'/'.join(key)}, which has not been loaded yet",
                where=self.app_id,
                fix=f"materialize {'/'.join(key)} first, e.g. by running the whole pipeline",
            )
        return session.lake_relation(handle)

    def _heal(self, handle: Handle | None, bronze: Handle) -> None:
        """Copy accounts that a killed run committed but did not copy."""
        self.ledger.copy(bronze, self.bronze.name)
        if handle is not None:
            self.ledger.copy(handle, self.app_id)

    def contract_results(self) -> list[RuleResult]:
        """Evaluate the contract over the whole table, in one query."""
        from datetime import UTC, datetime

        from etl_checks.fused import evaluate

        contract, handle = self.spec.contract, self.table.open()
        if contract is None or handle is None:
            return []
        with self.engine.session() as session:
            references = {name: self._reference(session, key) for name, key in self.spec.references.items()}
            relation = session.lake_relation(handle)
            return evaluate(session.connection, relation, contract.rules, references=references, now=datetime.now(UTC))
