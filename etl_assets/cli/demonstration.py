"""What `etl demo` does: data, two runs, their accounts, and a small gold table of each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.cli.usage import WrongUsage

if TYPE_CHECKING:
    from etl_assets.cli.outcome import Outcome
    from etl_assets.cli.project import Project
    from etl_assets.demo.retail.truth import Truth

GOLD = {
    "flights": (
        "worst_routes",
        "The worst routes out of New York",
        """SELECT rank, origin, coalesce(destination, dest) AS destination, arrivals,
                  mean_arrival_delay AS minutes_late, late_percent
           FROM gold.worst_routes ORDER BY rank LIMIT 8""",
    ),
    "retail": (
        "revenue_by_segment_and_month",
        "Revenue by segment",
        """SELECT segment, sum(orders)::BIGINT AS orders, sum(returns)::BIGINT AS returns,
                  sum(gross_revenue) AS gross, sum(returned_amount) AS returned, sum(net_revenue) AS net
           FROM gold.revenue_by_segment_and_month GROUP BY segment ORDER BY net DESC""",
    ),
}
"""Pipeline -> gold table, heading, what to show of it."""


def folder_of(project: Project, pipeline: str) -> Path:
    """Return where a demo pipeline reads its files."""
    return project.root / os.environ.get(f"{pipeline.upper()}_DIR", f"data/{pipeline}")


def demonstrate(project: Project, *, rows: int, seed: int, as_json: bool) -> int:
    """Make the data, run both pipelines, show what came out; returns the exit code.

    Raises:
        WrongUsage: the pipelines are not in this project.
    """
    from etl_assets.cli.output import emit, stdout
    from etl_assets.cli.run import report, waiting, watched
    from etl_assets.cli.running import Request
    from etl_assets.demo.flights import prepare
    from etl_assets.demo.retail import generate

    with waiting("making the data"):
        prepare(folder_of(project, "flights"))
        truth = generate(folder_of(project, "retail"), rows=rows, seed=seed)
    missing = sorted(set(GOLD) - set(project.location.names))
    if missing:
        raise WrongUsage(f"there is no pipeline {missing[0]} in {project.root}", fix="run the demo in the repository")
    outcomes: dict[str, Outcome] = {}
    for pipeline in GOLD:
        request = Request(pipeline, project.location.keys(pipeline))
        outcomes[pipeline] = watched(project, request, quiet=as_json)
        if not as_json:
            report(project, request, outcomes[pipeline], as_json=False)
            if outcomes[pipeline].status == "success":
                _print_gold(project, pipeline)
    if as_json:
        emit({pipeline: outcome.to_json() for pipeline, outcome in outcomes.items()})
    else:
        stdout().print(conclusion(outcomes, truth))
    return 0 if all(outcome.status == "success" for outcome in outcomes.values()) else 1


def _print_gold(project: Project, pipeline: str) -> None:
    from etl_assets.cli.output import stdout, table

    _, title, _ = GOLD[pipeline]
    columns, rows = gold_rows(project, pipeline)
    console = stdout()
    console.print()
    console.print(table([name.replace("_", " ") for name in columns], rows, title=title))


def gold_rows(project: Project, pipeline: str) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and rows that are shown of a gold table."""
    from etl_assets.references import Reference, attach

    name, _, sql = GOLD[pipeline]
    handle = project.location.lake.table("gold", pipeline, name).open()
    assert handle is not None  # noqa: S101 - the run that built it has succeeded
    with project.location.engine.session() as session:
        attach(session, Reference("gold", pipeline, name), session.lake_relation(handle))
        found = session.table(sql)
    return found.column_names, [list(row.values()) for row in found.to_pylist()]


def conclusion(outcomes: Mapping[str, Outcome], truth: Truth) -> str:
    """Say what the demo has shown."""
    tables = [table for outcome in outcomes.values() for table in outcome.tables.values() if table.figures]
    read = sum(table.figures["read"] for table in tables if table.key.path[0] == "bronze")
    if read == 0:
        return "These data were loaded before, so there was nothing new to read. `rm -rf .lake` begins anew."
    said = f"{read:,} records were read, and every one is accounted for."
    verdict = meets(outcomes["retail"], truth)
    if verdict is not None:
        records = sum(sum(fates.values()) for fates in truth.fates.values())
        word = "the fate that" if verdict else "NOT the fate that"
        said += f" Each of the {records:,} records of the shop met {word} its generator had written down beforehand."
    return said + "\nLook around: etl status, etl errors list, or the web UI: make dev"


def meets(outcome: Outcome, truth: Truth) -> bool | None:
    """Tell whether the accounts are those that the generator foretold; None: they are not of these data alone."""
    for stream, fates in truth.fates.items():
        bronze = outcome.tables[dg.AssetKey(["bronze", "retail", stream])]
        silver = outcome.tables[dg.AssetKey(["silver", "retail", stream])]
        if not silver.figures or silver.rows != silver.figures["inserted"]:
            return None
        expected = {
            "inserted": fates["kept"],
            "superseded": fates.get("superseded", 0),
            "filtered": sum(count for fate, count in fates.items() if fate.startswith("filtered:")),
            "rejected": sum(count for fate, count in fates.items() if fate.startswith("rejected:")),
        }
        unreadable = fates.get("unreadable", 0)
        if bronze.figures["rejected"] != unreadable or any(silver.figures[k] != v for k, v in expected.items()):
            return False
    return True
