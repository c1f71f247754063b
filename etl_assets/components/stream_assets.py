"""The assets of one stream: the source outside, bronze and silver inside."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.circuits import guarded
from etl_assets.components.context import PipelineContext, conserved_spec, full_refresh, run_of
from etl_assets.components.mistakes import use, validated
from etl_assets.components.models import StreamModel
from etl_assets.components.table_metadata import (
    contract_columns,
    same_columns,
    table_metadata,
    table_result,
)
from etl_assets.references import parse_reference
from etl_checks.asset_checks import check_results, check_specs
from etl_resources.registry import source_type
from etl_resources.source import Capture, Compared, LogCapture, Snapshot, Source, Stream, StreamOptions, Window

if TYPE_CHECKING:
    from etl_assets.silver import Silver, SilverSpec
    from etl_checks.contract import Contract


@dataclass(frozen=True)
class StreamAssets:
    """Builds the definitions of one stream."""

    pipeline: PipelineContext
    name: str
    model: StreamModel

    @property
    def where(self) -> str:
        """Place in the pipeline, for messages."""
        return self.pipeline.where(f"stream {self.name}")

    @cached_property
    def source(self) -> type[Source]:
        """The class of the source."""
        return source_type(self.model.source.get("type"), where=self.where)

    @cached_property
    def options(self) -> StreamOptions:
        """The options of the source, checked."""
        return validated(self.source.options_type, self.model.source, where=f"{self.where}, source")

    @cached_property
    def contract(self) -> "Contract | None":
        """The contract of the silver table."""
        return self.pipeline.contract(self.model.contract)

    @cached_property
    def capture(self) -> Capture | None:
        """How the source is captured."""
        capture = self.model.capture
        if capture is None or capture.log is None:
            return None if capture is None else capture.found
        return validated(self.source.log_type, capture.log, where=f"{self.where}, capture, log")

    @property
    def follows_log(self) -> bool:
        """Whether the stream comes from a change log, which brings it in together with others."""
        return isinstance(self.capture, LogCapture)

    @property
    def has_events(self) -> bool:
        """Whether bronze holds events, from a change log or made by comparing, and not the rows as received."""
        return isinstance(self.capture, LogCapture | Compared)

    @property
    def reading(self) -> Capture | None:
        """How the source itself is asked."""
        return self.capture.reading() if isinstance(self.capture, Compared) else self.capture

    @property
    def partitions(self) -> dg.PartitionsDefinition | None:
        """The partitions of the stream's assets."""
        model = self.model.partitions
        return None if model is None else dg.DailyPartitionsDefinition(start_date=model.daily.start.isoformat())

    def check(self) -> None:
        """Raise ConfigurationError for what the source cannot do."""
        from etl_resources.exceptions import ConfigurationError

        able = self.source.capabilities
        if self.options.connection is not None:
            use(self.options.connection, self.options.connection, self.source, self.where)
        if self.capture is not None and self.reading is not None and self.reading.kind not in able.captures:
            raise ConfigurationError(
                f"a source of type {self.options.type} has no {self.capture.kind} capture",
                where=self.where,
                fix=f"known captures: {', '.join(sorted(able.captures))}",
            )
        if self.has_events:
            self._check_log()
        if self.model.partitions is not None and not able.windows:
            raise ConfigurationError(
                f"a source of type {self.options.type} cannot be read by partition",
                where=self.where,
                fix="drop partitions",
            )

    def _check_log(self) -> None:
        from etl_resources.exceptions import ConfigurationError

        if self.model.order:
            raise ConfigurationError(
                "order: the change log knows which version is newest", where=self.where, fix="drop order"
            )
        if self.model.partitions is not None:
            raise ConfigurationError(
                "partitions: a change log has no parts that could be read again",
                where=self.where,
                fix="drop partitions",
            )
        if self.follows_log and self.options.connection is None:
            raise ConfigurationError(
                "a change log needs a connection", where=self.where, fix="source: {connection: ...}"
            )

    def external(self) -> dg.AssetSpec:
        """Return the asset of the source itself, which others write."""
        place = self.options.connection or self.options.type
        return dg.AssetSpec(
            key=["source", place, self.pipeline.name, self.name],
            group_name=self.pipeline.name,
            kinds={self.options.type},
            description=f"Read by bronze/{self.pipeline.name}/{self.name}.",
            tags={"etl/pipeline": self.pipeline.name, "etl/layer": "source"},
        )

    def bronze_spec(self) -> dg.AssetSpec:
        """Return the spec of the bronze table."""
        what = "every change, in order" if self.has_events else "as received"
        return self.pipeline.spec(
            "bronze",
            self.name,
            deps=[self.external()],
            kinds={"bronze", "deltalake"},
            description=f"{self.model.description or self.name}: {what}.",
        )

    def bronze(self) -> dg.AssetsDefinition:
        """Return the bronze asset."""
        spec = self.bronze_spec()
        connection = self.options.connection
        needs = {"lake", *([connection] if connection else []), *(["engine"] if self.has_events else [])}

        @dg.multi_asset(
            name=f"bronze__{self.pipeline.name}__{self.name}",
            specs=[spec],
            check_specs=[conserved_spec(spec)],
            required_resource_keys=needs,
            partitions_def=self.partitions,
            pool=connection,
        )
        def land(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
            from etl_assets.bronze import Bronze

            source: Source = getattr(context.resources, connection) if connection else self.source()
            bronze = Bronze(context.resources.lake, self.pipeline.name, self.stream(context))
            with guarded(context, connection, self.external().key):
                if self.has_events:
                    from etl_assets.components.comparing import compare

                    landed = compare(self, bronze, source, context)
                else:
                    landed = bronze.land(source, run_of(context), full_refresh=full_refresh(context))
            handle = bronze.table.open()
            metadata = table_metadata(bronze.table, handle, landed.delta_version)
            own = [name for name in handle.schema().names if not name.startswith("_")] if handle is not None else []
            metadata |= same_columns(self.external().key, own)
            yield table_result(spec, landed.account, metadata)

        return land

    def stream(self, context: dg.AssetExecutionContext | None = None) -> Stream:
        """Return what the source is asked for, restricted to the partition of the run."""
        window = self.window(context) if context is not None else None
        return Stream(self.name, self.options, self.reading, window)

    def window(self, context: dg.AssetExecutionContext) -> Window | None:
        """Return the partition of the run."""
        if self.model.partitions is None:
            return None
        day = context.partition_time_window.start.astimezone(UTC)
        return Window(self.model.partitions.daily.column, day, day + timedelta(days=1))

    def silver(self, lake: Any, engine: Any) -> "Silver":
        """Return the silver table."""
        from etl_assets.silver import Silver

        return Silver(lake, engine, self.silver_spec())

    def silver_spec(self) -> "SilverSpec":
        """Return what the silver table is made of; mistakes in steps, contract and foreign keys are raised here."""
        from etl_assets.silver import SilverSpec
        from etl_assets.transforms import parse_steps

        return SilverSpec(
            pipeline=self.pipeline.name,
            name=self.name,
            key=self.model.key,
            steps=parse_steps(self.model.steps, layer="silver", where=self.where),
            order=self.model.order,
            contract=self.contract,
            budget=self.pipeline.budget(self.model.errors),
            snapshot=isinstance(self.capture, Snapshot),
            log_key=self.log_key if self.has_events else (),
            references=self.references(),
        )

    @cached_property
    def log_key(self) -> tuple[str, ...]:
        """The key as the source names its columns, before the steps have renamed any."""
        from etl_assets.transforms import parse_steps
        from etl_assets.transforms.parameters.shaping import Rename

        names = list(self.model.key)
        for step in reversed(parse_steps(self.model.steps, layer="silver", where=self.where)):
            if isinstance(step.parameters, Rename):
                before = {new: old for old, new in step.parameters.columns.items()}
                names = [before.get(name, name) for name in names]
        return tuple(names)

    def references(self) -> Mapping[str, tuple[str, ...]]:
        """Return the tables that the contract's foreign keys name -> their keys in the lake."""
        keys = self.contract.foreign_keys if self.contract is not None else ()
        return {
            key.table: parse_reference(f"silver/{key.table}", self.pipeline.name, where=f"{self.where}, contract").key
            for key in keys
        }

    def silver_asset_spec(self) -> dg.AssetSpec:
        """Return the spec of the silver table."""
        contract = self.contract
        upstream = [dg.AssetKey(list(key)) for key in self.references().values()]
        return self.pipeline.spec(
            "silver",
            self.name,
            deps=[dg.AssetKey(["bronze", self.pipeline.name, self.name]), *upstream],
            kinds={"silver", "deltalake"},
            description=self.model.description or (contract.description if contract is not None else None),
            owners=contract.owners if contract is not None else (),
            code_version=contract.version if contract is not None else None,
            metadata=contract_columns(contract),
        )

    def silver_asset(self) -> dg.AssetsDefinition:
        """Return the silver asset."""
        spec = self.silver_asset_spec()

        @dg.multi_asset(
            name=f"silver__{self.pipeline.name}__{self.name}",
            specs=[spec],
            check_specs=[conserved_spec(spec)],
            required_resource_keys={"lake", "engine"},
            partitions_def=self.partitions,
        )
        def refine(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
            from etl_assets.components.refining import Refining

            refining, run = Refining(self, context), run_of(context)
            refining.refine(run, full_refresh=full_refresh(context), window=self.window(context))
            refining.retry(run)
            yield refining.result(spec)

        return refine

    def contract_checks(self) -> list[dg.AssetChecksDefinition]:
        """Return the checks of the contract over the whole silver table, evaluated by one query."""
        contract = self.contract
        if contract is None or not contract.rules:
            return []
        key = dg.AssetKey(["silver", self.pipeline.name, self.name])

        @dg.multi_asset_check(
            name=f"contract__{self.pipeline.name}__{self.name}",
            specs=check_specs(contract, key),
            can_subset=True,
            required_resource_keys={"lake", "engine"},
        )
        def keep_contract(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
            from etl_assets.completeness import contract_results

            silver = self.silver(context.resources.lake, context.resources.engine)
            wanted = {check.name for check in context.selected_asset_check_keys}
            for result in check_results(contract_results(silver), key):
                if result.check_name in wanted:
                    yield result

        return [keep_contract]
