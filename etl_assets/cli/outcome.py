"""What became of a run, read from its Dagster events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

if TYPE_CHECKING:
    from dagster._utils.error import SerializableErrorInfo

FIGURES = ("read", "inserted", "updated", "deleted", "unchanged", "superseded", "filtered", "rejected")

Status = Literal["done", "failed", "stopped", "not run"]
End = Literal["success", "failed", "canceled"]
_ENDS: Mapping[str, End] = {"PIPELINE_SUCCESS": "success", "PIPELINE_CANCELED": "canceled"}


@dataclass
class Table:
    """One table in one run."""

    key: dg.AssetKey
    status: Status = "not run"
    figures: dict[str, int] = field(default_factory=dict)
    """The row account: read, inserted, …; empty if the table was not loaded."""
    rows: int | None = None
    """Rows of the table afterwards."""
    withheld: int = 0
    """Rows upstream that wait in the errors and are missing here."""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "table": "/".join(self.key.path),
            "status": self.status,
            **({name: self.figures[name] for name in FIGURES} if self.figures else {}),
            "rows": self.rows,
            "withheld": self.withheld,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Failure:
    """An error of one step, in the words of whoever raised it."""

    step: str
    kind: str
    """Name of the exception."""
    message: str
    trace: str

    def to_json(self) -> dict[str, Any]:
        """Return what, where and fix apart, as `EtlError` writes them."""
        what, _, rest = self.message.partition("\n  where: ")
        if not rest:
            what, _, fix = self.message.partition("\n  fix:   ")
            return {"step": self.step, "kind": self.kind, "what": what, "where": "", "fix": fix}
        where, _, fix = rest.partition("\n  fix:   ")
        return {"step": self.step, "kind": self.kind, "what": what, "where": where, "fix": fix}


@dataclass(frozen=True)
class Check:
    """One evaluated check."""

    key: dg.AssetKey
    name: str
    passed: bool
    severity: str
    description: str
    metadata: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "table": "/".join(self.key.path),
            "check": self.name,
            "passed": self.passed,
            "severity": self.severity,
            "description": self.description,
            **{name: self.metadata[name] for name in ("failed", "checked") if name in self.metadata},
        }


class Outcome:
    """Grows with the events of a run."""

    def __init__(self, run_id: str, steps: Mapping[str, Sequence[dg.AssetKey]]) -> None:
        self.run_id = run_id
        self.steps = steps
        """Step of the run -> tables that it loads; a step that follows a change log loads several."""
        self.tables = {key: Table(key) for keys in steps.values() for key in keys}
        self.failures: list[Failure] = []
        self.checks: list[Check] = []
        self.status: End = "failed"
        self.seconds = 0.0
        self._starts: dict[str, float] = {}

    def add(self, event: dg.DagsterEvent, at: float) -> None:
        """Take up one event that happened `at` (seconds)."""
        kind = event.event_type_value
        if kind == "ASSET_MATERIALIZATION":
            self._materialized(event)
        elif kind == "ASSET_CHECK_EVALUATION":
            self.checks.append(_check(event.asset_check_evaluation_data))
        elif kind.startswith("STEP_"):
            self._step(kind, event, at)
        elif was_interrupted(event):
            self.status = "canceled"
        elif kind == "PIPELINE_FAILURE" and not self.failures and event.job_failure_data.error is not None:
            self._failed("", event.job_failure_data.error)
        self.status = _ENDS.get(kind, self.status)

    def _step(self, kind: str, event: dg.DagsterEvent, at: float) -> None:
        step = event.step_key or ""
        if kind == "STEP_START":
            self._starts[step] = at
        if kind in ("STEP_SUCCESS", "STEP_FAILURE"):
            for key in self.steps.get(step, ()):
                table = self.tables[key]
                table.seconds = at - self._starts.get(step, at)
                table.status = "done" if kind == "STEP_SUCCESS" else "stopped" if was_interrupted(event) else "failed"
        if kind == "STEP_FAILURE" and not was_interrupted(event) and event.step_failure_data.error is not None:
            self._failed(step, event.step_failure_data.error)

    def _materialized(self, event: dg.DagsterEvent) -> None:
        materialization = event.step_materialization_data.materialization
        table, metadata = self.tables[materialization.asset_key], plain(materialization.metadata)
        if "rows/read" in metadata:
            table.figures = {name: int(metadata.get(f"rows/{name}", 0)) for name in FIGURES}
        table.rows = metadata.get("dagster/row_count")
        table.withheld = int(metadata.get("rows withheld upstream", 0))

    def _failed(self, step: str, error: SerializableErrorInfo) -> None:
        cause = error
        while cause.cause is not None and str(cause.cls_name).startswith("Dagster"):
            cause = cause.cause
        name = cause.cls_name or "Error"
        message = cause.message.strip()
        _, found, text = message.partition(f"{name}: ")
        if name == "DagsterAssetCheckFailedError":
            text, found = _broken(self.checks, step), "found"
        failure = Failure(step, name, text if found else message, error.to_string())
        self.failures.append(failure)

    @property
    def broken(self) -> list[Check]:
        """Checks that did not pass, errors first."""
        return sorted((check for check in self.checks if not check.passed), key=lambda check: check.severity)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "run_id": self.run_id,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "tables": [table.to_json() for table in self.tables.values()],
            "checks": {
                "passed": sum(check.passed for check in self.checks),
                "failed": [check.to_json() for check in self.broken],
            },
            "failures": [failure.to_json() for failure in self.failures],
        }


def was_interrupted(event: dg.DagsterEvent) -> bool:
    """Tell whether a step, or the run between two steps, failed because somebody stopped it."""
    if event.event_type_value == "STEP_FAILURE":
        source = event.step_failure_data.error_source
        return source is not None and source.value == "INTERRUPT"
    if event.event_type_value == "PIPELINE_FAILURE":
        reason = event.job_failure_data.failure_reason
        return reason is not None and reason.value == "UNEXPECTED_TERMINATION"
    return False


def plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with the values taken out of Dagster's wrappers."""
    return {name: value.value for name, value in metadata.items() if hasattr(value, "value")}


def _check(data: Any) -> Check:
    return Check(
        data.asset_key, data.check_name, data.passed, data.severity.value, data.description or "", plain(data.metadata)
    )


def _broken(checks: list[Check], step: str) -> str:
    names = [f"{check.name}: {check.description}" for check in checks if not check.passed and check.severity == "ERROR"]
    listed = "".join(f"\n    {name}" for name in names)
    return f"rules of the contract do not hold; what is downstream was not built:{listed}\n  where: {step}"
