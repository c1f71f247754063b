"""The sensor of a change log: it asks for a run when there are changes, or when the continuous run has ended."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from etl_assets.circuits import troubled
from etl_assets.components.log_assets import LogAssets
from etl_assets.components.sensors import ACTIVE
from etl_assets.pausing import paused
from etl_resources.exceptions import EtlError

SECONDS = 5
"""Between two looks; a look costs the source one or two cheap queries."""


@dataclass(frozen=True)
class _Looked:
    """What a look at a log has found."""

    why: str | None = None
    """Why a run is wanted."""
    notes: Sequence[str] = ()


def capture_sensor(log: LogAssets) -> dg.SensorDefinition:
    """Return the sensor of a log.

    It looks only: nothing is set up, read or moved by it. One thing it does, where the user has asked for that: it
    spares the source what a capture that rests would do to it (`ChangeLog.protect`).
    """
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
        active = context.instance.get_runs(dg.RunsFilter(tags={"etl/pipeline": name}, statuses=ACTIVE), limit=1)
        if active:
            return dg.SkipReason(f"run {active[0].run_id[:8]} of the pipeline is under way")
        circuit = troubled(context.instance, [log.connection]).get(log.connection)
        if circuit is not None and circuit.word(time.time()) == "open":
            return dg.SkipReason(f"the circuit of connection {log.connection} is open: {circuit.reason}")
        looked = _look(context, log)
        for note in looked.notes:
            context.log.warning(note)
        rest = paused(context.instance, log.name)
        if rest is not None:
            return _skipped(f"paused{f': {rest.reason}' if rest.reason else ''}", looked)
        if looked.why is None:
            return _skipped("nothing is new", looked)
        assert context.repository_def is not None  # noqa: S101 - Dagster evaluates sensors of a repository
        downstream = dg.AssetSelection.assets(*keys.values()).downstream()
        own = dg.AssetSelection.groups(name).materializable()
        chosen = (downstream & own).resolve(context.repository_def.asset_graph)
        # No run_key: with one, a run that crashes would never be asked for again.
        return dg.RunRequest(asset_selection=sorted(chosen), tags={**tags, "etl/news": looked.why[:200]})

    return look


def _skipped(why: str, looked: _Looked) -> dg.SkipReason:
    return dg.SkipReason("; ".join([why, *looked.notes]))


def _look(context: dg.SensorEvaluationContext, log: LogAssets) -> _Looked:
    """Look at the log, also while it rests: it may hold back more than the source can bear."""
    source = getattr(context.resources, log.connection)
    capture = log.capture(source, context.resources.lake, context.resources.engine)
    positions = capture.positions()
    try:
        done = capture.log.protect()
        if len(positions) < len(log.tables):
            return _Looked("a table was never read", [done] if done else [])
        state = capture.log.state(positions)
    except EtlError as error:
        return _Looked(notes=[f"{log.connection} cannot be looked at: {error.what}"])
    notes = [done, *state.notes] if done else state.notes
    if state.state == "lost" and log.settings.on_lost == "fail":
        return _Looked(notes=notes)  # a run would fail, and so would the next
    if log.continuous:
        return _Looked("the run that follows the log has ended", notes)
    news = state.news if state.news is not None else state.lag.bytes != 0
    return _Looked(f"{state.lag.bytes or 'some'} bytes of log" if news or state.state == "lost" else None, notes)
