"""Every case of the bench, by the name under which it is asked for and reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.cases import SPINE, _row, _task
from bench.cases_cdc import latency, merge, overhead
from bench.cases_cdc_mysql import binlog_to_bronze
from bench.cases_cdc_postgres import postgres_log
from bench.cases_files import files_to_bronze
from bench.cases_kafka import kafka_to_bronze
from bench.cases_log import log_to_bronze
from bench.cases_mysql import mysql_to_bronze
from bench.cases_rest import rest_to_bronze
from bench.cases_sqlserver import sqlserver_to_bronze
from bench.measure import interleaved
from bench.report import Row

Case = Callable[..., list[Row]]


def definitions(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """Loading the definitions of 400 pipelines, in processor seconds."""
    import sys

    from bench.cases import _fresh

    pipelines = int(400 * scale)
    tasks = {"definitions, processor time": (sys.executable, _task("definitions"), ["{fresh}", str(pipelines)])}
    (mine,) = interleaved(_fresh(tasks, folder), rounds).values()
    per = 1000 * mine.seconds / pipelines
    figure = f"{per:.0f} ms a pipeline of 4 assets"
    return [_row("f", mine, 0, figure=figure, goal="<= 6 s for 400", met=mine.seconds <= 6 * scale)]


CASES: dict[str, Case] = {
    **SPINE,
    "f": definitions,
    "cdc-postgres": postgres_log,
    "cdc-mysql": binlog_to_bronze,
    "cdc-merge": merge,
    "cdc-latency": latency,
    "cdc-overhead": overhead,
    "files": files_to_bronze,
    "kafka": kafka_to_bronze,
    "log": log_to_bronze,
    "mysql": mysql_to_bronze,
    "rest": rest_to_bronze,
    "sqlserver": sqlserver_to_bronze,
}
