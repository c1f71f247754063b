"""Log lines per second."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from bench.cases import _fresh, _row, _task
from bench.measure import Summary, interleaved, run
from bench.report import Row


def log_to_bronze(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """Apache access log (combined) -> bronze, 3 M lines of 280 bytes."""
    lines, path, large = int(3_000_000 * scale), str(folder / "access.log"), str(folder / "large.log")
    for number, name in ((lines, path), (4 * lines, large)):
        run(sys.executable, _task("log_lines"), str(number), name)
    ours = "bronze, with account and position"
    tasks = {
        "one regular expression in DuckDB, untyped": (sys.executable, _task("log_duckdb"), [path]),
        "source log, parsed and drained": (sys.executable, _task("log_read"), [path]),
        ours: (sys.executable, _task("log_bronze"), [path, "{fresh}"]),
    }
    found = interleaved(_fresh(tasks, folder), rounds)
    at_four = run(sys.executable, _task("log_bronze"), large, str(folder / "large"))
    plain, parsed, mine = found.values()
    rate, growth = lines / parsed.seconds, at_four.peak / 2**20 / mine.peak_mb
    return [
        _row("log", plain, lines),
        _row("log", parsed, lines, figure=f"{rate:,.0f} lines/s", goal=">= 300,000", met=rate >= 300_000),
        _row("log", mine, lines),
        _row("log", Summary(f"{ours}, 4 x the lines", (at_four,)), 4 * lines, figure=f"{growth:.2f} x the memory",
             goal="<= 1.2 x", met=growth <= 1.2),
    ]  # fmt: skip
