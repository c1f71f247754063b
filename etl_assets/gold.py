"""Gold: any SQL over silver and other gold tables. Built aside, checked, then swapped in with one commit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etl_assets.account import RowAccount
from etl_assets.errors import ErrorTable
from etl_assets.ledger import Ledger
from etl_assets.references import Reference, attach
from etl_assets.run import Run
from etl_resources.engines.duckdb import DuckDB, Session
from etl_resources.exceptions import ConfigurationError, ContractViolationError
from etl_resources.lake import Commit, Lake, LakeTable

if TYPE_CHECKING:
    from etl_checks.contract import Contract
    from etl_checks.rules import RuleResult


@dataclass(frozen=True)
class GoldSpec:
    """What a gold table is made of."""

    pipeline: str
    name: str
    query: Callable[[Session], str]
    """Gives the DuckDB SQL; called in a session in which the references are views."""
    references: Sequence[Reference]
    contract: Contract | None = None
    withheld_from: Collection[str] = ()
    """Names of the tables upstream, through all layers: rows in their open errors are missing here."""
    personal: Collection[str] = ()
    """Columns with personal data that no contract of this table marks, such as those that lineage finds."""


@dataclass(frozen=True)
class Built:
    """What one run did to a gold table."""

    account: RowAccount
    delta_version: int
    sql: str
    withheld: int
    """Open errors in the tables upstream."""
    results: Sequence[RuleResult] = ()
    types: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Reference as SQL names it -> column -> DuckDB type."""


class Gold:
    """Builds `gold/<pipeline>/<name>`."""

    def __init__(self, lake: Lake, engine: DuckDB, spec: GoldSpec) -> None:
        self.lake, self.engine, self.spec = lake, engine, spec
        self.table: LakeTable = lake.table("gold", spec.pipeline, spec.name)
        self.app_id = self.table.name
        self.ledger = Ledger(lake)

    def build(self, run: Run) -> Built:
        """Build the table aside, check it, swap it in.

        Raises:
            ContractViolationError: an error rule does not hold; readers keep the old table.
            EngineError: the SQL could not be run.
        """
        spec, handle = self.spec, self.table.open()
        # Numbered before the inputs are read: a build that has read older ones is refused, not put over a newer one.
        number = (handle.committed(self.app_id) if handle is not None else 0) + 1
        with self.engine.session() as session:
            versions = self._attach(session)
            sql = spec.query(session)
            session.execute(f"CREATE TEMP TABLE built AS {sql}")
            read = session.execute("SELECT count(*) FROM built")[0][0]
            results = self._checked(session)
            run.progress(self.app_id, read)
            account, version = self._swap(session, read, versions, number, run)
            counts = ErrorTable(self.lake).open_counts(session)
            withheld = sum(counts.get(asset, 0) for asset in spec.withheld_from)
            types = {str(reference): session.types(reference.sql) for reference in spec.references}
            return Built(account, version, sql, withheld, results, types)

    def _attach(self, session: Session) -> dict[str, int]:
        versions = {}
        for reference in self.spec.references:
            handle = self.lake.table(*reference.key).open()
            if handle is None:
                raise ConfigurationError(
                    f"{reference} has not been loaded yet",
                    where=self.app_id,
                    fix=f"materialize {'/'.join(reference.key)} first, e.g. by running the whole pipeline",
                )
            relation = session.lake_relation(handle)
            found = session.execute(f"SELECT count(*) FROM {relation}")[0][0]  # noqa: S608
            # The log's own count is the other side of the account of what is read.
            RowAccount(read=handle.rows(), unchanged=found).check(where=f"{self.app_id}, reading {reference}")
            attach(session, reference, relation)
            versions[handle.table.name] = handle.version
        return versions

    def _checked(self, session: Session) -> Sequence[RuleResult]:
        contract = self.spec.contract
        if contract is None:
            return ()
        from datetime import UTC, datetime

        from etl_checks.fused import evaluate

        results = evaluate(session.connection, "built", contract.rules, references={}, now=datetime.now(UTC))
        broken = [
            f"{result.rule.id}: {result.error or f'{result.failed} of {result.checked} rows'}"
            for result in results
            if result.rule.severity == "error" and result.passed is not True
        ]
        if broken:
            raise ContractViolationError(
                "the table that was built does not keep its contract: " + "; ".join(broken),
                where=self.app_id,
                fix="readers still see the old table: mend the SQL, the data upstream or the contract, and run again",
            )
        return results

    def _personal(self) -> Collection[str]:
        contract = self.spec.contract
        own = contract.personal_columns if contract is not None else ()
        return {*own, *self.spec.personal}

    def _swap(
        self, session: Session, read: int, versions: Mapping[str, int], number: int, run: Run
    ) -> tuple[RowAccount, int]:
        import pyarrow as pa

        from etl_resources.delta.evolution import conform, widest

        built = session.arrow_schema("built")
        schema = pa.schema([pa.field(field.name, _stored(field.type, widest)) for field in built])
        handle = self.table.ensure(schema, personal=self._personal())
        with self.table.stage(handle, schema) as staged:
            for batch in session.stream("SELECT * FROM built"):
                staged.write(conform(batch, schema, where=self.app_id))
            staged.finish()
            account = RowAccount(read=read, inserted=staged.stored_rows).check(where=self.app_id)
            record = {"run_id": run.run_id, "account": account.to_json(), "inputs": dict(versions)}
            run.point("gold:before_commit")
            fresh = self.table.replace(handle, staged, Commit(self.app_id, number, record))
        run.point("gold:after_commit")
        self.ledger.copy(fresh, self.app_id)
        return account, fresh.version


def _stored(kind: Any, widest: Callable[[Any], Any]) -> Any:
    """Return the type that Delta stores; integers and floats keep their width, gold tables are built anew anyway."""
    from pyarrow import types

    plain = types.is_signed_integer(kind) or types.is_floating(kind)
    return kind if plain else widest(kind)
