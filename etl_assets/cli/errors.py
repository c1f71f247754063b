"""`etl errors`: the rows that could not be taken, and what is to become of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from etl_assets.cli.options import Env, Json, OnePipeline

if TYPE_CHECKING:
    from etl_assets.cli.error_queue import Wanted
    from etl_assets.cli.project import Project

app = typer.Typer(
    name="errors",
    help="Look at rows that could not be taken, try them again, or give them up.",
    no_args_is_help=True,
)

Table = Annotated[str | None, typer.Option("--table", metavar="TABLE", help="Only of this table: silver/sales.")]
Rule = Annotated[str | None, typer.Option("--rule", metavar="RULE", help="Only those that broke this rule.")]
Ids = Annotated[
    list[str] | None, typer.Option("--error", metavar="ERROR", help="Only this error, by its id. May be repeated.")
]


@app.command("list")
def list_errors(
    pipeline: OnePipeline = None,
    *,
    table: Table = None,
    rule: Rule = None,
    state: Annotated[
        str, typer.Option(metavar="STATE", help="open, replayed, discarded, withdrawn, obsolete, or all.")
    ] = "open",
    limit: Annotated[int, typer.Option(min=0, help="How many to list one by one, newest first.")] = 10,
    env: Env = None,
    json: Json = False,
) -> None:
    """List errors: how many by table and rule, and the newest one by one."""
    from etl_assets.cli.error_queue import Wanted, grouped, listed
    from etl_assets.cli.output import emit
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import waiting

    wanted = Wanted(pipeline, table, rule, state)
    with entered(env) as project:
        with waiting("looking"):
            wanted.check(project)
            groups, found = grouped(project, wanted), listed(project, wanted, limit)
        if json:
            emit({"groups": groups, "errors": found})
        else:
            _print_list(wanted, groups, found)


def _print_list(wanted: Wanted, groups: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    from etl_assets.cli.output import plural, stdout, table

    console = stdout()
    word = "error" if wanted.status == "all" else f"{wanted.status} error"
    if not groups:
        console.print(f"There is no {word}.")
        return
    rows = [[group["table"], group["rule"], group["errors"], group["example"] or ""] for group in groups]
    console.print(table(["table", "rule", "errors", "for example"], rows, fold=["for example"]))
    total = sum(group["errors"] for group in groups)
    if found:
        console.print(f"The newest {len(found)} of {plural(total, word)}:")
        rows = [[one["error"], one["rule"], one["reason"] or ""] for one in found]
        console.print(table(["error", "rule", "reason"], rows, fold=["reason"], whole=["error"]))
        console.print(f"One in full: etl errors show {found[0]['error']}")


@app.command("show")
def show(
    error: Annotated[str, typer.Argument(metavar="ERROR", show_default=False, help="Id of an error.")],
    env: Env = None,
    json: Json = False,
) -> None:
    """Show one error: the record, the rules that it broke, where it came from, what has happened to it."""
    from etl_assets.cli.error_queue import Wanted, listed, past_events
    from etl_assets.cli.output import emit
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import waiting
    from etl_assets.cli.usage import WrongUsage

    with entered(env) as project:
        with waiting("looking"):
            found = listed(project, Wanted(status="all", ids=(error,)))
            if not found:
                raise WrongUsage(f"there is no error {error}", fix="`etl errors list` gives the ids of those there are")
            events = past_events(project, error)
        if json:
            emit({**found[0], "events": events})
        else:
            _print_one(found[0], events)


def _print_one(error: dict[str, Any], events: list[dict[str, Any]]) -> None:
    from json import dumps

    from etl_assets.cli.output import stdout

    console = stdout()
    origin = f"{error['origin'] or ''}{', line ' + str(error['line']) if error['line'] else ''}"
    for label, value in (
        ("error", error["error"]),
        ("state", error["status"]),
        ("rules", ", ".join(error["rules"] or [error["rule"]])),
        ("reason", error["reason"]),
        ("from", origin),
        ("run", error["run_id"]),
    ):
        if value:
            console.print(f"[bold]{label:<7}[/bold] ", end="")
            console.print(value, markup=False, soft_wrap=True)
    if error["record"] is not None:
        console.print("[bold]record[/bold]")
        console.print(dumps(error["record"], indent=2, ensure_ascii=False), markup=False, soft_wrap=True)
    if error["raw"] is not None:
        console.print("[bold]as it came[/bold]")
        console.print(error["raw"], markup=False, soft_wrap=True)
    console.print("[bold]history[/bold]")
    for event in events:
        note = f": {event['note']}" if event["note"] else ""
        console.print(f"  {event['happened_at']:%Y-%m-%d %H:%M:%S}  {event['status']}{note}", markup=False)


@app.command("replay")
def replay(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", show_default=False, help="Name of a pipeline.")],
    table: Table = None,
    rule: Rule = None,
    error: Ids = None,
    env: Env = None,
    json: Json = False,
) -> None:
    """Judge errors of a pipeline again, by today's steps and rules; what gets through enters its table."""
    from etl_assets.cli.error_queue import Wanted
    from etl_assets.cli.output import emit, own_streams
    from etl_assets.cli.project import entered
    from etl_assets.cli.replaying import replayed
    from etl_assets.cli.run import waiting
    from etl_assets.cli.state import STATE

    with entered(env) as project:
        with waiting("judging again"), own_streams(silence=not STATE.debug and json):
            result = replayed(project, Wanted(pipeline, table, rule, ids=tuple(error or ())))
        if json:
            emit(result)
        else:
            _print_replay(pipeline, result)


