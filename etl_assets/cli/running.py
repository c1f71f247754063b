"""A run of some tables through Dagster, in this process and on the project's own instance."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.cli.event_log import quick_events
from etl_assets.cli.one_at_a_time import COMMAND_TAG, only_run
from etl_assets.cli.outcome import Outcome, was_interrupted
from etl_assets.cli.project import Project
from etl_assets.cli.records import PIPELINE_TAG
from etl_assets.cli.usage import WrongUsage


@dataclass(frozen=True)
class Request:
    """What is to be run."""

    pipeline: str
    keys: Sequence[dg.AssetKey] = ()
    """Tables, in order."""
    checks: Sequence[dg.AssetCheckKey] = ()
    """Checks that are evaluated alone; those of the tables come with the tables."""
    partition: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


if TYPE_CHECKING:
    from dagster._core.storage.dagster_run import DagsterRun

Watcher = Callable[[dg.DagsterEvent, Outcome], Any]


def execute(project: Project, request: Request, watch: Watcher | None = None) -> Outcome:
    """Run it, calling `watch` with every event and the outcome so far; a run that fails is no exception.

    Raises:
        WrongUsage: the partition does not fit the tables.
        ConcurrentCommitError: the pipeline is running already.
    """
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run_iterator

    check_partition(project, request)
    instance, job = project.instance, _job(project, request)
    tags = {**_tags(project, request)}
    if request.partition is not None:
        tags |= job.get_tags_for_partition_key(request.partition, selected_asset_keys=job.asset_selection or [])
    run_id = str(uuid.uuid4())
    outcome = Outcome(run_id, steps_of(project, request.keys))
    with only_run(project, request.pipeline, run_id), quick_events(instance, run_id):
        run = instance.create_run_for_job(
            job, run_id=run_id, tags=tags, asset_selection=job.asset_selection, status=dg.DagsterRunStatus.NOT_STARTED
        )
        started = time.perf_counter()
        for event in execute_run_iterator(InMemoryJob(job), run, instance):
            if was_interrupted(event):
                _stopped(instance, run, event)
            outcome.seconds = time.perf_counter() - started
            outcome.add(event, outcome.seconds)
            if watch is not None:
                watch(event, outcome)
    return outcome


def _job(project: Project, request: Request) -> dg.JobDefinition:
    everything = project.location.definitions.resolve_implicit_global_asset_job_def()
    checks = frozenset(request.checks) or None
    return everything.get_subset(asset_selection=frozenset(request.keys), asset_check_selection=checks)


def _tags(project: Project, request: Request) -> dict[str, str]:
    # A run of this process cannot be started again by the daemon.
    tags = {PIPELINE_TAG: request.pipeline, COMMAND_TAG: "etl", "dagster/max_retries": "0", **request.tags}
    return {**tags, "etl/env": project.environment} if project.environment is not None else tags


def steps_of(project: Project, keys: Sequence[dg.AssetKey]) -> dict[str, list[dg.AssetKey]]:
    """Return step -> tables."""
    assets = project.location.definitions.get_repository_def().assets_defs_by_key
    steps: dict[str, list[dg.AssetKey]] = {}
    for key in keys:
        steps.setdefault(assets[key].node_def.name, []).append(key)
    return steps


def check_partition(project: Project, request: Request) -> None:
    """See to it that the partition fits the tables.

    Tables without partitions ride along: they bring themselves up to date, as in any run, so that what is built from
    the partition finds them.

    Raises:
        WrongUsage: a partition is needed, or given in vain, or not there.
    """
    graph = project.location.graph
    definitions = {"/".join(key.path): graph.get(key).partitions_def for key in request.keys}
    partitioned = {name: definition for name, definition in definitions.items() if definition is not None}
    if request.partition is None and partitioned:
        names = ", ".join(partitioned)
        last = next(iter(partitioned.values())).get_last_partition_key() or "2024-01-20"
        raise WrongUsage(
            f"{names} are loaded day by day: which day?", fix=f"add --date {last}, or leave them out with --select"
        )
    if request.partition is not None and not partitioned:
        raise WrongUsage("nothing that is selected is partitioned by day", fix="leave --date out")
    for name, definition in partitioned.items():
        if request.partition is not None and not definition.has_partition_key(request.partition):
            first, last = definition.get_first_partition_key(), definition.get_last_partition_key()
            span = f"days from {first} to {last}" if first else "no day yet"
            raise WrongUsage(f"{name} has no day {request.partition}", fix=f"it has {span}, written YYYY-MM-DD")


def _stopped(instance: dg.DagsterInstance, run: DagsterRun, event: dg.DagsterEvent) -> None:
    """Have the run recorded as canceled, which Dagster does only of what was asked for in the web UI."""
    if event.event_type_value == "STEP_FAILURE":
        instance.report_run_canceling(run)  # known before the run ends, this makes it end so
    else:
        instance.report_run_canceled(run)
