"""One run that follows the log of the fuzzer's tables into a lake, in a process that may be killed; and its mutants."""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa

from etl_assets.bronze import Bronze
from etl_assets.capture import Capture
from etl_assets.landing import Landing
from etl_assets.run import Run
from etl_assets.silver import Silver, SilverSpec
from etl_resources.change_log import LogTable, event_fields
from etl_resources.changes.postgres_settings import PostgresLogCapture
from etl_resources.engines.duckdb import DuckDB
from etl_resources.exceptions import ConcurrentCommitError, UnavailableError
from etl_resources.lake import Lake
from etl_resources.resilience import Policy
from etl_resources.source import Stream
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from tests.resources.postgres_fuzz import TABLES

PIPELINE = "kills"


def worker(settings: dict[str, Any], folder: str, seconds: float, mutant: str = "") -> Any:
    """Follow the log for a while, or to its end; returns the positions, and whether another run was in the way."""
    if mutant == "handle opened anew":
        _forget_the_handle()
    if mutant == "idle tables stay behind":
        _leave_idle_tables()
    source = PostgresSource(**settings, resilience=Policy(attempts=3, first_wait=0.05, longest_wait=0.2))
    pace = {"mode": "continuous", "lasts": seconds, "every": 0.05} if seconds else {}
    # To the end of the log it goes in larger pieces: that is no longer what is tried.
    pieces = {"chunk_rows": 400, "max_changes": 200} if seconds else {"chunk_rows": 2000, "max_changes": 5000}
    log_settings = PostgresLogCapture(**pace, **pieces)
    tables = [
        LogTable(Stream(name, PostgresStreamOptions(type="postgres", table=name), log_settings), key)
        for name, key in TABLES.items()
    ]
    lake, engine = Lake(uri=folder), DuckDB(threads=1)
    bronzes = {table.name: Bronze(lake, PIPELINE, table.stream) for table in tables}
    capture = Capture(bronzes, source.change_log(PIPELINE, tables, log_settings), engine)
    silvers = {name: silver(lake, engine, name) for name in TABLES}
    run = Run(uuid.uuid4().hex[:8])

    def schema(table: LogTable) -> pa.Schema:
        row = source.read_schema(table.stream)
        return pa.schema([*row, *event_fields(row)])

    def refine(_: Any, busy: Any) -> None:
        for name in busy:
            silvers[name].refine(run)

    try:
        capture.follow(run, {table.name: lambda table=table: schema(table) for table in tables}, after=refine)
        for one in silvers.values():
            one.refine(run)
    except (ConcurrentCommitError, UnavailableError) as error:
        return {"positions": capture.positions(), "refused": str(error)}
    return {"positions": capture.positions(), "refused": None}


def silver(lake: Lake, engine: DuckDB, name: str) -> Silver:
    """Return the silver table of one of the tables."""
    return Silver(lake, engine, SilverSpec(PIPELINE, name, TABLES[name], log_key=TABLES[name]))


def _forget_the_handle() -> None:
    """Decide by one handle and commit with another: the fence is gone."""
    commit = Landing.commit

    def anew(self: Landing, *args: Any, **more: Any) -> None:
        fresh = self.bronze.table.open()
        assert fresh is not None
        self.handle, self.number = fresh, fresh.committed(self.bronze.app_id) + 1
        commit(self, *args, **more)

    Landing.commit = anew  # type: ignore[method-assign]


def _leave_idle_tables() -> None:
    from etl_assets import capture

    capture._Following._settle_idle = lambda self: None  # type: ignore[method-assign]
