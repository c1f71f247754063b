"""`etl capture`: how change logs are, and what a person does about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from etl_assets.cli.options import Env, Json, OnePipeline, Pipeline

if TYPE_CHECKING:
    from etl_assets.cli.captures import Looked
    from etl_assets.cli.project import Project
    from etl_resources.change_log import Finding

app = typer.Typer(name="capture", help="Change logs: state, preflight, reading anew, pausing.", no_args_is_help=True)
_MARKS = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "error": "[red]✗[/red]"}
Streams = Annotated[list[str] | None, typer.Argument(metavar="[STREAM]...", help="Streams; left out, all of the log.")]


@app.command()
def status(pipeline: OnePipeline = None, env: Env = None, json: Json = False) -> int:
    """Show how far behind the lake is, and how long the source keeps what comes next. Ends with 1 if a log is lost."""
    from etl_assets.cli.captures import looked_at
    from etl_assets.cli.output import emit
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import waiting
    from etl_assets.pausing import paused

    with entered(env) as project:
        with waiting("looking"):
            names = [pipeline] if pipeline is not None else _followers(project)
            found = {name: looked_at(project.location, name) for name in names}
            rest = {one.log.name: paused(project.instance, one.log.name) for logs in found.values() for one in logs}
        every = [(name, one) for name, logs in found.items() for one in logs]
        if json:
            emit([{"pipeline": name, **one.to_json(), "paused": rest[one.log.name] is not None} for name, one in every])
        else:
            _print(every, rest)
    return 1 if any(one.state is None or one.state.state == "lost" for _, one in every) else 0


@app.command()
def preflight(pipeline: Pipeline, env: Env = None, json: Json = False) -> int:
    """Look whether the source is set up for its log to be followed; changes nothing. Ends with 1 if it is not."""
    from etl_assets.cli.captures import captures
    from etl_assets.cli.output import emit
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import waiting

    with entered(env) as project:
        with waiting("examining"):
            found = {log.connection: capture.log.preflight() for log, capture in captures(project.location, pipeline)}
        if json:
            emit(
                [
                    {
                        "connection": connection,
                        "stream": one.stream,
                        "level": one.level,
                        "what": one.what,
                        "fix": one.fix,
                    }
                    for connection, findings in found.items()
                    for one in findings
                ]
            )
        else:
            _print_findings(found)
    return 1 if any(one.level == "error" for findings in found.values() for one in findings) else 0


@app.command()
def resnapshot(pipeline: Pipeline, streams: Streams = None, env: Env = None, json: Json = False) -> None:
    """Let the next run read tables anew, beside their log; deletes that were missed are found by it."""
    from etl_assets.cli.captures import captures
    from etl_assets.cli.output import emit, stdout
    from etl_assets.cli.project import entered
    from etl_assets.cli.usage import unknown

    with entered(env) as project:
        marked: list[str] = []
        known: list[str] = []
        for log, capture in captures(project.location, pipeline):
            own = [table.name for table in log.tables]
            known += own
            wanted = [name for name in own if not streams or name in streams]
            marked += capture.renew(wanted, _run())
        for name in streams or ():
            if name not in known:
                raise unknown("stream that follows a log", name, known)
        if json:
            emit({"pipeline": pipeline, "streams": marked})
            return
        names = ", ".join(marked) or "nothing: no table was read before, so the first run reads them whole anyway"
        stdout().print(f"The next run reads anew: {names}.")


@app.command()
def compact(
    pipeline: Pipeline,
    streams: Streams = None,
    after_days: Annotated[
        int | None,
        typer.Option(
            "--after-days", min=0, help="Days that stay as they are; left out: `compact_after_days` of the log."
        ),
    ] = None,
    env: Env = None,
    json: Json = False,
) -> None:
    """Keep, of closed days of the log in bronze, only the last change of each key, and what waits for a replay."""
    from etl_assets.cli.capture_work import compacted, print_compactions
    from etl_assets.cli.output import emit
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import waiting

    with entered(env) as project:
        with waiting("compacting"):
            done = compacted(project, pipeline, streams, after_days)
        if json:
            emit(done)
        else:
            print_compactions(done)


@app.command()
def reconcile(
    pipeline: Pipeline,
    streams: Streams = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="KEYS", help="Keys that are named, per stream.")] = 20,
    env: Env = None,
    json: Json = False,
) -> int:
    """Compare the source with the lake, all rows by checksums. Ends with 1 if they differ."""
    from etl_assets.cli.capture_work import print_reconciled, reconciled
    from etl_assets.cli.output import emit
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import waiting

    with entered(env) as project:
        with waiting("comparing"):
            found = reconciled(project, pipeline, streams, limit)
        if json:
            emit(found)
        else:
            print_reconciled(pipeline, found)
    return 1 if any(one["differing"] for one in found) else 0


@app.command()
def pause(
    pipeline: Pipeline, reason: Annotated[str, typer.Option("--reason", help="Why, for others.")] = "", env: Env = None
) -> None:
    """Let the captures of a pipeline rest: no run follows the log. The source goes on keeping it: mind its disk."""
    from etl_assets.cli.output import stdout
    from etl_assets.cli.project import entered
    from etl_assets.pausing import pause as rest

    with entered(env) as project:
        for log in project.location.logs(pipeline):
            rest(project.instance, log.name, reason)
            stdout().print(f"{log.name} is paused. The source keeps its log until: etl capture resume {pipeline}")


@app.command()
def resume(pipeline: Pipeline, env: Env = None) -> None:
    """Let the captures of a pipeline go on."""
    from etl_assets.cli.output import stdout
    from etl_assets.cli.project import entered
    from etl_assets.pausing import resume as go_on

    with entered(env) as project:
        for log in project.location.logs(pipeline):
            go_on(project.instance, log.name)
            stdout().print(f"{log.name} goes on.")


@app.command()
def remove(
    pipeline: Pipeline,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    env: Env = None,
) -> None:
    """Remove what a capture has set up at the source, e.g. its slot; the lake keeps what it has."""
    from etl_assets.cli.captures import captures
    from etl_assets.cli.output import stdout
    from etl_assets.cli.project import entered

    with entered(env) as project:
        for log, capture in captures(project.location, pipeline):
            if not yes:
                typer.confirm(
                    f"Remove the capture {log.name} at the source? Following it again reads the tables anew", abort=True
                )
            capture.log.remove()
            stdout().print(f"{log.name} has nothing at the source any more.")


def _run() -> Any:
    from uuid import uuid4

    from etl_assets.run import Run

    return Run(f"etl-{uuid4().hex[:8]}")


def _followers(project: Project) -> list[str]:
    """Return the pipelines with a stream that follows a log."""
    location = project.location
    return [name for name in location.contexts if any(stream.follows_log for stream in location.streams(name))]


def _print(every: list[tuple[str, Looked]], rest: dict[str, Any]) -> None:
    from etl_assets.cli.output import duration, size, stdout, table

    console = stdout()
    if not every:
        console.print("No stream follows a change log: capture: {log: {}} makes one.")
        return
    rows = []
    for name, one in every:
        lag = one.state.lag if one.state is not None else None
        state = "not reached" if one.state is None else one.state.state
        behind = size(lag.bytes) if lag is not None and lag.bytes is not None else None
        late = duration(lag.seconds) if lag is not None else None
        kept = size(lag.retained) if lag is not None and lag.retained is not None else None
        read = sum(position is not None for position in one.positions.values())
        word = "paused" if rest[one.log.name] is not None else state
        rows.append(
            [name, one.log.connection, one.log.settings.mode, word, behind, late, kept, f"{read}/{len(one.positions)}"]
        )
    columns = ["pipeline", "log of", "mode", "state", "behind", "late", "kept for us", "tables\nread"]
    console.print(table(columns, rows))
    for _, one in every:
        for note in [*([] if one.state is None else one.state.notes), *([one.problem] if one.problem else [])]:
            console.print(f"{one.log.connection}: {note}", markup=False)


def _print_findings(found: dict[str, list[Finding]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from etl_assets.cli.output import plural, stdout

    console = stdout()
    for connection, findings in found.items():
        console.print(f"\n[bold]{connection}[/bold]")
        for one in findings:
            line = Table.grid(padding=(0, 1))
            line.add_column(width=1)
            line.add_column(overflow="fold")
            stream = f"{one.stream}: " if one.stream else ""
            line.add_row(
                _MARKS[one.level], escape(stream + one.what) + (f"\n[dim]{escape(one.fix)}[/dim]" if one.fix else "")
            )
            console.print(line)
    errors = sum(one.level == "error" for findings in found.values() for one in findings)
    console.print(f"\n{plural(errors, 'thing')} in the way." if errors else "\nNothing is in the way.")
