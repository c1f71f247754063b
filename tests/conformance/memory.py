"""Read a stream to its end in a process of its own and say how much memory that took.

`python memory.py < description.json` prints `{"rows": …, "rows_read": …, "growth_mb": …}`: by how much the peak
resident memory grew from before the first batch to after the last.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from etl_resources.source import Capture, Source, Stream

ROOT = Path(__file__).parents[2]


def measure(source: Source, stream: Stream, *, batch_rows: int) -> dict[str, Any]:
    """Return what a fresh process measures when it reads `stream` from the start."""
    description = {
        "source": _dump(source),
        "options": _dump(stream.options),
        "capture": _dump(stream.capture) if stream.capture else None,
        "name": stream.name,
        "batch_rows": batch_rows,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.memory"],
        input=json.dumps(description), capture_output=True, text=True, cwd=ROOT, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _dump(model: Any) -> dict[str, Any]:
    return {
        "module": type(model).__module__, "class": type(model).__qualname__, "values": model.model_dump(mode="json"),
    }  # fmt: skip


def _load(dumped: dict[str, Any]) -> Any:
    return getattr(importlib.import_module(dumped["module"]), dumped["class"])(**dumped["values"])


def _peak_mb() -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    import pyarrow as pa  # noqa: F401 - so that its import is not counted

    given = json.load(sys.stdin)
    capture: Capture | None = _load(given["capture"]) if given["capture"] else None
    source, stream = _load(given["source"]), Stream(given["name"], _load(given["options"]), capture)
    before, rows, rows_read = _peak_mb(), 0, 0
    for batch in source.read(stream, None, batch_rows=given["batch_rows"]):
        rows += batch.data.num_rows
        rows_read = batch.rows_read
    print(json.dumps({"rows": rows, "rows_read": rows_read, "growth_mb": _peak_mb() - before}))


if __name__ == "__main__":
    main()
