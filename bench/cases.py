"""What is measured: one function per letter of docs/performance.md."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import ROOT, Summary, interleaved, run
from bench.report import Row
from bench.servers import fill, server

TASKS = Path(__file__).parent / "tasks"


def _task(name: str) -> str:
    return str(TASKS / f"{name}.py")


def _row(case: str, summary: Summary, rows: int, **more: Any) -> Row:
    rate = f"{rows / summary.seconds / 1000:,.0f} k rows/s" if rows else ""
    return Row(case, summary.name, summary.seconds, summary.peak_mb, rate, **more)


def postgres_to_bronze(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:
    """PostgreSQL -> bronze, 5 M rows of 9 columns."""
    rows, python = int(5_000_000 * scale), peers()
    with server() as running:
        port, name = str(running.port), fill(running.port, rows)
        large = fill(running.port, 4 * rows)
        ours = "bronze, with account and position"
        tasks = {
            "binary COPY, drained (the limit)": (sys.executable, _task("postgres_drain"), [port, name]),
            ours: (sys.executable, _task("postgres_bronze"), [port, name, "{fresh}"]),
            "dlt, connectorx": (python, _task("peer_dlt"), [port, name, "{fresh}", "connectorx"]),
            "dlt, pyarrow": (python, _task("peer_dlt"), [port, name, "{fresh}", "pyarrow"]),
            "pandas": (python, _task("peer_pandas"), [port, name, "{fresh}"]),
        }
        found = interleaved(_fresh(tasks, folder), rounds)
        at_four = run(sys.executable, _task("postgres_bronze"), port, large, str(folder / "large"))
    limit, mine = found["binary COPY, drained (the limit)"], found[ours]
    share = limit.seconds / mine.seconds
    wide = Summary(f"{ours}, 4 x the rows", (at_four,))
    growth = wide.peak_mb / mine.peak_mb
    fast = share >= 0.6 and mine.peak_mb <= 600
    table = [
        _row("a", limit, rows),
        _row("a", mine, rows, figure=f"{share:.0%} of the limit", goal=">= 60 %, <= 600 MB", met=fast),
        _row("a", wide, 4 * rows, figure=f"{growth:.2f} x the memory", goal="<= 1.1 x", met=growth <= 1.1),
    ]
    for peer, factor in (("dlt, connectorx", 2), ("dlt, pyarrow", 5), ("pandas", 0)):
        faster = found[peer].seconds / mine.seconds
        goal, met = (f">= {factor} x", faster >= factor) if factor else ("", None)
        table.append(_row("a", found[peer], rows, figure=f"ours is {faster:.1f} x as fast", goal=goal, met=met))
    return table


def bronze_to_silver(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """Bronze -> silver, 5 M rows, six steps, eight rules."""
    rows, lake = int(5_000_000 * scale), str(folder / "lake")
    run(sys.executable, _task("make_bronze"), str(rows), lake)
    tasks = {
        "the same SQL without fates and rules": (sys.executable, _task("silver_plain"), [lake, "{fresh}"]),
        "silver, with fates, rules, account": (sys.executable, _task("silver_refine"), [lake, "{fresh}"]),
    }
    found = interleaved(_fresh(tasks, folder), rounds)
    plain, mine = found.values()
    ratio = mine.seconds / plain.seconds
    return [
        _row("b", plain, rows),
        _row("b", mine, rows, figure=f"{ratio:.2f} x", goal="<= 1.35 x", met=ratio <= 1.35),
    ]


def merge(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """1 M random changes into 10 M rows of silver."""
    rows, changes, lake = int(10_000_000 * scale), int(1_000_000 * scale), str(folder / "lake")
    run(sys.executable, _task("make_changes"), str(rows), str(changes), lake)
    tasks = {
        "bare MERGE of delta-rs": (sys.executable, _task("merge_plain"), [lake, "{fresh}"]),
        "silver, with fates, rules, account ": (sys.executable, _task("silver_refine"), [lake, "{fresh}"]),
    }
    found = interleaved(_fresh(tasks, folder), rounds)
    plain, mine = found.values()
    ratio = mine.seconds / plain.seconds
    return [
        _row("c", plain, changes),
        _row("c", mine, changes, figure=f"{ratio:.2f} x", goal="<= 1.3 x", met=ratio <= 1.3),
    ]


def postgres_to_postgres(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """PostgreSQL -> PostgreSQL, 5 M rows (dlt: a tenth of them)."""
    rows, python = int(5_000_000 * scale), peers()
    with server() as running:
        port, name = str(running.port), fill(running.port, rows)
        small = fill(running.port, rows // 10)
        tasks = {
            "COPY into COPY, binary (the limit)": (sys.executable, _task("postgres_copy"), [port, name]),
            "source -> target, with token and account": (sys.executable, _task("postgres_postgres"), [port, name]),
            "dlt, pyarrow, a tenth of the rows": (python, _task("peer_dlt_postgres"), [port, small]),
        }
        found = interleaved(tasks, rounds)
    limit, mine, dlt = found.values()
    share, faster = limit.seconds / mine.seconds, 10 * dlt.seconds / mine.seconds
    return [
        _row("d", limit, rows),
        _row("d", mine, rows, figure=f"{share:.0%} of the limit", goal=">= 60 %", met=share >= 0.6),
        _row("d", dlt, rows // 10, figure=f"ours is {faster:.1f} x as fast", goal=">= 10 x", met=faster >= 10),
    ]


def start(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """From `etl run` to the first row."""
    etl = str(Path(sys.executable).with_name("etl"))
    data = str(folder / "data")
    subprocess.run([etl, "demo", "retail", "--rows", "1000", "--seed", "1", "--into", data], check=True, cwd=ROOT)
    tasks = {"etl run, to the first row": (sys.executable, _task("start"), ["{fresh}", data, etl, "run", "retail"])}
    found = interleaved(_fresh(tasks, folder), rounds)
    mine = found["etl run, to the first row"]
    return [_row("e", mine, 0, figure=f"{mine.seconds:.1f} s", goal="<= 8 s", met=mine.seconds <= 8)]


class _Fresh(list[str]):
    """Arguments in which `{fresh}` stands for a folder that was never used."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        super().__init__(arguments)
        self._folder = folder
        self._number = 0

    def __iter__(self) -> Any:
        self._number += 1
        path = str(self._folder / f"run-{id(self)}-{self._number}")
        return iter([path if argument == "{fresh}" else argument for argument in list.copy(self)])


def _fresh(tasks: dict[str, tuple[str, str, list[str]]], folder: Path) -> dict[str, tuple[str, str, list[str]]]:
    folder.mkdir(parents=True, exist_ok=True)
    return {name: (python, script, _Fresh(arguments, folder)) for name, (python, script, arguments) in tasks.items()}


SPINE: dict[str, Callable[..., list[Row]]] = {
    "a": postgres_to_bronze,
    "b": bronze_to_silver,
    "c": merge,
    "d": postgres_to_postgres,
    "e": start,
}
