"""The sensor of a change log: it asks for a run when there are changes, or when the continuous run has ended."""

import time
from typing import Any

import dagster as dg

from etl_assets.circuits import troubled
from etl_assets.components.log_assets import LogAssets
from etl_assets.components.sensors import ACTIVE
from etl_assets.pausing import paused
from etl_resources.exceptions import EtlError

SECONDS = 5
"""Between two looks; a look costs the source one cheap query."""


def capture_sensor(log: LogAssets) -> dg.SensorDefinition:
    """Return the sensor of a log. It looks only: nothing is set up, read or moved by it."""
    name = log.pipeline.name
    keys = {stream.name: dg.AssetKey(["bronze", name, stream.name]) for stream in log.streams}
    tags = {"etl/pipeline": name, "etl/capture": log.name}

    @dg.sensor(
        name=f"{log.name}_capture",
        target=dg.AssetSelection.groups(name),
        minimum_interval_seconds=SECONDS,
        required_resource_keys={"lake", "engine", log.connection},
        description=f"Follows the change log of {log.connection} for {', '.join(keys)}.",
    )
    def look(context: dg.SensorEvaluationContext) -> Any:
        rest = paused(context.instance, log.name)
        if rest is not None:
            return dg.SkipReason(f"paused{f': {rest.reason}' if rest.reason else ''}")
        active = context.instance.get_runs(dg.RunsFilter(tags={"etl/pipeline": name}, statuses=ACTIVE), limit=1)
        if active:
            return dg.SkipReason(f"run {active[0].run_id[:8]} of the pipeline is under way")
        circuit = troubled(context.instance, [log.connection]).get(log.connection)
        if circuit is not None and circuit.word(time.time()) == "open":
            return dg.SkipReason(f"the circuit of connection {log.connection} is open: {circuit.reason}")
        why = "the run that follows the log has ended" if log.continuous else _news(context, log)
        if why is None:
            return dg.SkipReason("nothing is new")
        assert context.repository_def is not None  # noqa: S101 - Dagster evaluates sensors of a repository
        downstream = dg.AssetSelection.assets(*keys.values()).downstream()
        own = dg.AssetSelection.groups(name).materializable()
        chosen = (downstream & own).resolve(context.repository_def.asset_graph)
        # No run_key: with one, a run that crashes would never be asked for again.
        return dg.RunRequest(asset_selection=sorted(chosen), tags={**tags, "etl/news": why[:200]})

    return look


def _news(context: dg.SensorEvaluationContext, log: LogAssets) -> str | None:
    """Return why a run is wanted; None: there is nothing to do, or it could not be found out."""
    source = getattr(context.resources, log.connection)
    capture = log.capture(source, context.resources.lake, context.resources.engine)
    positions = capture.positions()
    if len(positions) < len(log.tables):
        return "a table was never read"
    try:
        state = capture.log.state(positions)
    except EtlError as error:
        context.log.warning("%s cannot be looked at: %s", log.connection, error.what)
        return None
    for note in state.notes:
        context.log.warning(note)
    if state.state == "lost" and log.settings.on_lost == "fail":
        return None  # a run would fail, and so would the next
    news = state.news if state.news is not None else state.lag.bytes != 0
    return f"{state.lag.bytes or 'some'} bytes of log" if news or state.state == "lost" else None
