"""One commit of a silver table: rows judged, fates decided and held against the budget; errors first, then the data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING

from etl_assets.account import RowAccount
from etl_assets.error_writer import ErrorWriter
from etl_assets.run import Run
from etl_assets.silver_changes import incomplete, prepared, truncated_at
from etl_assets.silver_extent import elsewhere, outside, rows_between
from etl_assets.silver_fates import TABLE, Versions, contend, decide
from etl_assets.silver_keys import find_repeated
from etl_assets.silver_passing import Passed, passing
from etl_assets.silver_query import Judgement, Verdict
from etl_assets.silver_removals import find_removals
from etl_assets.silver_rivals import create_rivals
from etl_assets.silver_work import RENEWED_MARK
from etl_assets.silver_write import Writer, rejected_rows
from etl_resources.engines.duckdb import Session, quote
from etl_resources.exceptions import ConcurrentCommitError, ContractViolationError
from etl_resources.lake import Commit, Handle

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.silver import Silver
    from etl_assets.silver_work import Work

POSITION = "_pos"
"""Provenance column of tables that follow a change log: where in it the row was written."""


class Refinement:
    """One commit of a silver table."""

    def __init__(
        self, silver: Silver, session: Session, bronze: Handle, handle: Handle | None, work: Work, run: Run
    ) -> None:
        self.silver, self.session, self.bronze, self.work, self.run = silver, session, bronze, work, run
        self.handle = handle
        self.number = (handle.committed(silver.app_id) if handle is not None else 0) + 1
        self.captured = silver.spec.captured
        self.versions = Versions(silver.spec.key, (POSITION,) if self.captured else silver.spec.order)
        self.emptied: tuple[int, int] | None = None
        self.watched: dict[str, int] = {}
        # Opened before the rows are judged: if one grows meanwhile, the next run tries the missing keys again.
        self.references = silver.references()
        extra = outside(work.batches)
        if self.captured:
            extra += self._prepare()
        if work.part is not None and handle is not None and handle.rows():
            extra.append(elsewhere(session.lake_relation(handle), work.part, silver.spec.key))
        self.judgement = self.judge(self.work.relation, *extra)

    def _prepare(self) -> list[Verdict]:
        """Make events whole and find out whether the table was emptied; returns what else there is to judge."""
        session, work = self.session, self.work
        upto = self.bronze.committed(self.silver.bronze.name)
        log = cache(lambda: rows_between(session, self.bronze, 0, upto))
        self.emptied = truncated_at(session, log() if work.replay else work.relation)
        self.work = prepared(session, work, log, self.silver.spec.log_key)
        return incomplete(session)

    def judge(self, relation: str, *extra: object) -> Judgement:
        """Compile the judgement of some bronze rows."""
        return self.silver.judgement(self.session, self.bronze, relation, self.references, extra)  # type: ignore[arg-type]

    def publish(self, earlier: RowAccount) -> tuple[RowAccount, Handle]:
        """Judge, decide, write errors, then data; returns the account and the table after it.

        Args:
            earlier: what the same run has done to the table before; the budget is for both.
        """
        silver = self.silver
        self.decide()
        with passing(self) as passed:
            account = self._account(passed)
            self._gate(account, earlier, passed)
            self.run.progress(silver.app_id, earlier.read + account.read)
            self._not_overtaken()
            fresh = self._commit(account, passed)
        self.run.point("silver:after_commit")
        silver.ledger.copy(fresh, silver.app_id)
        self.run.point("silver:before_settle")
        self.errors.settle(fresh)
        silver.table.tidy(fresh)
        return account, fresh

    def decide(self) -> None:
        """Judge and decide: create `fated`. Nothing is written."""
        session = self.session
        kind = "VIEW" if self.streams else "TABLE"
        session.execute(f"CREATE OR REPLACE TEMP {kind} judged AS {self.judgement.sql}")
        contend(session, self.judgement, self.versions)
        create_rivals(self, self.meets)
        narrow = f"({self.judgement.shaped_sql})" if self.streams else "judged"
        find_repeated(session, self.versions, narrow, self.work.read)
        decide(
            session,
            self.judgement,
            self.versions,
            current=self.meets,
            snapshots=self.snapshots,
            emptied=self.emptied,
        )

    def check(self, passed: Passed) -> RowAccount:
        """Hold what was decided against the budget and the rules that must not fail; return its account."""
        account = self._account(passed)
        self._gate(account, RowAccount(), passed)
        return account

    @cached_property
    def errors(self) -> ErrorWriter:
        """Where the rejected rows go."""
        return ErrorWriter(self.silver.lake, self.silver.app_id, self.run)

    @property
    def provenance(self) -> tuple[str, ...]:
        """Provenance columns of the table."""
        return (*TABLE, POSITION) if self.captured else TABLE

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the judged rows, as Delta stores them, with the contract's descriptions."""
        import pyarrow as pa

        columns = ", ".join(quote(name) for name in (*self.judgement.columns, *self.provenance))
        schema = self.session.arrow_schema(f"(SELECT {columns} FROM judged)")  # noqa: S608
        contract = self.silver.spec.contract
        described = {column.name: column.description for column in contract.columns} if contract is not None else {}
        return pa.schema([_delta_field(field, described.get(field.name)) for field in schema])

    @cached_property
    def current(self) -> str | None:
        """SQL relation of the table as it is, with all columns that it is going to have; None: it has no rows.

        Raises:
            SchemaConflictError: a column would have to change its type.
        """
        from etl_resources.delta.evolution import merge_schemas

        if self.handle is None or self.handle.rows() == 0:
            return None
        relation = self.session.lake_relation(self.handle)
        if self.work.rebuild:
            return relation
        present = self.handle.schema()
        merge_schemas(present, self.schema, where=self.silver.app_id)
        types = self.session.types("judged")
        absent = [name for name in self.schema.names if name not in present.names]
        added = "".join(f", CAST(NULL AS {types[name]}) AS {quote(name)}" for name in absent)
        return f"(SELECT *{added} FROM {relation})" if added else relation  # noqa: S608

    @property
    def snapshots(self) -> Sequence[int]:
        """The batches that are judged, if each is a whole snapshot, oldest first."""
        whole = self.silver.spec.snapshot and not self.work.replay
        return [batch.number for batch in self.work.batches] if whole else []

    @cached_property
    def streams(self) -> bool:
        """Whether the rows can only come in: nothing that was judged before can be newer, nor is in the table."""
        work = self.work
        anew = work.history is None and not work.replay and work.window is None
        empty = work.rebuild or self.handle is None or self.handle.rows() == 0
        return anew and empty and len(self.snapshots) <= 1

    @property
    def meets(self) -> str | None:
        """SQL relation of the rows that the judged ones may meet; None: none, so that they can only come in."""
        return None if self.work.rebuild or self.work.window is not None else self.current

    def _account(self, passed: Passed) -> RowAccount:
        counts = passed.fates.copy()
        return RowAccount(
            read=self.work.read,
            inserted=counts.pop("inserted", 0),
            updated=counts.pop("updated", 0),
            deleted=counts.pop("deleted", 0),
            unchanged=counts.pop("unchanged", 0),
            superseded=counts.pop("superseded", 0),
            filtered={fate.partition(":")[2]: rows for fate, rows in counts.items() if fate.startswith("filtered:")},
            rejected={fate.partition(":")[2]: rows for fate, rows in counts.items() if fate.startswith("rejected:")},
            removed=find_removals(self),
        ).check(where=self.silver.app_id)

    def _gate(self, account: RowAccount, earlier: RowAccount, passed: Passed) -> None:
        """Hold the staged rows against the budget and the rules that must not fail."""
        silver = self.silver
        if account.rejected and not self.work.replay:
            total = earlier + account
            samples = (f"{rule}: {record}" for rule, record in self._samples())
            silver.spec.budget.check(dict(total.rejected), total.read, where=silver.app_id, samples=samples)
        if not self.judgement.watched:
            return
        watched = self.judgement.watched
        self.watched = {rule.id: rows for rule, rows in zip(watched, passed.hits, strict=True)}
        broken = [
            f"{rule.id} ({rule.description or rule.kind}): {self.watched[rule.id]} of {account.read} rows"
            for rule in watched
            if rule.on_fail == "fail" and not rule.threshold.holds(self.watched[rule.id], account.read)
        ]
        if broken:
            raise ContractViolationError(
                "the contract does not hold: " + "; ".join(broken),
                where=silver.app_id,
                fix="nothing was published: mend the source or the steps, or let the rule reject rows: on_fail: reject",
            )

    def _samples(self, limit: int = 3) -> list[tuple[str, str]]:
        """Return some rejected rows for people, one per rule at first, without personal data."""
        personal = set(self.silver.spec.personal)
        shown = [name for name in (*self.judgement.columns, *TABLE) if name not in personal]
        fields = ", ".join(f"{quote(name)} := j.{quote(name)}" for name in shown)
        sql = (
            f"SELECT j.__fate, to_json(struct_pack({fields}))::VARCHAR FROM fated j "  # noqa: S608
            f"WHERE j.__fate LIKE 'rejected:%' QUALIFY row_number() OVER (PARTITION BY j.__fate) = 1 LIMIT {limit}"
        )
        return [(fate, record[:200]) for fate, record in self.session.execute(sql)]

    def _not_overtaken(self) -> None:
        """Stop before anything is written if another run has done this work meanwhile."""
        fresh = self.silver.table.open()
        if fresh is not None and fresh.committed(self.silver.app_id) >= self.number:
            raise ConcurrentCommitError(
                f"another run committed to {self.silver.app_id} first, so number {self.number} was not written",
                where=self.silver.app_id,
                fix="nothing is lost or doubled; run again if there may be more to do",
            )

    def _commit(self, account: RowAccount, passed: Passed) -> Handle:
        """Commit errors, then data."""
        silver, work, errors = self.silver, self.work, self.errors
        handle = silver.table.ensure(self.schema, personal=silver.spec.personal)
        self.handle = self.handle or handle
        if not work.rebuild:
            self.handle = silver.table.evolve(self.handle, self.schema)
        try:
            if account.rejected and not work.replay:
                for table in rejected_rows(self, passed.rejected):
                    errors.stage(table)
            self.run.point("silver:before_errors")
            rejected = 0 if work.replay else account.rejected_rows
            marks = errors.commit(self.number, self.handle, rejected)
        finally:
            errors.discard()
        self.run.point("silver:before_commit")
        record = {
            "run_id": self.run.run_id,
            "attempt": errors.attempt,
            "account": account.to_json(),
            "bronze": dict(work.marks),
            "partition": work.part.to_json() if work.part is not None else None,
        }
        marks = {**marks, **self._reference_marks(), **work.marks}
        if work.rebuild:
            marks[RENEWED_MARK] = self.number
        try:
            return Writer(self, Commit(silver.app_id, self.number, record, marks), passed.staged).write(account)
        except ConcurrentCommitError:
            errors.settle(silver.table.open())
            raise

    def _reference_marks(self) -> dict[str, int]:
        """Return which state of the referenced tables all waiting rows have been held against.

        A commit that judges other rows says nothing about those that wait, so it leaves the marks where they are.
        """
        handle, work = self.handle, self.work
        assert handle is not None  # noqa: S101 - set by the caller
        marks = {f"reference:{name}": opened.committed(opened.table.name) for name, opened in self.references.items()}
        return {
            name: number
            for name, number in marks.items()
            if work.rebuild or work.retries or handle.committed(name) == 0
        }


def _delta_field(field: pa.Field, description: str | None) -> pa.Field:
    """Return the field as Delta stores it: microseconds, UTC, nullable; described."""
    import pyarrow as pa

    from etl_resources.delta.evolution import widest

    keep = pa.types.is_signed_integer(field.type) or pa.types.is_floating(field.type)
    kind = field.type if keep else widest(field.type)
    return pa.field(field.name, kind, metadata={"comment": description} if description else None)
