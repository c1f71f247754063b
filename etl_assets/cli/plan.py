"""`etl plan`: what a run would do, before it touches anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from etl_assets.cli.options import Env, Json, Pipeline, Select

if TYPE_CHECKING:
    from etl_assets.cli.planning import Step


def plan(
    pipeline: Pipeline,
    select: Select = None,
    env: Env = None,
    date: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="As of `etl run`.")] = None,
    full_refresh: Annotated[bool, typer.Option("--full-refresh", help="As of `etl run`.")] = False,
    json: Json = False,
) -> int:
    """Show what a run would read, change and create, and about how much, without writing anything."""
    from etl_assets.cli.output import emit
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import request_of, waiting

    with entered(env) as project:
        request = request_of(project, pipeline, select or [], date, full_refresh=full_refresh)
        with waiting("looking at the sources"):
            from etl_assets.cli.planning import Plan
            from etl_assets.cli.running import check_partition

            check_partition(project, request)
            steps = Plan(project, request).steps()
        if json:
            emit({"pipeline": pipeline, "steps": [step.to_json() for step in steps], **_sums(steps)})
        else:
            _print(pipeline, steps)
    return 1 if any(step.problem for step in steps) else 0


def _sums(steps: list[Step]) -> dict[str, Any]:
    """Return what would be read from outside; what cannot be told counts as nothing."""
    bronze = [step for step in steps if step.key.path[0] == "bronze"]
    return {
        "rows_to_read": sum(step.rows or 0 for step in bronze),
        "bytes_to_read": sum(step.size or 0 for step in bronze),
        "complete": all(step.rows is not None for step in bronze),
    }


def _print(pipeline: str, steps: list[Step]) -> None:
    from etl_assets.cli.failures import indented
    from etl_assets.cli.location import short_name
    from etl_assets.cli.output import plural, size, stdout, table

    rows: list[list[Any]] = [
        [
            short_name(step.key, pipeline),
            "would fail" if step.problem else step.does,
            step.rows,
            "" if step.size is None else size(step.size),
            "; ".join(step.changes),
        ]
        for step in steps
    ]
    console = stdout()
    console.print(
        table(["table", "a run would", "rows (about)", "size", "changes"], rows, fold=["a run would", "changes"])
    )
    for step in steps:
        if step.items:
            shown = ", ".join(item.rpartition("/")[2] for item in step.items[:5])
            more = f" and {len(step.items) - 5:,} more" if len(step.items) > 5 else ""
            console.print(f"{short_name(step.key, pipeline)} from {shown}{more}", markup=False)
    sums = _sums(steps)
    least = "" if sums["complete"] else "at least "
    console.print(
        f"To read: {least}about {plural(sums['rows_to_read'], 'row')}, {size(sums['bytes_to_read'])}. "
        "Nothing was written."
    )
    for step in steps:
        if step.problem:
            console.print(f"\n[red bold]✗ {short_name(step.key, pipeline)}[/red bold]")
            console.print(indented(step.problem), markup=False)
