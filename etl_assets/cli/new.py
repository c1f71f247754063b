"""`etl new`: scaffold a pipeline that works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etl_assets.cli.options import Env, Json

if TYPE_CHECKING:
    from etl_assets.cli.project import Project

TEMPLATE = Path(__file__).parent / "template"
DATA = ("orders.csv",)
"""Files of the template that go to `data/<name>`; the others go beside `defs.yaml`."""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Name of the new pipeline.")],
    env: Env = None,
    json: Json = False,
) -> None:
    """Make a new pipeline: a working one over sample data, to be changed into your own."""
    from etl_assets.cli.output import emit, stdout
    from etl_assets.cli.project import entered

    with entered(env) as project:
        files = scaffold(project, name)
        shown = [str(file.relative_to(project.root)) for file in files]
        if json:
            emit({"pipeline": name, "files": shown})
            return
        console = stdout()
        console.print(f"A working pipeline, [bold]{name}[/bold]:")
        for file in shown:
            console.print(f"  {file}")
        console.print(f"\nSee what it would do:  etl plan {name}\nRun it:                etl run {name}")


def scaffold(project: Project, name: str) -> list[Path]:
    """Write the files of a new pipeline and return their paths; nothing that is there is touched.

    Raises:
        WrongUsage: the name cannot be one, or there is something of that name.
    """
    from string import Template

    from etl_assets.cli.usage import WrongUsage

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise WrongUsage(
            f"{name!r} cannot be the name of a pipeline", fix="begin with a letter; a to z, 0 to 9 and _ may follow"
        )
    folder, data = project.defs_folder / name, project.root / "data" / name
    targets = {file: (data if file.name in DATA else folder) / file.name for file in sorted(TEMPLATE.iterdir())}
    for taken in (folder, *targets.values()):
        if taken.exists():
            raise WrongUsage(f"{taken.relative_to(project.root)} is there already", fix="choose another name")
    if name in project.location.names:
        raise WrongUsage(f"there is a pipeline {name} already", fix="choose another name")
    for file, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(file.read_text("utf-8")).substitute(name=name), "utf-8")
    return sorted(targets.values())
