"""`etl doctor`: what is installed, reachable and configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl_assets.cli.options import Env, Json

if TYPE_CHECKING:
    from etl_assets.cli.examination import Finding

_MARKS = {"good": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "bad": "[red]✗[/red]", "none": "[dim]–[/dim]"}


def doctor(env: Env = None, json: Json = False) -> int:
    """Examine the installation: versions, extras, connections, lake, disk, memory, variables."""
    from etl_assets.cli.examination import examine
    from etl_assets.cli.output import emit
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import waiting

    with entered(env) as project:
        with waiting("examining"):
            findings = examine(project)
        if json:
            emit([finding.to_json() for finding in findings])
        else:
            _print(findings)
    return 1 if any(finding.verdict == "bad" for finding in findings) else 0


def _print(findings: list[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from etl_assets.cli.output import stdout

    console = stdout()
    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            console.print(f"\n[bold]{area}[/bold]")
        line = Table.grid(padding=(0, 1))
        line.add_column(width=1)
        line.add_column(width=24, overflow="fold")
        line.add_column(overflow="fold")
        line.add_row(_MARKS[finding.verdict], escape(finding.name), escape(finding.text))
        console.print(line)
    bad = sum(finding.verdict == "bad" for finding in findings)
    console.print(f"\n{bad} to mend." if bad else "\nNothing to mend.")
