"""Silver: one row per key. Reads the bronze rows it has not read, gives each a fate, commits them with the account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etl_assets.account import RowAccount
from etl_assets.bronze import REFRESH_MARK
from etl_assets.error_writer import ErrorWriter
from etl_assets.errors import Budget
from etl_assets.ledger import Ledger
from etl_assets.partitions import overtaken, read_batches
from etl_assets.provenance import PARTITION
from etl_assets.run import Run
from etl_assets.silver_commit import Refinement
from etl_assets.silver_healing import heal
from etl_assets.silver_query import Judgement, Shape, Verdict, judge, shape
from etl_assets.silver_work import BRONZE_MARK, RENEWED_MARK, pending
from etl_resources.engines.duckdb import DuckDB, Session
from etl_resources.exceptions import ConfigurationError
from etl_resources.lake import Handle, Lake, LakeTable
from etl_resources.source import Window

if TYPE_CHECKING:
    import pyarrow as pa

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
    budget: Budget = Budget()  # noqa: RUF009 - frozen
    snapshot: bool = False
    """Every bronze batch is a whole snapshot: a key that is not in the newest one leaves the table."""
    log_key: Sequence[str] = ()
    """The columns of `key` as a change log names them; empty: bronze does not hold the events of one."""
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Table as a foreign key names it -> key of that table in the lake."""

    @property
    def captured(self) -> bool:
        """Whether bronze holds the events of a change log, which knows their order."""
        return bool(self.log_key)

    @property
    def personal(self) -> Sequence[str]:
        """Columns that the contract marks as personal."""
        return self.contract.personal_columns if self.contract is not None else ()


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
        self._compiled: tuple[pa.Schema, Shape] | None = None

    def refine(self, run: Run, *, full_refresh: bool = False, window: Window | None = None) -> Refined:
        """Bring the table up to date with bronze.

        Args:
            full_refresh: build the table anew from all of bronze (since its last full refresh), aside, then swap.
            window: replace this partition with the newest bronze batch of it, and nothing else.

        Raises:
            ErrorBudgetExceededError, ContractViolationError: nothing was published.
            RowsNotConservedError: rows were lost between bronze and here.
            ConcurrentCommitError: another run of the same table was faster.
        """
        total, version, more = RowAccount(), None, True
        watched: dict[str, int] = {}
        unlisted: tuple[str, ...] = ()
        bronze, handle = self.bronze.open(), self.table.open()
        if bronze is None:
            return Refined(total, version, watched)
        self.heal(handle, bronze, run)
        before = handle.committed(BRONZE_MARK) if handle is not None else 0
        while more:
            with self.engine.session() as session:
                work = pending(self, session, bronze, handle, full_refresh=full_refresh, window=window)
                if work is None:
                    break
                done = Refinement(self, session, bronze, handle, work, run)
                account, handle = done.publish(total)
                total, version, unlisted = total + account, handle.version, done.judgement.unlisted
                watched = {rule: watched.get(rule, 0) + rows for rule, rows in done.watched.items()}
                more = work.more
        if handle is not None:
            self._retire_errors(bronze, handle, run)
            if self.spec.captured and total.read and ErrorWriter(self.lake, self.app_id, run).ever():
                heal(self, bronze, before, handle.committed(BRONZE_MARK), run)
        return Refined(total, version, watched, unlisted)

    def judgement(
        self,
        session: Session,
        bronze: Handle,
        relation: str,
        references: Mapping[str, Handle],
        extra: Sequence[Verdict] = (),
    ) -> Judgement:
        """Compile the judgement of some bronze rows; `references` are the tables that foreign keys name."""
        spec = self.spec
        return judge(
            self._shaped(bronze.schema()),
            relation,
            key=spec.key,
            contract=spec.contract,
            references={name: session.lake_relation(handle) for name, handle in references.items()},
            extra=extra,
            captured=spec.captured,
        )

    def _shaped(self, bronze: pa.Schema) -> Shape:
        """Compile the steps, once as long as the columns of bronze stay: a continuous run needs them at every tick."""
        if self._compiled is None or not self._compiled[0].equals(bronze):
            self._compiled = bronze, shape(bronze, self.spec.steps)
        return self._compiled[1]

    def references(self) -> Mapping[str, Handle]:
        """Open the tables that foreign keys refer to.

        Raises:
            ConfigurationError: one has not been loaded yet.
        """
        opened = {}
        for name, key in self.spec.references.items():
            handle = self.lake.table(*key).open()
            if handle is None:
                raise ConfigurationError(
                    f"a foreign key of {self.app_id} refers to {'/'.join(key)}, which has not been loaded yet",
                    where=self.app_id,
                    fix=f"materialize {'/'.join(key)} first, e.g. by running the whole pipeline",
                )
            opened[name] = handle
        return opened

    def heal(self, handle: Handle | None, bronze: Handle, run: Run) -> None:
        """Finish what a killed run left undone after its commit: copies of accounts, errors of other attempts."""
        self.ledger.copy(bronze, self.bronze.name)
        if handle is not None:
            self.ledger.copy(handle, self.app_id)
            ErrorWriter(self.lake, self.app_id, run).settle(handle)

    def _retire_errors(self, bronze: Handle, handle: Handle, run: Run) -> None:
        """Close the errors of rows that were judged anew, or whose snapshot or partition was read anew."""
        import pyarrow as pa
        import pyarrow.compute as pc

        errors, base = ErrorWriter(self.lake, self.app_id, run), bronze.committed(REFRESH_MARK)
        renewed, refreshed = handle.committed(RENEWED_MARK), handle.committed(REFRESH_MARK)
        first = max(refreshed, handle.committed(BRONZE_MARK) if self.spec.snapshot else 0)
        partitioned = PARTITION in bronze.schema().names
        batches = read_batches(self.ledger.rows(self.bronze.name, max(base - 1, 0))) if partitioned else []
        old = pa.array(sorted(overtaken(batches)), pa.int64())
        if first or len(old):
            errors.retire(
                lambda rows: pc.or_(pc.less(rows["batch"], first), pc.is_in(rows["batch"], value_set=old)),
                "obsolete",
                "its row was read anew",
            )
        if renewed:
            errors.retire(lambda rows: pc.less(rows["commit"], renewed), "replayed", "the table was built anew")

    def contract_results(self) -> list[RuleResult]:
        """Evaluate the contract over the whole table, in one query."""
        from datetime import UTC, datetime

        from etl_checks.fused import evaluate

        contract, handle = self.spec.contract, self.table.open()
        if contract is None or handle is None:
            return []
        with self.engine.session() as session:
            references = {name: session.lake_relation(opened) for name, opened in self.references().items()}
            relation = session.lake_relation(handle)
            return evaluate(session.connection, relation, contract.rules, references=references, now=datetime.now(UTC))
