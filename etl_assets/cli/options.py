"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Env = Annotated[
    str | None,
    typer.Option("--env", metavar="NAME", help="Set the variables of .env.NAME; those that are set already stay."),
]
Pipeline = Annotated[str, typer.Argument(metavar="PIPELINE", show_default=False, help="Name of a pipeline.")]
OnePipeline = Annotated[
    str | None, typer.Argument(metavar="[PIPELINE]", show_default=False, help="Name of a pipeline; left out, all.")
]
Select = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        metavar="TABLE",
        help="Only these: silver/sales, silver/sales+ (and what depends on it), silver, or Dagster's selection syntax. "
        "May be repeated.",
    ),
]
