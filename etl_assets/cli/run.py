"""`etl run`: run a pipeline."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etl_assets.cli.options import Env, Json, Pipeline, Select
from etl_assets.cli.state import STATE

if TYPE_CHECKING:
    from etl_assets.cli.outcome import Outcome
    from etl_assets.cli.project import Project
    from etl_assets.cli.running import Request


def run(
    pipeline: Pipeline,
    select: Select = None,
    env: Env = None,
    date: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="The day to load, of tables that are partitioned by day.")
    ] = None,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Read the sources from the beginning and build the tables anew.")
    ] = False,
    json: Json = False,
) -> int:
    """Run a pipeline: read what is new, bring its tables up to date, account for every row."""
    from etl_assets.cli.project import entered

    with entered(env) as project:
        request = request_of(project, pipeline, select or [], date, full_refresh=full_refresh)
        outcome = watched(project, request, quiet=json)
        report(project, request, outcome, as_json=json)
    return 0 if outcome.status == "success" else 1


def request_of(project: Project, pipeline: str, select: list[str], date: str | None, *, full_refresh: bool) -> Request:
    """Return what is to be run; loads the definitions."""
    with waiting("loading the definitions"):
        from etl_assets.cli.running import Request

        keys = project.location.select(pipeline, select)
    tags = {"etl/full_refresh": "true"} if full_refresh else {}
    if select:
        tags["etl/select"] = " ".join(select)
    return Request(pipeline, keys, partition=date, tags=tags)


def waiting(what: str) -> Any:
    """Show a spinner on a terminal while a block works."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.status(f"{what} …") if console.is_terminal and not STATE.debug else _nothing()


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def watched(project: Project, request: Request, *, quiet: bool) -> Outcome:
    """Run it, and show how far it has come unless `quiet`."""
    from etl_assets.cli.output import own_streams
    from etl_assets.cli.progress_view import shown_progress
    from etl_assets.cli.running import execute

    live = sys.stderr.isatty() and not STATE.debug
    with own_streams(silence=not STATE.debug) as stream:
        if quiet:
            return execute(project, request)
        with shown_progress(request, stream, STATE.started, live=live) as follower:
            return execute(project, request, follower.event)


def report(project: Project, request: Request, outcome: Outcome, *, as_json: bool) -> None:
    """Print what became of the run: accounts, failures, checks that did not pass, open errors."""
    from etl_assets.cli.error_queue import open_errors
    from etl_assets.cli.output import emit

    waits = open_errors(project, request.pipeline)
    if as_json:
        emit({"pipeline": request.pipeline, **outcome.to_json(), "open_errors": waits})
        return
    from etl_assets.cli.accounts import print_accounts
    from etl_assets.cli.failures import print_failures
    from etl_assets.cli.output import plural, stdout

    console = stdout()
    console.print(heading(request.pipeline, outcome))
    print_accounts(console, request.pipeline, outcome)
    _print_checks(console, request, outcome)
    if waits:
        total = sum(waits.values())
        listed = ", ".join(f"{_short(table, request)} {count:,}" for table, count in waits.items())
        console.print(f"{plural(total, 'row waits', 'rows wait')} as errors: {listed}.")
        console.print(f"Look at them: etl errors list {request.pipeline}")
    print_failures(console, outcome, debug=STATE.debug)
    if outcome.status == "canceled":
        console.print("Stopped. What was committed stays, and the next run goes on from there.")


def _short(table: str, request: Request) -> str:
    return table.replace(f"/{request.pipeline}/", "/", 1)


def heading(pipeline: str, outcome: Outcome) -> str:
    """Return the first line of the report."""
    color = {"success": "green", "failed": "red", "canceled": "yellow"}[outcome.status]
    word = {"success": "done", "failed": "failed", "canceled": "stopped"}[outcome.status]
    return f"\n[bold]{pipeline}[/bold]  [{color}]{word}[/{color}]  [dim]run {outcome.run_id}[/dim]"


def _print_checks(console: Any, request: Request, outcome: Outcome) -> None:
    from etl_assets.cli.location import short_name
    from etl_assets.cli.output import plural, table

    if not outcome.checks:
        return
    passed = sum(check.passed for check in outcome.checks)
    if not outcome.broken:
        console.print(f"{plural(passed, 'check')} passed.")
        return
    console.print(f"{passed} of {plural(len(outcome.checks), 'check')} passed; these did not:")
    rows = [
        [short_name(check.key, request.pipeline), check.name, check.severity.lower(), check.description]
        for check in outcome.broken
    ]
    console.print(table(["table", "check", "severity", "what"], rows, fold=["what"]))