def _print_replay(pipeline: str, result: dict[str, Any]) -> None:
    from etl_assets.cli.output import plural, stdout, table

    console = stdout()
    columns = ("read", "inserted", "updated", "unchanged", "superseded", "filtered", "rejected")
    rows = [[one["table"], *(one[name] for name in columns)] for one in result["tables"]]
    if rows:
        console.print(table(["table", "again", *columns[1:-1], "still rejected"], rows))
        entered = sum(one["inserted"] + one["updated"] for one in result["tables"])
        console.print(f"{plural(entered, 'row')} entered.")
        if entered:
            console.print(f"Bring what depends on it up to date: etl run {pipeline} --select gold --select publish")
    else:
        console.print("No open error of a silver table fits.")
    if result["not_replayable"]:
        console.print(
            f"{plural(result['not_replayable'], 'error')} cannot be judged again: records that could not be read, or "
            "that a target refused. Mend the source or the target and run again, or discard them."
        )


@app.command("discard")
def discard(
    pipeline: OnePipeline = None,
    *,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", show_default=False, help="Why; it is kept.")],
    table: Table = None,
    rule: Rule = None,
    error: Ids = None,
    env: Env = None,
    json: Json = False,
) -> None:
    """Give errors up, with the reason why; their rows stay in bronze."""
    import uuid

    from etl_assets.cli.error_queue import Wanted, listed
    from etl_assets.cli.output import emit, plural, stdout
    from etl_assets.cli.project import entered
    from etl_assets.cli.usage import WrongUsage

    if not (pipeline or table or rule or error):
        raise WrongUsage("which errors?", fix="name a PIPELINE, or give --table, --rule or --error")
    with entered(env) as project:
        wanted = Wanted(pipeline, table, rule, ids=tuple(error or ()))
        wanted.check(project)
        ids = error or [one["error"] for one in listed(project, wanted)]
        count = _discarded(project, ids, reason, str(uuid.uuid4()))
        if json:
            emit({"discarded": count})
        else:
            stdout().print(f"{plural(count, 'error')} discarded.")


def _discarded(project: Project, ids: list[str], reason: str, run_id: str) -> int:
    from etl_assets import errors
    from etl_assets.run import Run

    return errors.discard(project.location.lake, ids, reason, Run(run_id)) if ids else 0
