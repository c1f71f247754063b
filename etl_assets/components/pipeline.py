from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict

from etl_assets.components.context import PipelineContext
from etl_assets.components.gold_assets import GoldAssets
from etl_assets.components.log_assets import logs_of
from etl_assets.components.log_sensor import capture_sensor
from etl_assets.components.mistakes import did_you_mean, reported, validated
from etl_assets.components.models import PipelineModel
from etl_assets.components.publish_assets import PublishAssets
from etl_assets.components.reconcile_checks import reconcile_checks
from etl_assets.components.sensors import watch_sensor
from etl_assets.components.stream_assets import StreamAssets
from etl_assets.components.templates import resolved
from etl_resources.exceptions import ConfigurationError, EtlError
from etl_resources.source import LogCapture


class PipelineAttributes(PipelineModel):
    """The same keys as `PipelineModel`; unknown ones pass here, so that all mistakes are told together, with hints."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Pipeline(dg.Component):
    """Streams of a source into bronze and silver, gold tables over them, published into targets.

    Every row is accounted for: see docs/pipelines.md.
    """

    def __init__(self, **attributes: Any) -> None:
        self.attributes: Mapping[str, Any] = attributes
        self.context: PipelineContext | None = None
        """The checked pipeline, once its definitions are built: what the command line plans and replays with."""

    @classmethod
    def get_model_cls(cls) -> type[BaseModel] | None:
        """Return the schema that the web UI and editors show."""
        return _Documented

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return what the web UI says about the component."""
        return dg.ComponentTypeSpec(tags=["etl"], owners=[])

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Pipeline:
        """Read `attributes:` of a `defs.yaml`; `{{ … }}` is resolved here, what it says is checked in `build_defs`."""
        raw = attributes.model_dump() if attributes is not None else {}
        return cls(**resolved(raw, context.resolution_context))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the definitions; every mistake of the pipeline is told, not the first."""
        folder = Path(context.path)
        folder = folder if folder.is_dir() else folder.parent
        return reported(lambda: self.definitions(folder), dg.Definitions())

    def definitions(self, folder: Path) -> dg.Definitions:
        """Return the definitions; contracts and SQL files are looked for in `folder`.

        Raises:
            ConfigurationError: with every mistake of the pipeline.
        """
        model = validated(PipelineModel, self.attributes, where=str(folder / "defs.yaml"))
        pipeline = self.context = PipelineContext(model, folder)
        parts = _Parts()
        for name, stream in model.streams.items():
            parts.add_stream(StreamAssets(pipeline, name, stream))
        parts.try_add(partial(parts.add_logs, pipeline))
        for name, table in model.gold.items():
            parts.try_add(partial(_one, GoldAssets(pipeline, name, table)))
        for publication in model.publish:
            parts.try_add(partial(_one, PublishAssets(pipeline, publication)))
        if model.schedule is not None:
            parts.try_add(partial(_check_cron, model.schedule, pipeline.where()))
        if model.watch is not None:
            parts.try_watch(partial(watch_sensor, pipeline, model.watch))
        if parts.mistakes:
            raise ConfigurationError("\n".join(parts.mistakes), where=str(folder))
        schedules = [_schedule(model)] if model.schedule else []
        return dg.Definitions(
            assets=[*parts.assets], asset_checks=parts.checks, schedules=schedules, sensors=parts.sensors
        )


class _Documented(BaseModel):
    """Attributes of a pipeline; checked by the pipeline itself, which can say more about a mistake."""

    model_config = ConfigDict(extra="allow")


class _Parts:
    """Collects definitions, and what is wrong with the others."""

    def __init__(self) -> None:
        self.assets: list[Any] = []
        self.checks: list[dg.AssetChecksDefinition] = []
        self.streams: list[StreamAssets] = []
        self.sensors: list[dg.SensorDefinition] = []
        self.mistakes: list[str] = []

    def add_stream(self, stream: StreamAssets) -> None:
        """Add source, bronze, silver and checks of a stream."""

        def build() -> list[Any]:
            stream.check()
            silver = stream.silver_asset()
            stream.silver_spec()  # parses steps, contract and foreign keys: their mistakes belong here
            self.checks += stream.contract_checks()
            self.streams.append(stream)
            if not stream.follows_log:
                return [stream.external(), stream.bronze(), silver]
            return [stream.external(), *([] if _continuous(stream) else [silver])]

        self.try_add(build)

    def add_logs(self, pipeline: PipelineContext) -> list[Any]:
        """Add the sensors of the change logs that streams follow; returns their steps."""
        logs = logs_of(pipeline, self.streams)
        self.sensors += [capture_sensor(log) for log in logs]
        self.checks += [reconcile_checks(log) for log in logs]
        return [log.definition() for log in logs]

    def try_watch(self, build: Callable[[list[StreamAssets]], dg.SensorDefinition]) -> None:
        """Add the sensor over the streams that are right."""

        def watch() -> list[Any]:
            if not self.mistakes:
                self.sensors.append(build(self.streams))
            return []

        self.try_add(watch)

    def try_add(self, build: Callable[[], list[Any]]) -> None:
        """Add what `build` returns, or the mistake that it raises."""
        try:
            self.assets += build()
        except EtlError as error:
            self.mistakes.append(str(error))


def _continuous(stream: StreamAssets) -> bool:
    return isinstance(stream.capture, LogCapture) and stream.capture.mode == "continuous"


def _one(builder: GoldAssets | PublishAssets) -> list[Any]:
    return [builder.definition()]


def _check_cron(cron: str, where: str) -> list[Any]:
    from dagster._utils.schedules import is_valid_cron_schedule

    if not is_valid_cron_schedule(cron):
        known = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
        raise ConfigurationError(f"schedule: {cron!r} is no cron expression{did_you_mean(cron, known)}", where=where)
    return []


def _schedule(model: PipelineModel) -> dg.ScheduleDefinition:
    """Return the schedule; a pipeline with partitions runs its newest complete one."""
    # At most one run per pipeline at a time, see deploy/dagster.yaml.
    name, tags = f"{model.name}_schedule", {"etl/pipeline": model.name}
    target, cron = dg.AssetSelection.groups(model.name), str(model.schedule)
    starts = [stream.partitions.daily.start for stream in model.streams.values() if stream.partitions is not None]
    if not starts:
        return dg.ScheduleDefinition(name=name, target=target, cron_schedule=cron, tags=tags)
    first = min(starts)

    @dg.schedule(name=name, target=target, cron_schedule=cron)
    def newest_day(context: dg.ScheduleEvaluationContext):
        day = context.scheduled_execution_time.astimezone(UTC).date() - timedelta(days=1)
        if day < first:
            return dg.SkipReason(f"no day since {first} is complete yet")
        return dg.RunRequest(partition_key=day.isoformat(), tags=tags)

    return newest_day
