"""Replay of errors, recorded in Dagster."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.cli.error_queue import Wanted, listed
from etl_assets.cli.one_at_a_time import only_run
from etl_assets.run import Run

if TYPE_CHECKING:
    from etl_assets.cli.project import Project


def replayed(project: Project, wanted: Wanted) -> dict[str, Any]:
    """Judge open errors of a pipeline again, table by table in the order in which they depend on each other.

    Each table that was tried is reported to Dagster as materialized, with the account of the replay.
    """
    from etl_assets.silver_replay import replay

    wanted.check(project)
    assert wanted.pipeline is not None  # noqa: S101 - the command asks for it
    location, run_id = project.location, str(uuid.uuid4())
    errors = listed(project, wanted)
    streams = {f"silver/{wanted.pipeline}/{stream.name}": stream for stream in location.streams(wanted.pipeline)}
    ordered = ["/".join(key.path) for key in location.keys(wanted.pipeline)]
    tables = []
    with only_run(project, wanted.pipeline, run_id):
        for name in (name for name in ordered if name in streams):
            ids = [error["error"] for error in errors if error["table"] == name]
            if not ids:
                continue
            silver = streams[name].silver(location.lake, location.engine)
            account = replay(silver, Run(run_id), error_ids=ids)
            handle = silver.table.open()
            metadata = {**account.metadata(), "replay": True}
            if handle is not None:
                metadata["dagster/row_count"] = handle.rows()
            project.instance.report_runless_asset_event(
                dg.AssetMaterialization(name.split("/"), metadata=metadata, description="replay of errors")
            )
            figures = account.to_json()
            for kind in ("filtered", "rejected"):
                figures[kind] = sum(figures[kind].values())
            tables.append({"table": name, **figures})
    rest = sum(error["table"] not in streams for error in errors)
    return {"tables": tables, "not_replayable": rest}
