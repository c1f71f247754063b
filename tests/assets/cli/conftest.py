"""Projects for the command to work on, as a user has them: a `dagster.yaml`, a package with a `defs` folder, data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
PACKAGES = iter(f"shop{number}" for number in range(1000))

PYPROJECT = """\
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "{package}"
defs_module = "{package}.defs"
code_location_name = "{package}"
code_location_target_module = "{package}.definitions"
"""
DEFINITIONS = """\
from pathlib import Path
import dagster as dg
from etl_assets.definitions import load

@dg.definitions
def defs() -> dg.Definitions:
    return load(Path(__file__).parent)
"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What was printed with --json; fails if anything else was printed."""
        return json.loads(self.out)


@dataclass
class Shop:
    """A project in a folder of its own; `etl` works in this process, `installed` starts the installed command."""

    root: Path
    package: str = field(default_factory=lambda: next(PACKAGES))
    first: Ended | None = None
    """The first run, where a fixture made one."""

    def __post_init__(self) -> None:
        shutil.copy(REPOSITORY / "dagster.yaml", self.root)
        (self.root / "pyproject.toml").write_text(PYPROJECT.format(package=self.package))
        (self.root / self.package / "defs").mkdir(parents=True)
        for name in ("__init__.py", "defs/__init__.py"):
            (self.root / self.package / name).touch()
        (self.root / self.package / "definitions.py").write_text(DEFINITIONS)

    def write(self, path: str, text: str) -> Path:
        """Write a file below the root; `defs/…` is inside the package."""
        target = self.root / (f"{self.package}/{path}" if path.startswith("defs/") else path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def etl(self, *arguments: str) -> Ended:
        """Call the command in this process, from the folder of the project."""
        from etl_assets.cli.main import main

        out, err, before = StringIO(), StringIO(), Path.cwd()
        os.chdir(self.root)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = main(arguments)
        finally:
            os.chdir(before)
            if str(self.root) in sys.path:
                sys.path.remove(str(self.root))
        return Ended(code, out.getvalue(), err.getvalue())

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start the installed command."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("etl")), *arguments],
            cwd=self.root, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **variables},
        )  # fmt: skip

    def installed(self, *arguments: str, **variables: str) -> Ended:
        """Run the installed command to its end."""
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=120)
        return Ended(process.returncode, out, err)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing is set that steers the command, and on which nothing stays that the command sets."""
    for name in ("ETL_PROJECT", "ETL_LAKE_URI", "DAGSTER_HOME", "COLUMNS"):
        # What was never set would not be put back: `etl run --env` sets variables of the process.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A project without pipelines."""
    return Shop(tmp_path)


@pytest.fixture(scope="session")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A project with the pipeline of `etl new orders`, run once; tests may run it again, but leave its data alone."""
    made = Shop(tmp_path_factory.mktemp("orders"))
    assert made.etl("new", "orders").code == 0
    ended = made.etl("run", "orders")
    assert ended.code == 0, ended.err
    made.first = ended
    shutil.copytree(made.root, made.root.with_name(f"{made.root.name}-kept"))
    return made


@pytest.fixture(scope="session")
def copied(orders: Shop) -> Callable[[Path], Shop]:
    """Gives projects of their own, each in a folder, as `orders` was after its first run."""
    kept = orders.root.with_name(f"{orders.root.name}-kept")

    def copy(root: Path) -> Shop:
        made = Shop(root)
        for name in ("data", ".lake", ".dagster"):
            shutil.copytree(kept / name, root / name)
        shutil.copytree(kept / orders.package / "defs", root / made.package / "defs", dirs_exist_ok=True)
        return made

    return copy
