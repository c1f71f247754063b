"""Each table as Dagster last saw it: when it was loaded, how many rows it has, which checks did not pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.cli.outcome import plain

if TYPE_CHECKING:
    from etl_assets.cli.project import Project


@dataclass
class TableNow:
    """State of one table."""

    key: dg.AssetKey
    loaded: datetime | None = None
    rows: int | None = None
    failed_checks: list[str] = field(default_factory=list)
    open_errors: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "table": "/".join(self.key.path),
            "rows": self.rows,
            "loaded": None if self.loaded is None else self.loaded.isoformat(),
            "open_errors": self.open_errors,
            "failed_checks": self.failed_checks,
        }


def tables_now(project: Project, keys: Iterable[dg.AssetKey], errors: Mapping[str, int]) -> list[TableNow]:
    """Return the state of tables; `errors` gives table -> open errors."""
    tables = {key: TableNow(key, open_errors=errors.get("/".join(key.path), 0)) for key in keys}
    for record in project.instance.get_asset_records(list(tables)):
        entry = record.asset_entry.last_materialization
        if entry is None or entry.asset_materialization is None:
            continue
        table = tables[record.asset_entry.asset_key]
        table.loaded = datetime.fromtimestamp(entry.timestamp, tz=UTC)
        table.rows = plain(entry.asset_materialization.metadata).get("dagster/row_count")
    for check in failed_checks(project, tables):
        tables[check.asset_key].failed_checks.append(check.name)
    return list(tables.values())


def failed_checks(project: Project, keys: Iterable[dg.AssetKey]) -> list[dg.AssetCheckKey]:
    """Return the checks of some tables whose newest evaluation did not pass."""
    wanted = set(keys)
    checks = [check for check in project.location.graph.asset_check_keys if check.asset_key in wanted]
    newest = project.instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    return sorted(key for key, record in newest.items() if record.status.value == "FAILED")
