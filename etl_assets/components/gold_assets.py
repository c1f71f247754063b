"""The asset of one gold table."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.components.context import PipelineContext, conserved_spec, run_of
from etl_assets.components.models import GoldModel
from etl_assets.components.table_metadata import contract_columns, query_lineage, table_metadata, table_result
from etl_assets.references import Reference, parse_reference, references_of
from etl_checks.asset_checks import check_results, check_specs
from etl_checks.lint import lint_contract
from etl_resources.exceptions import NotFoundError

if TYPE_CHECKING:
    from etl_assets.gold import Built
    from etl_checks.contract import Contract
    from etl_resources.engines.duckdb import Session


@dataclass(frozen=True)
class GoldAssets:
    """Builds the definitions of one gold table."""

    pipeline: PipelineContext
    name: str
    model: GoldModel

    @property
    def where(self) -> str:
        """Place in the pipeline, for messages."""
        return self.pipeline.where(f"gold {self.name}")

    @cached_property
    def contract(self) -> "Contract | None":
        """The contract of the table."""
        return self.pipeline.contract(self.model.contract)

    @cached_property
    def sql(self) -> str | None:
        """The user's SQL."""
        if self.model.sql is None:
            return None
        path = self.pipeline.folder / self.model.sql
        if not path.is_file():
            raise NotFoundError(f"there is no file {self.model.sql}", where=self.where, fix=f"create {path}")
        return path.read_text(encoding="utf-8").rstrip().rstrip(";")

    @cached_property
    def steps(self) -> tuple[Any, ...]:
        """The steps, checked."""
        from etl_assets.transforms import parse_steps

        return parse_steps(self.model.steps, layer="gold", where=self.where)

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """The tables that it reads."""
        if self.sql is not None:
            return references_of(self.sql, self.pipeline.name, where=f"{self.where}, {self.model.sql}")
        names = [str(self.model.from_), *(name for step in self.steps for name in step.reads_tables)]
        found = {parse_reference(name, self.pipeline.name, where=self.where) for name in names}
        return tuple(sorted(found))

    def query(self, session: "Session") -> str:
        """Return the SQL of the table; the references are views in the session."""
        if self.sql is not None:
            return self.sql
        import ibis

        from etl_assets.transforms import apply_steps

        def table(name: str) -> Any:
            reference = parse_reference(name, self.pipeline.name, where=self.where)
            schema = ibis.Schema.from_pyarrow(session.arrow_schema(reference.sql))
            place = (reference.layer, reference.pipeline) if reference.foreign else reference.layer
            return ibis.table(schema, name=reference.table, database=place)

        draft = apply_steps(table(str(self.model.from_)), self.steps, tables=table)
        visible = [name for name in draft.table.columns if not name.startswith("_")]
        return str(ibis.to_sql(draft.table.select(*visible), dialect="duckdb"))

    def definition(self) -> dg.AssetsDefinition:
        """Return the asset."""
        contract = self.contract
        spec = self.pipeline.spec(
            "gold",
            self.name,
            deps=[dg.AssetKey(list(reference.key)) for reference in self.references],
            kinds={"gold", "sql"},
            description=self.model.description or (contract.description if contract is not None else None),
            owners=contract.owners if contract is not None else (),
            metadata=contract_columns(contract),
        )
        checks = check_specs(contract, spec.key) if contract is not None and contract.rules else []

        @dg.multi_asset(
            name=f"gold__{self.pipeline.name}__{self.name}",
            specs=[spec],
            check_specs=[conserved_spec(spec), *checks],
            required_resource_keys={"lake", "engine"},
        )
        def build(context: dg.AssetExecutionContext) -> Iterator[Any]:
            from etl_assets.completeness import upstream
            from etl_assets.gold import Gold, GoldSpec

            if contract is not None:
                lint_contract(contract)
            lake = context.resources.lake
            keys = ["/".join(reference.key) for reference in self.references]
            gold = Gold(
                lake,
                context.resources.engine,
                GoldSpec(self.pipeline.name, self.name, self.query, self.references, contract, upstream(lake, keys)),
            )
            built = gold.build(run_of(context))
            metadata = table_metadata(gold.table, gold.table.open(), built.delta_version)
            metadata |= {"rows withheld upstream": built.withheld, **self._lineage(built)}
            yield table_result(spec, built.account, metadata)
            yield from check_results(built.results, spec.key)

        return build

    def _lineage(self, built: "Built") -> dict[str, Any]:
        return query_lineage(built.sql, self.references, built.types)
