"""`etl status`: how things stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl_assets.cli.options import Env, Json, OnePipeline

if TYPE_CHECKING:
    from etl_assets.cli.project import Project
    from etl_assets.cli.records import PastRun
    from etl_assets.cli.tables_now import TableNow


def status(pipeline: OnePipeline = None, env: Env = None, json: Json = False) -> None:
    """Show how things stand: last run, freshness, rows, open errors, failed checks."""
    from etl_assets.cli.error_queue import open_errors
    from etl_assets.cli.output import emit
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import waiting
    from etl_assets.cli.tables_now import tables_now

    with entered(env) as project:
        with waiting("looking"):
            if pipeline is not None:
                project.location.check_name(pipeline)
            names = project.location.names if pipeline is None else [pipeline]
            errors = open_errors(project)
            found = {name: tables_now(project, project.location.keys(name), errors) for name in names}
            last = last_runs(project, names)
            troubles = {name: _troubles(project, name) for name in names}
        if json:
            emit([{**_to_json(project, name, found[name], last[name]), "circuits": troubles[name]} for name in names])
            return
        if pipeline is None:
            _print_all(project, found, last)
        else:
            _print_one(project, pipeline, found[pipeline], last[pipeline])
        _print_troubles(troubles)


def last_runs(project: Project, names: list[str]) -> dict[str, PastRun | None]:
    """Return the newest run of each pipeline."""
    from etl_assets.cli.records import past_runs

    return {name: next(iter(past_runs(project.instance, name, limit=1)), None) for name in names}


def _troubles(project: Project, pipeline: str) -> dict[str, dict[str, Any]]:
    """Return the connections of a pipeline that failed last, with the state of their circuits."""
    import time

    from etl_assets.circuits import troubled

    context = project.location.contexts.get(pipeline)
    if context is None:
        return {}
    model = context.model
    places = [*(stream.source for stream in model.streams.values()), *(each.target for each in model.publish)]
    names = {str(place["connection"]) for place in places if place.get("connection")}
    found = troubled(project.instance, sorted(names))
    return {
        name: {"circuit": state.word(time.time()), "failures": state.failures, "reason": state.reason}
        for name, state in found.items()
    }


def _print_troubles(troubles: dict[str, dict[str, dict[str, Any]]]) -> None:
    from etl_assets.cli.output import plural, stdout

    every = {name: trouble for found in troubles.values() for name, trouble in found.items()}
    for name, trouble in every.items():
        failures = plural(trouble["failures"], "failure")
        stdout().print(f"connection {name}: circuit {trouble['circuit']}, {failures} in a row: {trouble['reason']}")


def schedule_of(project: Project, pipeline: str) -> str | None:
    """Return the cron expression of a pipeline."""
    context = project.location.contexts.get(pipeline)
    return context.model.schedule if context is not None else None


def _print_all(project: Project, found: dict[str, list[TableNow]], last: dict[str, PastRun | None]) -> None:
    from etl_assets.cli.output import ago, stdout, table

    rows: list[list[Any]] = []
    for name, tables in found.items():
        loaded = [one.loaded for one in tables if one.loaded is not None]
        rows.append(
            [
                name,
                _run(last[name]),
                ago(max(loaded)) if loaded else "never",
                _silver_rows(tables),
                sum(one.open_errors for one in tables),
                sum(len(one.failed_checks) for one in tables),
                schedule_of(project, name) or "",
            ]
        )
    columns = ["pipeline", "last run", "loaded", "silver\nrows", "open\nerrors", "failed\nchecks", "schedule"]
    console = stdout()
    console.print(table(columns, rows) if rows else "There is no pipeline yet: etl new NAME makes one.")


def _print_one(project: Project, pipeline: str, tables: list[TableNow], last: PastRun | None) -> None:
    from etl_assets.cli.location import short_name
    from etl_assets.cli.output import ago, stdout, table

    rows = [
        [short_name(one.key, pipeline), ago(one.loaded), one.rows, one.open_errors, ", ".join(one.failed_checks)]
        for one in tables
    ]
    console = stdout()
    schedule = schedule_of(project, pipeline)
    console.print(f"[bold]{pipeline}[/bold]  last run: {_run(last)}" + (f"  schedule: {schedule}" if schedule else ""))
    console.print(table(["table", "loaded", "rows", "errors", "failed checks"], rows, fold=["failed checks"]))


def _run(run: PastRun | None) -> str:
    from etl_assets.cli.output import ago

    return "never" if run is None else f"{run.status}, {ago(run.started)}"


def _silver_rows(tables: list[TableNow]) -> int:
    return sum(one.rows or 0 for one in tables if one.key.path[0] == "silver")


def _to_json(project: Project, name: str, tables: list[TableNow], last: PastRun | None) -> dict[str, Any]:
    loaded = [one.loaded for one in tables if one.loaded is not None]
    return {
        "pipeline": name,
        "schedule": schedule_of(project, name),
        "last_run": None if last is None else last.to_json(),
        "loaded": max(loaded).isoformat() if loaded else None,
        "silver_rows": _silver_rows(tables),
        "open_errors": sum(one.open_errors for one in tables),
        "failed_checks": sum(len(one.failed_checks) for one in tables),
        "tables": [one.to_json() for one in tables],
    }
