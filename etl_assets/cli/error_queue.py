"""The open errors of a lake, as the commands ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etl_assets.cli.project import Project


def open_errors(project: Project, pipeline: str | None = None) -> dict[str, int]:
    """Return table -> open errors, of one pipeline or of all."""
    from etl_assets.errors import ErrorTable

    location = project.location
    with location.engine.session() as session:
        counts = ErrorTable(location.lake).open_counts(session)
    return {
        table: count for table, count in sorted(counts.items()) if pipeline is None or table.split("/")[1] == pipeline
    }
