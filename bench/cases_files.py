"""NDJSON and CSV -> bronze, against DuckDB reading the same file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from bench.cases import _fresh, _row, _task
from bench.measure import Summary, interleaved, run
from bench.report import Row


def files_to_bronze(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """NDJSON and CSV -> bronze, 3 M rows of 9 columns."""
    rows = int(3_000_000 * scale)
    return [row for suffix in ("ndjson", "csv") for row in _one(suffix, rows, folder, rounds)]


def _one(suffix: str, rows: int, folder: Path, rounds: int) -> list[Row]:
    path, large = str(folder / f"orders.{suffix}"), str(folder / f"large.{suffix}")
    for number, name in ((rows, path), (4 * rows, large)):
        run(sys.executable, _task("files_make"), str(number), name)
    plain, source, ours = (
        f"{suffix}, read by DuckDB (the limit)", f"{suffix}, source file, drained", f"{suffix} -> bronze",
    )  # fmt: skip
    tasks = {
        plain: (sys.executable, _task("files_duckdb"), [path]),
        source: (sys.executable, _task("files_read"), [path]),
        ours: (sys.executable, _task("files_bronze"), [path, "{fresh}"]),
    }
    found = interleaved(_fresh(tasks, folder), rounds)
    at_four = Summary(
        f"{ours}, 4 x the rows",
        (run(sys.executable, _task("files_bronze"), large, str(folder / f"large-{suffix}")),),
    )
    limit = found[plain].seconds
    share, alone = limit / found[ours].seconds, limit / found[source].seconds
    growth = at_four.peak_mb / found[ours].peak_mb
    return [
        _row("files", found[plain], rows),
        _row("files", found[source], rows, figure=f"{alone:.0%} of the limit"),
        _row("files", found[ours], rows, figure=f"{share:.0%} of the limit", goal=">= 60 %", met=share >= 0.6),
        _row("files", at_four, 4 * rows, figure=f"{growth:.2f} x the memory", goal="<= 1.2 x", met=growth <= 1.2),
    ]
