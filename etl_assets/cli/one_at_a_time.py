"""One run of a pipeline at a time: a second one is told of the first, and runs that died are closed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConcurrentCommitError

if TYPE_CHECKING:
    import dagster as dg

    from etl_assets.cli.project import Project

COMMAND_TAG = "etl/command"
"""Marks runs of the command line; Dagster's daemon cannot tell whether they are alive."""


@contextmanager
def only_run(project: Project, pipeline: str, run_id: str) -> Iterator[None]:
    """Hold the pipeline while the block runs.

    Raises:
        ConcurrentCommitError: another run of the pipeline is going on.
    """
    from filelock import FileLock, Timeout

    folder = project.state / "locks"
    folder.mkdir(exist_ok=True)
    holder = folder / f"{pipeline}.json"
    lock = FileLock(folder / f"{pipeline}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        found = _read(holder.read_text("utf-8") if holder.is_file() else "")
        raise _busy(pipeline, found, "wait until it has ended") from None
    try:
        _close_dead_runs(project.instance, pipeline)
        holder.write_text(json.dumps({"run_id": run_id, "pid": os.getpid(), "since": _now()}), "utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _close_dead_runs(instance: dg.DagsterInstance, pipeline: str) -> None:
    """Close runs of the command that died, which the lock proves; refuse while Dagster itself runs the pipeline."""
    import dagster as dg

    from etl_assets.cli.records import WORKING, pipelines_of

    unfinished = [*WORKING, dg.DagsterRunStatus.NOT_STARTED]
    for record in instance.get_run_records(dg.RunsFilter(statuses=unfinished)):
        run = record.dagster_run
        if pipeline not in pipelines_of(run):
            continue
        if COMMAND_TAG in run.tags:
            instance.report_run_failed(run, "The process ended before the run did; what it committed stays.")
        elif run.status in WORKING:
            since = datetime.fromtimestamp(record.start_time or record.create_timestamp.timestamp()).astimezone()
            raise _busy(
                pipeline,
                f"run {run.run_id}, started by Dagster at {since:%Y-%m-%d %H:%M:%S}",
                "wait until it has ended; if its process is gone, terminate it in the web UI",
            )


def _busy(pipeline: str, holder: str, fix: str) -> ConcurrentCommitError:
    return ConcurrentCommitError(f"{pipeline} is running already: {holder}", where=f"pipeline {pipeline}", fix=fix)


def _read(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:  # the other one has not written it yet
        return "started a moment ago"
    return f"run {found['run_id'][:8]}, process {found['pid']}, since {found['since']}"


def _now() -> str:
    return datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
