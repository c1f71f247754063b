"""Logs into bronze: runs that are killed or fail, while the log is written to and rotated, lose and double nothing."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from etl_assets.bronze import Bronze
from etl_assets.errors import ErrorTable
from etl_assets.run import Run
from etl_resources.engines.duckdb import DuckDB
from etl_resources.exceptions import UnavailableError
from etl_resources.lake import Lake
from etl_resources.logs import tail
from etl_resources.source import Stream
from etl_resources.sources.log import LogOptions, LogSource
from tests.forks import KILLED, Forks, forking
from tests.soaking import some

__all__ = ["forking"]
LINE = '10.0.0.{host} - - [10/Oct/2000:13:55:{second:02} +0000] "GET /{n} HTTP/1.1" 200 {n} "-" "a"\n'


def write(log: Path, first: int, last: int) -> None:
    with log.open("a") as file:
        for n in range(first, last + 1):
            file.write(LINE.format(host=n % 256, second=n % 60, n=n) if n % 100 else f"broken {n}\n")


def land(folder: str, run: str, commit_rows: int = 100, block: int = 4096) -> Any:
    tail.BLOCK_BYTES = block
    options = LogOptions(path=f"{folder}/access.log*", format="apache_combined")
    bronze = Bronze(Lake(uri=f"{folder}/lake"), "web", Stream("hits", options), commit_rows=commit_rows)
    return bronze.land(LogSource(), Run(run)).account


def landed(folder: Path) -> tuple[list[int], list[int]]:
    """Return the numbers of the lines in bronze, and of those that are in the errors."""
    lake = Lake(uri=f"{folder}/lake")
    handle = lake.table("bronze", "web", "hits").open()
    good = handle.delta.to_pyarrow_table().column("bytes").to_pylist() if handle else []
    with DuckDB(threads=1).session() as session:
        relation = ErrorTable(lake).current(session, status="open")
        errors = session.table(f"SELECT * FROM {relation}").to_pylist() if relation else []
    return sorted(good), sorted(int(str(e["raw"]).rpartition(" ")[2].strip("'}\"")) for e in errors)


def expected(last: int) -> tuple[list[int], list[int]]:
    return [n for n in range(1, last + 1) if n % 100], [n for n in range(1, last + 1) if n % 100 == 0]


@pytest.fixture(autouse=True)
def _block_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "BLOCK_BYTES", tail.BLOCK_BYTES)


@pytest.mark.parametrize("point", some(["bronze:before_commit", "bronze:after_commit", "bronze:before_errors"], 2))
def test_a_run_that_is_killed_while_the_log_is_rotated_loses_and_doubles_nothing(
    tmp_path: Path, forks: Forks, point: str
) -> None:
    log = tmp_path / "access.log"
    write(log, 1, 450)
    land(str(tmp_path), "first")
    write(log, 451, 900)
    assert forks.start(land, env={"ETL_KILL_AT": point}, folder=str(tmp_path), run="killed").wait() == KILLED
    rotated = log.rename(tmp_path / "access.log.1")
    write(rotated, 901, 905)
    write(log, 906, 1200)
    (tmp_path / "access.log.1.gz").write_bytes(gzip.compress(rotated.read_bytes()))
    rotated.unlink()
    land(str(tmp_path), "again")
    assert landed(tmp_path) == expected(1200)
    assert land(str(tmp_path), "idle").read == 0


def test_a_run_that_fails_half_way_is_continued_by_the_next(tmp_path: Path) -> None:
    """An archive is damaged: nothing of the run counts as read, and all comes when the archive is whole."""
    log = tmp_path / "access.log"
    write(log, 1, 600)
    whole = gzip.compress(log.read_bytes())
    log.unlink()
    (tmp_path / "access.log.1.gz").write_bytes(whole[: len(whole) * 3 // 4])
    write(log, 601, 700)
    with pytest.raises(UnavailableError, match=r"access\.log\.1\.gz is damaged or not complete"):
        land(str(tmp_path), "first")
    (tmp_path / "access.log.1.gz").write_bytes(whole)
    land(str(tmp_path), "second")
    assert landed(tmp_path) == expected(700)
