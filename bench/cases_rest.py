"""REST: many small pages of an API that takes its time, against the time that it takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.cases import TASKS, _fresh, _row
from bench.measure import ROOT, Measured, Summary, interleaved
from bench.report import Row

_PAGE_SECONDS, _IN_FLIGHT = 0.02, 8


def rest_to_bronze(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """REST -> bronze, 2,000 pages of 100 records, 20 ms each, 8 in flight."""
    pages = int(2_000 * scale)
    rows, ideal = 100 * pages, pages * _PAGE_SECONDS / _IN_FLIGHT
    ours = "bronze, with account and position"
    with _served(pages) as url:
        task = (sys.executable, str(TASKS / "rest_bronze.py"), [url, "{fresh}"])
        found = interleaved(_fresh({ours: task}, folder), rounds)[ours]
    limit = Summary("the API's own time, 8 at once (the limit)", (Measured(ideal, 0, rows),))
    share = ideal / found.seconds
    return [
        _row("rest", limit, rows),
        _row("rest", found, rows, figure=f"{share:.0%} of the ideal"),
    ]


@contextmanager
def _served(pages: int) -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.tasks.rest_serve", str(pages), str(_PAGE_SECONDS)],
        stdout=subprocess.PIPE, cwd=ROOT, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait(10)


CASES: dict[str, Callable[..., list[Row]]] = {"rest": rest_to_bronze}
