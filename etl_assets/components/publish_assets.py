"""The asset of one publication."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import dagster as dg

from etl_assets.circuits import guarded
from etl_assets.components.context import PipelineContext, conserved_spec, run_of
from etl_assets.components.mistakes import use, validated
from etl_assets.components.models import PublishModel
from etl_assets.components.table_metadata import same_columns, table_result
from etl_assets.references import Reference, parse_reference
from etl_resources.exceptions import ConfigurationError
from etl_resources.registry import target_type
from etl_resources.target import Target, TargetOptions


@dataclass(frozen=True)
class PublishAssets:
    """Builds the definitions of one publication."""

    pipeline: PipelineContext
    model: PublishModel

    @property
    def name(self) -> str:
        """Name of the publication."""
        return self.model.name or self.reference.table

    @property
    def where(self) -> str:
        """Place in the pipeline, for messages."""
        return self.pipeline.where(f"publish {self.model.table}")

    @cached_property
    def reference(self) -> Reference:
        """The table that is published."""
        return parse_reference(self.model.table, self.pipeline.name, where=self.where)

    @cached_property
    def target(self) -> type[Target]:
        """The class of the target."""
        return target_type(self.model.target.get("type"), where=self.where)

    @cached_property
    def options(self) -> TargetOptions:
        """The options of the target, checked."""
        options = validated(self.target.options_type, self.model.target, where=f"{self.where}, target")
        if self.model.mode not in self.target.modes:
            raise ConfigurationError(
                f"a target of type {options.type} has no mode {self.model.mode}",
                where=self.where,
                fix=f"known modes: {', '.join(sorted(self.target.modes))}",
            )
        return options

    def definition(self) -> dg.AssetsDefinition:
        """Return the asset."""
        model, options = self.model, self.options
        spec = self.pipeline.spec(
            "publish",
            self.name,
            deps=[dg.AssetKey(list(self.reference.key))],
            kinds={options.type},
            description=f"{self.model.table}, loaded into {options.connection or options.type} ({model.mode}).",
        )
        resource = f"{options.connection}_target" if options.connection else None
        if options.connection is not None and resource is not None:
            use(options.connection, resource, self.target, self.where)
        needs = {"lake", "engine", resource} if resource else {"lake", "engine"}

        @dg.multi_asset(
            name=f"publish__{self.pipeline.name}__{self.name}",
            specs=[spec],
            check_specs=[conserved_spec(spec)],
            required_resource_keys=needs,
            pool=options.connection,
        )
        def publish(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
            from etl_assets.publish import Publisher, PublishSpec

            target: Target = getattr(context.resources, resource) if resource else self.target()
            publication = PublishSpec(
                self.pipeline.name,
                self.name,
                self.reference.key,
                options,
                model.mode,
                model.key,
                self.pipeline.budget(model.errors),
            )
            publisher = Publisher(context.resources.lake, context.resources.engine, publication)
            with guarded(context, options.connection, spec.key):
                published = publisher.publish(target, run_of(context))
            table = context.resources.lake.table(*self.reference.key)
            handle = table.open(published.lake_version)
            columns = [name for name in handle.schema().names if not name.startswith("_")] if handle else []
            metadata = {
                "lake version": published.lake_version,
                "already there": published.already_there,
                **same_columns(dg.AssetKey(list(self.reference.key)), columns),
            }
            yield table_result(spec, published.account, metadata)

        return publish
