"""Dagster's own records: which runs there were, of which pipelines, and what they loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.cli.outcome import FIGURES, plain

if TYPE_CHECKING:
    from dagster._core.storage.dagster_run import DagsterRun, RunRecord

PIPELINE_TAG = "etl/pipeline"
CHECKS_TAG = "etl/checks"
"""Marks runs that evaluated checks and loaded nothing; Dagster itself forgets it of runs in this process."""
WORKING = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_STATUS = {
    dg.DagsterRunStatus.SUCCESS: "success",
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "canceled",
    dg.DagsterRunStatus.QUEUED: "queued",
    dg.DagsterRunStatus.NOT_STARTED: "queued",
}
_PAGE = 500


def pipelines_of(run: DagsterRun) -> set[str]:
    """Return the pipelines that a run worked on: what its tag says, or the second part of its tables' keys."""
    tagged = run.tags.get(PIPELINE_TAG)
    if tagged is not None:
        return {tagged}
    checked = {check.asset_key for check in run.asset_check_selection or ()}
    return {key.path[1] for key in {*(run.asset_selection or ()), *checked} if len(key.path) > 2}


@dataclass
class PastRun:
    """A run as Dagster recorded it; times are UTC."""

    run_id: str
    pipelines: set[str]
    status: str
    """success, failed, canceled, queued or running."""
    started: datetime
    seconds: float | None
    """None: it has not ended."""
    tags: Mapping[str, str]
    checks_only: bool
    read: int = 0
    """Rows that bronze took from the sources."""
    loaded: int = 0
    """Rows that are new in silver, or changed there."""
    rejected: int = 0
    """Rows that any table rejected."""

    @property
    def what(self) -> str:
        """What was asked for, in a few words."""
        parts = [self.tags.get("etl/select", "")]
        parts.append("checks" if self.checks_only else "")
        parts.append(self.tags.get("dagster/partition", ""))
        parts.append("full refresh" if self.tags.get("etl/full_refresh") == "true" else "")
        parts.append(f"env {self.tags['etl/env']}" if "etl/env" in self.tags else "")
        parts.append("schedule" if "dagster/schedule_name" in self.tags else "")
        return ", ".join(part for part in parts if part)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "run_id": self.run_id,
            "pipelines": sorted(self.pipelines),
            "status": self.status,
            "started": self.started.isoformat(),
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "what": self.what,
            "read": self.read,
            "loaded": self.loaded,
            "rejected": self.rejected,
        }


def past_runs(
    instance: dg.DagsterInstance, pipeline: str | None, *, limit: int | None = None, after: datetime | None = None
) -> list[PastRun]:
    """Return runs, newest first: of one pipeline or of all, `limit` at the most, or those created after a moment."""
    found: list[PastRun] = []
    cursor = None
    while True:
        page = instance.get_run_records(dg.RunsFilter(created_after=after), limit=_PAGE, cursor=cursor)
        for record in page:
            run = _past(record)
            if run.pipelines and (pipeline is None or pipeline in run.pipelines):
                found.append(run)
        if len(page) < _PAGE or (limit is not None and len(found) >= limit):
            return found[:limit]
        cursor = page[-1].dagster_run.run_id


def _past(record: RunRecord) -> PastRun:
    run = record.dagster_run
    started = record.start_time if record.start_time is not None else record.create_timestamp.timestamp()
    seconds = record.end_time - started if record.end_time is not None else None
    return PastRun(
        run.run_id,
        pipelines_of(run),
        _STATUS.get(run.status, "running"),
        datetime.fromtimestamp(started, tz=UTC),
        seconds,
        run.tags,
        checks_only=CHECKS_TAG in run.tags or (bool(run.asset_check_selection) and not run.asset_selection),
    )


def add_figures(instance: dg.DagsterInstance, runs: Iterable[PastRun], keys: Iterable[dg.AssetKey]) -> None:
    """Add to each run what its tables read, loaded and rejected: from their materialization events."""
    by_id = {run.run_id: run for run in runs}
    if not by_id:
        return
    oldest = min(run.started for run in by_id.values()).timestamp()
    for key in keys:
        cursor = None
        wanted = dg.AssetRecordsFilter(asset_key=key, after_timestamp=oldest)
        while True:
            page = instance.fetch_materializations(wanted, limit=_PAGE, cursor=cursor)
            for record in page.records:
                run = by_id.get(record.run_id)
                if run is not None and record.asset_materialization is not None:
                    _add(run, key.path[0], plain(record.asset_materialization.metadata))
            if not page.has_more:
                break
            cursor = page.cursor


def _add(run: PastRun, layer: str, metadata: Mapping[str, Any]) -> None:
    figures = {name: int(metadata.get(f"rows/{name}", 0)) for name in FIGURES}
    if layer == "bronze":
        run.read += figures["read"]
    if layer == "silver":
        run.loaded += figures["inserted"] + figures["updated"]
    run.rejected += figures["rejected"]
