"""Runs a task in a process of its own and tells how long it took and how much memory it needed at the most."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Measured:
    """One run: seconds of the measured part, peak resident memory of the process in bytes, and what it returned."""

    seconds: float
    peak: int
    result: Any
    processor: float = 0.0
    """Seconds that the process computed in the measured part, which other work on the machine disturbs less."""


@dataclass(frozen=True)
class Summary:
    """Several runs of one task."""

    name: str
    runs: tuple[Measured, ...]

    @property
    def seconds(self) -> float:
        return statistics.median(run.seconds for run in self.runs)

    @property
    def peak_mb(self) -> float:
        return max(run.peak for run in self.runs) / 2**20

    @property
    def result(self) -> Any:
        return self.runs[-1].result


def run(python: str, script: str, *args: str) -> Measured:
    """Run `python script args…`; the script prints a JSON object with `seconds` and `result` as its last line."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
    }
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen([python, script, *args], stdout=out, stderr=err, env=environment, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        text = out.read().decode()
        if process.returncode:
            raise RuntimeError(f"{script} {' '.join(args)} failed:\n{text}\n{err.read().decode()[-4000:]}")
    said = json.loads(text.strip().splitlines()[-1])
    return Measured(said["seconds"], usage.ru_maxrss * 1024, said.get("result"), said.get("processor", 0.0))


def interleaved(tasks: dict[str, tuple[str, str, list[str]]], rounds: int) -> dict[str, Summary]:
    """Run all tasks in turn, `rounds` times, so that a slow moment of the machine meets all of them."""
    found: dict[str, list[Measured]] = {name: [] for name in tasks}
    for number in range(rounds):
        for name, (python, script, args) in tasks.items():
            started = time.monotonic()
            measured = run(python, script, *args)
            found[name].append(measured)
            spent = f"{measured.seconds:7.2f} s, computing {measured.processor:.2f} s"
            line = f"  round {number + 1}/{rounds}  {name:<44} {spent}  {measured.peak / 2**20:6.0f} MB"
            print(f"{line}  (process {time.monotonic() - started:.1f} s)", file=sys.stderr, flush=True)
    return {name: Summary(name, tuple(runs)) for name, runs in found.items()}
