"""Continuous capture of a table that is written to: `port table key rate seconds lake`.

The result has the seconds from the commit of a change until it is in bronze and in silver (p50, p99), and how many
changes were seen. The clock of the server and that of this process are the same.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.captured import IMPORTS, OF_POSTGRES, OF_SILVER, captured_silver, of_postgres
from bench.said import timed
from etl_assets.pace import Pace
from etl_assets.run import Run
from etl_resources.change_log import Boundary

WRITER = Path(__file__).with_name("postgres_write.py")


class Watching:
    """Takes the part of the step: merges into silver when it is due, and looks at what came through."""

    def __init__(self, port: str, table: str, key: str, rate: str, seconds: str, lake: str) -> None:
        self.table, self.run = table, Run("bench")
        self.writing = [sys.executable, str(WRITER), port, table, key, rate, seconds]
        self.first = of_postgres(port, lake, {table: (key,)}, "latency")
        lasts = float(seconds) + 5
        self.captured = of_postgres(port, lake, {table: (key,)}, "latency", mode="continuous", lasts=lasts)
        self.silver = captured_silver(lake, table, (key,))
        settings = self.captured.streams[0].capture
        self.pace = Pace(settings.merge_share, settings.merge_age)
        self.writer: subprocess.Popen[bytes] | None = None
        self.waiting: list[Any] = []
        self.bronze_latency: list[Any] = []
        self.silver_latency: list[Any] = []
        self.merges: list[float] = []

    def follow(self) -> dict[str, float]:
        """Follow until the time is up; returns the figures."""
        import numpy as np

        self.first.follow(self.run)
        self.captured.follow(self.run, after=self.tick)
        if self.writer is None or self.writer.wait():
            raise RuntimeError("the writer failed")
        self.merge()
        bronze, silver = np.concatenate(self.bronze_latency), np.concatenate(self.silver_latency)
        return {
            "events": len(silver), "rows": self.silver.table.open().rows(), "merges": len(self.merges),
            "merge": float(np.median(self.merges)),
            "bronze p50": float(np.quantile(bronze, 0.5)), "bronze p99": float(np.quantile(bronze, 0.99)),
            "silver p50": float(np.quantile(silver, 0.5)), "silver p99": float(np.quantile(silver, 0.99)),
        }  # fmt: skip

    def tick(self, boundary: Boundary, busy: Mapping[str, int]) -> None:  # noqa: ARG002 - as a tick is called
        """Merge if it is due."""
        if self.writer is None:
            self.silver.refine(self.run)  # the first load, which says nothing about merges
            self.writer = subprocess.Popen(self.writing)
        now, rows = time.monotonic(), busy.get(self.table, 0)
        at = time.time()
        self.pace.add(rows, now)
        if self.pace.due(self.silver.table.open().rows(), now):
            self.merge()
        if rows:
            self._look(at)

    def merge(self) -> None:
        """Merge what is pending."""
        began = time.monotonic()
        self.silver.refine(self.run)
        self.pace.merged(began, time.monotonic())
        self.merges.append(self.pace.took)
        done = time.time()
        self.silver_latency += [done - committed for committed in self.waiting]
        self.waiting.clear()
        self.merged_at = done

    def _look(self, at: float) -> None:
        """Take the times of the commits of the newest batch, outside of what is measured."""
        import pyarrow as pa

        bronze = self.silver.bronze.open()
        newest = bronze.committed(self.silver.bronze.name)
        stamps = bronze.read({"_batch": newest}, columns=["_commit_ts"])["_commit_ts"]
        committed = stamps.cast(pa.int64()).to_numpy() / 1e6
        self.bronze_latency.append(at - committed)
        if self.pace.since is None:  # merged within this tick
            self.silver_latency.append(self.merged_at - committed)
        else:
            self.waiting.append(committed)


def main(*given: str) -> None:
    watching = Watching(*given)
    timed(watching.follow, *IMPORTS, *OF_POSTGRES, *OF_SILVER)


if __name__ == "__main__":
    main(*sys.argv[1:])
