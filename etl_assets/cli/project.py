"""The project that a command works on: its folder, its environment variables, its Dagster instance."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etl_assets.cli.usage import WrongUsage
from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    import dagster as dg

    from etl_assets.cli.location import Location

MARK = "dagster.yaml"
"""The file that makes a folder a project."""


def find_root(start: Path) -> Path:
    """Return the folder of the project: `ETL_PROJECT`, or the nearest at or above `start` with a `dagster.yaml`.

    Raises:
        ConfigurationError: there is none.
    """
    named = os.environ.get("ETL_PROJECT")
    if named is not None:
        root = Path(named).expanduser().absolute()
        if not (root / MARK).is_file():
            raise ConfigurationError(
                f"there is no project in {root}", where="variable ETL_PROJECT", fix=f"name a folder with a {MARK}"
            )
        return root
    for folder in (start, *start.parents):
        if (folder / MARK).is_file():
            return folder
    raise ConfigurationError(
        f"there is no project in {start} or above it: no {MARK} is there",
        fix="change into the folder of the project, or set ETL_PROJECT to it",
    )


@dataclass(frozen=True)
class Project:
    """A project that has been entered: the process works in its folder, with its variables set."""

    root: Path
    environment: str | None = None

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """The instance that keeps runs and events: that of `DAGSTER_HOME` where it is set, else the project's own."""
        import dagster as dg

        if os.environ.get("DAGSTER_HOME"):
            return dg.DagsterInstance.get()
        return dg.DagsterInstance.from_config(str(self.root))

    @cached_property
    def location(self) -> Location:
        """The definitions; loading them takes seconds."""
        from etl_assets.cli.location import load_location

        return load_location(self.root)

    @property
    def state(self) -> Path:
        """Folder for what the command itself keeps, made if absent."""
        folder = self.root / ".dagster"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def defs_folder(self) -> Path:
        """The folder with one folder per pipeline."""
        project = settings(self.root)
        module = project.get("defs_module") or f"{project.get('root_module', 'etl_assets')}.defs"
        return self.root.joinpath(*module.split("."))


@contextmanager
def entered(environment: str | None = None) -> Iterator[Project]:
    """Find the project from the current folder, and work in it while the block runs."""
    before, root = Path.cwd(), find_root(Path.cwd())
    load_variables(root, environment)
    os.chdir(root)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    project = Project(root, environment)
    try:
        yield project
    finally:
        if "instance" in vars(project):
            project.instance.dispose()
        os.chdir(before)


def load_variables(root: Path, environment: str | None) -> None:
    """Set variables from `.env.<environment>` and `.env`; what is set already stays, and nothing is ever shown."""
    files = [root / ".env"]
    if environment is not None:
        named = root / f".env.{environment}"
        if not named.is_file():
            known = sorted(path.name.removeprefix(".env.") for path in root.glob(".env.*"))
            raise WrongUsage(
                f"there is no environment {environment!r}: no file {named.name} in {root}",
                fix=f"known: {', '.join(known)}" if known else f"write {named.name} with lines NAME=value",
            )
        files.insert(0, named)
    from dotenv import load_dotenv

    for file in files:
        if file.is_file():
            load_dotenv(file)


def settings(root: Path) -> dict[str, Any]:
    """Return `[tool.dg.project]` of `pyproject.toml`, or `[project]` of `dg.toml`; empty where there is neither."""
    import tomllib

    own = root / "dg.toml"
    if own.is_file():
        return dict(tomllib.loads(own.read_text("utf-8")).get("project", {}))
    pyproject = root / "pyproject.toml"
    if not pyproject.is_file():
        return {}
    found = tomllib.loads(pyproject.read_text("utf-8"))
    return dict(found.get("tool", {}).get("dg", {}).get("project", {}))
