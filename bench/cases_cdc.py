"""Captured changes on their way into silver: what merging them costs, how late they are, what the writers lose."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psycopg

from bench.cases import _fresh, _row, _task
from bench.cases_cdc_postgres import TABLE, VALUES, connected
from bench.measure import ROOT, Summary, interleaved, run
from bench.report import Row
from bench.servers import server
from tests.servers.postgres import binaries

SECONDS = 60
"""How long changes are written, at the full scale."""
RATE = 1000
KEYS = ("pgbench_accounts=aid", "pgbench_tellers=tid", "pgbench_branches=bid")
"""The tables of pgbench that have a key; its history has none."""
SLOT = "overhead"


def merge(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """1 M captured changes (932 k keys) into 10 M rows of silver."""
    rows, changes, lake = int(10_000_000 * scale), int(1_000_000 * scale), str(folder / "lake")
    run(sys.executable, _task("make_captured"), str(rows), str(changes), lake)
    tasks = {
        "bare MERGE of delta-rs, of compacted changes": (
            sys.executable,
            _task("captured_merge_plain"),
            [lake, "{fresh}"],
        ),
        "bronze -> silver, with fates and account": (sys.executable, _task("captured_refine"), [lake, "{fresh}"]),
    }
    found = interleaved(_fresh(tasks, folder), rounds)
    plain, mine = found.values()
    if plain.result != mine.result:
        raise RuntimeError(f"the bare MERGE left {plain.result} rows, and ours {mine.result}")
    ratio = mine.seconds / plain.seconds
    met = ratio <= 1.2 and mine.peak_mb <= 1536
    return [
        _row("cdc-merge", plain, changes),
        _row("cdc-merge", mine, changes, figure=f"{ratio:.2f} x", goal="<= 1.2 x, <= 1.5 GB", met=met),
    ]


def latency(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """From the commit to silver, at 1,000 changes/s for a minute, in tables of 1 M and of 10 M rows."""
    seconds = max(10, int(SECONDS * min(scale, 1)))
    table = []
    for rows in (int(1_000_000 * scale), int(10_000_000 * scale)):
        with server() as running:
            with connected(running.port) as connection:
                connection.execute(TABLE)
                connection.execute(f"INSERT INTO changes {VALUES.format(first=1, last=rows)}")
                connection.execute("VACUUM ANALYZE changes")
            arguments = [str(running.port), "changes", "id", str(RATE), str(seconds), str(folder / f"lake-{rows}")]
            done = run(sys.executable, _task("postgres_latency"), *arguments)
        seen = done.result
        silver, bronze = (
            f"p50 {seen[f'{name} p50']:.2f} s, p99 {seen[f'{name} p99']:.2f} s" for name in ("silver", "bronze")
        )
        fast = seen["silver p50"] <= 2
        goal = {"goal": "p50 <= 2 s", "met": fast} if rows <= 1_000_000 else {}
        of = f"{rows:,} rows, {seen['events'] / seconds:,.0f} changes/s, {seen['merges']} merges"
        table += [
            _row("cdc-latency", Summary(f"commit -> silver, {of}", (done,)), 0, figure=silver, **goal),
            _row("cdc-latency", Summary(f"commit -> bronze, {of}", (done,)), 0, figure=bronze),
        ]
    return table


def overhead(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """Transactions/s of pgbench while its tables are captured into bronze on the same machine, and while not."""
    seconds = str(max(5, int(SECONDS / 2 * min(scale, 1))))
    rates: dict[str, list[float]] = {"pgbench, not captured": [], "pgbench, captured continuously": []}
    plain, captured = rates.values()
    with server() as running:
        pgbench(running.port, "-i", "-q", "-s", str(max(1, int(10 * scale))))
        for number in range(rounds):
            plain.append(transactions(pgbench(running.port, "-c", "4", "-T", seconds)))
            with following(running.port, folder / f"lake-{number}"):
                captured.append(transactions(pgbench(running.port, "-c", "4", "-T", seconds)))
            print(f"  round {number + 1}/{rounds}  {plain[-1]:,.0f} and {captured[-1]:,.0f} tx/s", file=sys.stderr)
    lost = 1 - median(captured) / median(plain)
    table = [Row("cdc-overhead", name, float(seconds), 0, f"{median(seen):,.0f} tx/s") for name, seen in rates.items()]
    last = table[1]
    table[1] = Row(last.case, last.task, last.seconds, 0, last.rate, f"{lost:.0%} fewer transactions")
    return table


def pgbench(port: int, *arguments: str) -> str:
    """Run pgbench against the bench's server; returns what it said."""
    words = [binaries() / "pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-n", *arguments, "postgres"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def transactions(said: str) -> float:
    """Return the transactions per second out of what pgbench said."""
    found = re.search(r"tps = ([0-9.]+) \(without", said)
    if found is None:
        raise RuntimeError(f"pgbench said no rate:\n{said}")
    return float(found[1])


@contextmanager
def following(port: int, lake: Path) -> Iterator[None]:
    """Let a process capture the tables of pgbench; the first load is over before the block begins."""
    ready = lake.with_suffix(".ready")
    lake.parent.mkdir(parents=True, exist_ok=True)
    script = [sys.executable, _task("postgres_follow"), str(port), SLOT, str(lake), str(ready), *KEYS]
    process = subprocess.Popen(
        script, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    )
    try:
        while not ready.exists():
            if process.poll() is not None:
                raise RuntimeError(f"the capture ended with {process.returncode}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait()
        _drop(port)


def _drop(port: int) -> None:
    """Drop the slot as soon as the server has noticed that its reader is gone."""
    with connected(port) as connection:
        for _ in range(300):
            try:
                connection.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])
            except psycopg.errors.ObjectInUse:
                time.sleep(0.1)
            else:
                return
    raise RuntimeError(f"slot {SLOT} is still in use")
