"""The errors of a lake, as the commands ask for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_assets.cli.usage import WrongUsage

if TYPE_CHECKING:
    from etl_assets.cli.project import Project
    from etl_resources.engines.duckdb import Session

STATES = ("open", "replayed", "discarded", "withdrawn", "obsolete", "all")
_COLUMNS = ("error_id", "asset", "status", "rule", "rules", "reason", "record", "raw", "origin", "line", "run_id")


@dataclass(frozen=True)
class Wanted:
    """Which errors; what is None does not matter."""

    pipeline: str | None = None
    table: str | None = None
    """As people write it: silver/sales, or with the pipeline."""
    rule: str | None = None
    status: str = "open"
    ids: tuple[str, ...] = ()

    def condition(self) -> str:
        """Return the SQL condition, for rows of `ops/errors`."""
        from etl_resources.engines.duckdb import literal

        parts = ["true"]
        if self.pipeline is not None:
            parts.append(f"split_part(asset, '/', 2) = {literal(self.pipeline)}")
        if self.table is not None:
            short = "split_part(asset, '/', 1) || '/' || split_part(asset, '/', 3)"
            parts.append(f"{literal(self.table)} IN (asset, {short}, split_part(asset, '/', 3))")
        if self.rule is not None:
            parts.append(
                f"{literal(self.rule)} IN (rule, 'rejected:' || rule) OR list_contains(rules, {literal(self.rule)})"
            )
        if self.ids:
            parts.append(f"error_id IN ({', '.join(map(literal, self.ids))})")
        return " AND ".join(f"({part})" for part in parts)

    def check(self, project: Project) -> None:
        """Raise WrongUsage for a pipeline or a state that is not there."""
        if self.pipeline is not None:
            project.location.check_name(self.pipeline)
        if self.status not in STATES:
            raise WrongUsage(f"there is no state {self.status!r}", fix=f"known: {', '.join(STATES)}")


@contextmanager
def _errors(project: Project, status: str) -> Iterator[tuple[Session, str | None]]:
    from etl_assets.errors import ErrorTable

    location = project.location
    with location.engine.session() as session:
        state = None if status == "all" else status
        yield session, ErrorTable(location.lake).current(session, status=state)


def open_errors(project: Project, pipeline: str | None = None) -> dict[str, int]:
    """Return table -> open errors, of one pipeline or of all."""
    groups = grouped(project, Wanted(pipeline))
    tables = sorted({group["table"] for group in groups})
    return {table: sum(group["errors"] for group in groups if group["table"] == table) for table in tables}


def grouped(project: Project, wanted: Wanted) -> list[dict[str, Any]]:
    """Return the number of errors and one reason, per table and rule, most errors first."""
    with _errors(project, wanted.status) as (session, relation):
        if relation is None:
            return []
        rows = session.execute(
            "SELECT asset, rule, count(*), max(happened_at)::text, any_value(reason) "  # noqa: S608
            f"FROM {relation} WHERE {wanted.condition()} GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
        )
    return [dict(zip(("table", "rule", "errors", "newest", "example"), row, strict=True)) for row in rows]


def listed(project: Project, wanted: Wanted, limit: int | None = None) -> list[dict[str, Any]]:
    """Return errors, newest first."""
    with _errors(project, wanted.status) as (session, relation):
        if relation is None:
            return []
        rows = session.execute(
            f"SELECT {', '.join(_COLUMNS)}, happened_at::text, note "  # noqa: S608
            f"FROM {relation} WHERE {wanted.condition()} ORDER BY happened_at DESC, batch, row"
            + (f" LIMIT {limit}" if limit is not None else "")
        )
    return [_error(dict(zip((*_COLUMNS, "happened_at", "note"), row, strict=True))) for row in rows]


def past_events(project: Project, error_id: str) -> list[dict[str, Any]]:
    """Return what happened to one error, oldest first: state, when, by which run, why."""
    from etl_assets.errors import ErrorTable

    columns = ["status", "happened_at", "run_id", "note", "event"]
    events = ErrorTable(project.location.lake).events({"error_id": error_id}, columns=columns)
    return [{name: row[name] for name in columns[:-1]} for row in events.to_pylist()]


def _error(row: dict[str, Any]) -> dict[str, Any]:
    """Return an error with its record as an object, and raw bytes as text."""
    row["record"] = json.loads(row["record"]) if row["record"] is not None else None
    row["raw"] = row["raw"].decode("utf-8", "backslashreplace") if row["raw"] is not None else None
    return {"error": row.pop("error_id"), "table": row.pop("asset"), **row}
