"""(f) Load the definitions of many pipelines, each as `etl new` makes it: `folder pipelines`; processor seconds."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from string import Template

from etl_assets.cli import new

PROJECT = """\
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "many"
defs_module = "many.defs"
code_location_name = "many"
"""


def main(folder: str, pipelines: str) -> None:
    root = Path(folder)
    defs = root / "many" / "defs"
    defs.mkdir(parents=True)
    (root / "pyproject.toml").write_text(PROJECT)
    for package in (defs.parent, defs):
        (package / "__init__.py").touch()
    template = Path(new.__file__).parent / "template"
    for number in range(int(pipelines)):
        own = defs / f"p{number}"
        own.mkdir()
        for file in template.iterdir():
            if file.suffix != ".csv":
                (own / file.name).write_text(Template(file.read_text("utf-8")).substitute(name=f"p{number}"))
    os.chdir(root)
    sys.path.insert(0, str(root))
    from etl_assets.definitions import load

    load(defs.parent)  # imports, and the files' way into the cache
    started = time.process_time()
    loaded = load(defs.parent)
    seconds = time.process_time() - started
    assets = len(loaded.resolve_asset_graph().materializable_asset_keys)
    print(json.dumps({"seconds": seconds, "result": assets}))


main(*sys.argv[1:])
