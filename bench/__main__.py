"""`make bench`: every figure of docs/performance.md in one run, as ratios to the physical limit and to peers."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.catalog import CASES
from bench.report import Row, table

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "bench" / ".work"
PEERS = ROOT / "bench" / ".peers"


def peers() -> str:
    """Return the Python of the peers' environment, made at the first call."""
    python = PEERS / "bin" / "python"
    stamp = PEERS / "installed"
    wanted = (ROOT / "bench" / "peers.txt").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print("installing the peers into bench/.peers …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", ROOT / "bench" / "peers.txt"], check=True)
        stamp.write_text(wanted)
    return str(python)


def main() -> int:
    """Run the chosen cases and print one table; exit code 1 if a figure misses its goal."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="which; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="runs per task; the medians are reported")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes; below 1 for a quick look")
    arguments = parser.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    rows: list[Row] = []
    try:
        for name in arguments.cases or CASES:
            case: Callable[..., list[Row]] = CASES[name]
            print(f"({name}) {case.__doc__}", file=sys.stderr)
            rows += case(WORK / name, rounds=arguments.rounds, scale=arguments.scale, peers=peers)
            shutil.rmtree(WORK / name, ignore_errors=True)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    print(table(rows))
    return 1 if any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
