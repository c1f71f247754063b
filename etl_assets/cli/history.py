"""`etl history` and `etl stats`: what Dagster recorded of past runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etl_assets.cli.options import Env, Json, OnePipeline

if TYPE_CHECKING:
    from etl_assets.cli.project import Project
    from etl_assets.cli.records import PastRun


def history(
    pipeline: OnePipeline = None,
    limit: Annotated[int, typer.Option(min=1, help="How many runs, newest first.")] = 20,
    env: Env = None,
    json: Json = False,
) -> None:
    """List the newest runs."""
    from etl_assets.cli.output import emit
    from etl_assets.cli.project import entered
    from etl_assets.cli.records import add_figures, past_runs
    from etl_assets.cli.run import waiting

    with entered(env) as project:
        with waiting("looking"):
            keys = _keys(project, pipeline)
            runs = past_runs(project.instance, pipeline, limit=limit)
            add_figures(project.instance, runs, keys)
        if json:
            emit([run.to_json() for run in runs])
        else:
            _print_history(runs)


def _keys(project: Project, pipeline: str | None) -> list[Any]:
    if pipeline is not None:
        project.location.check_name(pipeline)
    names = project.location.names if pipeline is None else [pipeline]
    return [key for name in names for key in project.location.keys(name)]


def _print_history(runs: Sequence[PastRun]) -> None:
    from etl_assets.cli.output import duration, stdout, table

    columns = ["started", "pipeline", "status", "took", "read", "loaded", "rejected", "run", "what"]
    rows: list[list[Any]] = [
        [
            f"{run.started.astimezone():%Y-%m-%d %H:%M}",
            ", ".join(sorted(run.pipelines)),
            run.status,
            duration(run.seconds),
            run.read,
            run.loaded,
            run.rejected,
            run.run_id[:8],
            run.what,
        ]
        for run in runs
    ]
    stdout().print(table(columns, rows, fold=["what"]) if rows else "There has been no run yet.")


def stats(
    pipeline: OnePipeline = None,
    days: Annotated[int, typer.Option(min=1, help="Runs of so many days.")] = 30,
    env: Env = None,
    json: Json = False,
) -> None:
    """Show runs, success rate, rows and durations per pipeline; runs that failed count."""
    from datetime import UTC, datetime, timedelta

    from etl_assets.cli.output import duration, emit, stdout, table
    from etl_assets.cli.project import entered
    from etl_assets.cli.records import add_figures, past_runs
    from etl_assets.cli.run import waiting

    with entered(env) as project:
        with waiting("looking"):
            keys = _keys(project, pipeline)
            after = datetime.now(UTC) - timedelta(days=days)
            runs = [run for run in past_runs(project.instance, pipeline, after=after) if not run.checks_only]
            add_figures(project.instance, runs, keys)
            names = project.location.names if pipeline is None else [pipeline]
            found = [summary(name, [run for run in runs if name in run.pipelines]) for name in names]
        if json:
            emit(found)
            return
        columns = ["pipeline", "runs", "failed", "success", "read", "loaded", "rejected", "p50", "p95", "p99"]
        rows: list[list[Any]] = [
            [
                one["pipeline"],
                one["runs"],
                one["failed"],
                "" if one["success_rate"] is None else f"{one['success_rate']:.0%}",
                one["read"],
                one["loaded"],
                one["rejected"],
                *(duration(one[name]) for name in ("p50", "p95", "p99")),
            ]
            for one in found
        ]
        console = stdout()
        console.print(table(columns, rows, title=f"the last {days} days"))


def summary(pipeline: str, runs: Sequence[PastRun]) -> dict[str, Any]:
    """Return the figures of the runs of one pipeline; durations (seconds) are those of all runs that ended."""
    ended = [run for run in runs if run.seconds is not None]
    failed = sum(run.status == "failed" for run in ended)
    succeeded = sum(run.status == "success" for run in ended)
    seconds = sorted(run.seconds for run in ended if run.seconds is not None)
    return {
        "pipeline": pipeline,
        "runs": len(runs),
        "succeeded": succeeded,
        "failed": failed,
        "canceled": len(ended) - succeeded - failed,
        "not_ended": len(runs) - len(ended),
        "success_rate": succeeded / len(ended) if ended else None,
        "read": sum(run.read for run in runs),
        "loaded": sum(run.loaded for run in runs),
        "rejected": sum(run.rejected for run in runs),
        **{f"p{rank}": percentile(seconds, rank) for rank in (50, 95, 99)},
    }


def percentile(ordered: Sequence[float], rank: int) -> float | None:
    """Return the smallest value that at least `rank` per cent of the values do not exceed; None of nothing."""
    if not ordered:
        return None
    position = -(-len(ordered) * rank // 100)  # rounded up
    return ordered[max(position, 1) - 1]
