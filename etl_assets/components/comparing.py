"""The bronze step of a stream whose changes are found by comparing."""

from typing import TYPE_CHECKING

import dagster as dg

from etl_assets.components.context import full_refresh, run_of
from etl_resources.source import Diff, Source, Watermark

if TYPE_CHECKING:
    from etl_assets.bronze import Bronze
    from etl_assets.components.stream_assets import StreamAssets
    from etl_assets.landing import Landed


def compare(assets: "StreamAssets", bronze: "Bronze", source: Source, context: dg.AssetExecutionContext) -> "Landed":
    """Land the changes of a stream; a full refresh compares everything by its values, and rewrites nothing."""
    from etl_assets.table_diff import TableDiff
    from etl_assets.watermark import WatermarkLog

    capture, engine, fresh = assets.capture, context.resources.engine, full_refresh(context)
    if isinstance(capture, Diff):
        return TableDiff(bronze, assets.log_key, engine, hashes=capture.hashes).land(
            source, run_of(context), fresh=fresh
        )
    assert isinstance(capture, Watermark)  # noqa: S101 - there are no others
    log = WatermarkLog(bronze, assets.log_key, engine, reconcile_hours=capture.reconcile_hours)
    return log.land(source, run_of(context), fresh=fresh)
