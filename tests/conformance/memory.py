"""Read streams to their end in a process of its own and say how much memory that took.

`python -m tests.conformance.memory < description.json` prints, for each stream, `{"rows": …, "rows_read": …,
"growth_mb": …}`: by how much the peak resident memory has grown since before the first batch of the first stream.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from etl_resources.source import Capture, Stream

from .harness import Opened

ROOT = Path(__file__).parents[2]


def measure(*opened: Opened, batch_rows: int) -> list[dict[str, Any]]:
    """Return what a fresh process measures when it reads the streams one after the other, each from its start."""
    description = {
        "streams": [
            {"source": _dump(source), "name": stream.name, "options": _dump(stream.options),
             "capture": _dump(stream.capture) if stream.capture else None}
            for source, stream in opened
        ],
        "batch_rows": batch_rows,
    }  # fmt: skip
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
    before, results = _peak_mb(), []
    for described in given["streams"]:
        capture: Capture | None = _load(described["capture"]) if described["capture"] else None
        source, stream = _load(described["source"]), Stream(described["name"], _load(described["options"]), capture)
        rows = rows_read = 0
        for batch in source.read(stream, None, batch_rows=given["batch_rows"]):
            rows += batch.data.num_rows
            rows_read = batch.rows_read
        results.append({"rows": rows, "rows_read": rows_read, "growth_mb": _peak_mb() - before})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
