"""The asset check that holds tables of a change log against their source; it runs when somebody asks for it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.components.log_assets import LogAssets, schema_of
from etl_assets.run import Run

if TYPE_CHECKING:
    from etl_assets.components.stream_assets import StreamAssets
    from etl_assets.reconcile import Reconciled
    from etl_resources.source import Source

AGREES = "agrees_with_source"
NAMED = 20
"""Keys that a check names."""


def compared(
    log: LogAssets, stream: "StreamAssets", source: "Source", lake: Any, engine: Any, run: Run, *, limit: int = NAMED
) -> "Reconciled":
    """Compare a stream with its source, landing what the log has until then; see `reconcile`."""
    from etl_assets.reconcile import reconcile

    capture = log.capture(source, lake, engine, once=True)
    schemas = {stream.name: schema_of(source, stream)}
    return reconcile(capture, stream.silver(lake, engine), lambda: capture.follow(run, schemas), limit=limit)


def reconcile_checks(log: LogAssets) -> dg.AssetChecksDefinition:
    """Return the check of every silver table of a log."""
    streams = {dg.AssetKey(["silver", log.pipeline.name, stream.name]): stream for stream in log.streams}
    specs = [
        dg.AssetCheckSpec(
            name=AGREES,
            asset=key,
            description="Rows of the source and of the lake have the same checksums. Runs only when it is started by "
            "itself: it reads the whole table.",
        )
        for key in streams
    ]

    @dg.multi_asset_check(
        name=f"reconcile__{log.name}",
        specs=specs,
        can_subset=True,
        required_resource_keys={"lake", "engine", log.connection},
        pool=f"capture_{log.name}",
    )
    def agree(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        # Dagster adds the checks of a table to every run of it; this one would read the source each time.
        if context.run.asset_selection:
            return
        resources, run = context.resources, Run(context.run.run_id)
        source = getattr(resources, log.connection)
        for key in sorted(check.asset_key for check in context.selected_asset_check_keys):
            yield _result(key, compared(log, streams[key], source, resources.lake, resources.engine, run))

    return agree


def _result(key: dg.AssetKey, found: "Reconciled") -> dg.AssetCheckResult:
    keys = [f"{', '.join(map(str, one.key))}: {one.what}" for one in found.differences]
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=AGREES,
        passed=found.agrees,
        description=None if found.agrees else "`etl capture resnapshot` reads the table anew",
        metadata={
            "rows": found.rows,
            "segments": found.segments,
            "segments that differ": found.differing_segments,
            "keys that differ": found.differing,
            "differences": "; ".join(keys) or "none",
            "columns not compared": "; ".join(f"{name}: {why}" for name, why in found.left_out.items()) or "none",
        },
    )
