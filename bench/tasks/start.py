"""(e) From the start of the process `etl run …` to the first row that it reads: `lake data command…`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main(lake: str, data: str, *command: str) -> None:
    environment = {**os.environ, "ETL_LAKE_URI": lake, "RETAIL_DIR": data}
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert process.stdout is not None
    first = None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if first is None and "rows" in line:
            first = time.perf_counter() - started
    if process.wait() or first is None:
        raise SystemExit("".join(lines))
    print(json.dumps({"seconds": first, "result": None}))


main(*sys.argv[1:])
