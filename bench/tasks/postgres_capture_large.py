"""What one large transaction costs the client in memory: `port table key lake rows`.

The result has how many MB the most memory was beyond what a process had that had read a small transaction. The table
grows by `rows`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg

from bench.captured import IMPORTS, OF_POSTGRES, of_postgres
from bench.cases_cdc_postgres import VALUES
from bench.said import timed
from etl_assets.run import Run


def main(port: str, table: str, key: str, lake: str, rows: str) -> None:
    captured = of_postgres(port, lake, {table: (key,)}, "large")

    def follow() -> int:
        return captured.follow(Run("bench"))[table].account.read

    with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", autocommit=True) as client:

        def insert(rows: int) -> None:
            (last,) = client.execute(f"SELECT coalesce(max({key}), 0) FROM {table}").fetchone() or (0,)
            client.execute(f"INSERT INTO {table} {VALUES.format(first=last + 1, last=last + rows)}")

        follow()
        insert(1000)
        follow()
        insert(int(rows))
        before = status("VmRSS")

        def measured() -> dict[str, float]:
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
            return {"rows": follow(), "grown": status("VmHWM") - before}

        timed(measured, *IMPORTS, *OF_POSTGRES)
        client.execute("SELECT pg_drop_replication_slot('large')")


def status(name: str) -> float:
    """Return a figure of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


main(*sys.argv[1:])
