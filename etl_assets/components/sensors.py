"""The sensor of a pipeline: it looks at the sources, and asks for a run where something is new."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import dagster as dg

from etl_assets.circuits import troubled
from etl_assets.components.context import PipelineContext
from etl_assets.components.models import WatchModel
from etl_assets.components.stream_assets import StreamAssets
from etl_assets.watching import Looked, Memory, look
from etl_resources.exceptions import ConfigurationError
from etl_resources.source import Source

ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def watchable(stream: StreamAssets) -> bool:
    """Tell whether the source of a stream can say cheaply that something is new.

    Partitions are not watched, and change logs have a sensor of their own.
    """
    return not stream.follows_log and stream.source.latest is not Source.latest and stream.partitions is None


def watch_sensor(pipeline: PipelineContext, watch: WatchModel, streams: Sequence[StreamAssets]) -> dg.SensorDefinition:
    """Return the sensor.

    Raises:
        ConfigurationError: no stream can be watched.
    """
    watched = {stream.name: stream for stream in streams if watchable(stream)}
    if not watched:
        raise ConfigurationError(
            "watch: none of the streams can be watched",
            where=pipeline.where(),
            fix="sources that cannot tell what is new, and partitions, want a `schedule`",
        )
    tags = {"etl/pipeline": pipeline.name, "etl/watch": "true"}
    keys = {name: dg.AssetKey(["bronze", pipeline.name, name]) for name in watched}
    connections = {stream.options.connection for stream in watched.values() if stream.options.connection}

    @dg.sensor(
        name=f"{pipeline.name}_watch",
        target=dg.AssetSelection.groups(pipeline.name),
        minimum_interval_seconds=watch.seconds,
        required_resource_keys=connections,
        description=f"Looks at {', '.join(watched)} and starts a run where something is new.",
    )
    def look_for_news(context: dg.SensorEvaluationContext) -> Any:
        active = context.instance.get_runs(
            dg.RunsFilter(tags={"etl/pipeline": pipeline.name}, statuses=ACTIVE), limit=1
        )
        if active:
            return dg.SkipReason(f"run {active[0].run_id[:8]} of the pipeline is under way")
        memory = Memory.load(context.cursor)
        memory.forget_done(_loaded(context.instance, keys))
        looked = _look(context, watched, memory)
        memory.begin = looked.left[0] if looked.left else None
        now = time.time()
        due = memory.due(looked.found, watch.seconds, now)
        memory.remember(due, looked.found, now)
        said = _said(looked, watched)
        if said:
            context.log.warning(said)
        context.update_cursor(memory.dump())
        if not due:
            return dg.SkipReason(f"nothing is new{'; ' + said if said else ''}")
        assert context.repository_def is not None  # noqa: S101 - Dagster evaluates sensors of a repository
        downstream = dg.AssetSelection.assets(*(keys[name] for name in due)).downstream()
        own = dg.AssetSelection.groups(pipeline.name).materializable()
        chosen = (downstream & own).resolve(context.repository_def.asset_graph)
        # No run_key: with one, a run that crashes would never be asked for again.
        return dg.RunRequest(asset_selection=sorted(chosen), tags={**tags, "etl/news": ",".join(due)[:200]})

    return look_for_news


def _look(context: dg.SensorEvaluationContext, watched: dict[str, StreamAssets], memory: Memory) -> Looked:
    """Ask the sources, but not those whose circuit is open."""
    names = sorted({stream.options.connection for stream in watched.values() if stream.options.connection})
    states = troubled(context.instance, names)
    closed = {name for name, state in states.items() if state.word(time.time()) == "open"}
    asked = {}
    for name, stream in watched.items():
        connection = stream.options.connection
        if connection in closed:
            continue
        source = getattr(context.resources, connection) if connection else stream.source()
        asked[name] = partial(source.latest, stream.stream())
    return look(asked, memory.begin)


def _loaded(instance: dg.DagsterInstance, keys: dict[str, dg.AssetKey]) -> dict[str, float]:
    """Return when bronze was last loaded, per stream, in seconds since 1970."""
    names = {key: name for name, key in keys.items()}
    records = instance.get_asset_records(list(names))
    return {
        names[record.asset_entry.asset_key]: record.asset_entry.last_materialization.timestamp
        for record in records
        if record.asset_entry.last_materialization is not None
    }


def _said(looked: Looked, watched: dict[str, StreamAssets]) -> str:
    """Return what stood in the way of looking, for the tick's message."""
    lines = [f"{name} cannot be looked at: {reason}" for name, reason in list(looked.failed.items())[:5]]
    if len(looked.failed) > 5:
        lines.append(f"and {len(looked.failed) - 5} more")
    if looked.left:
        asked = len(watched) - len(looked.left)
        lines.append(f"{asked} of {len(watched)} streams answered in time, the next tick begins with the others")
    return "; ".join(lines)
