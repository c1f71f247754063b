"""REST -> bronze: `url folder`."""

from __future__ import annotations

import sys

from bench.said import timed
from etl_assets.bronze import Bronze
from etl_assets.run import Run
from etl_resources.lake import Lake
from etl_resources.source import Snapshot, Stream
from etl_resources.sources.rest import RestOptions, RestSource


def main(url: str, folder: str) -> None:
    source = RestSource(base_url=url, allow_http=True)
    options = RestOptions.model_validate({
        "path": "/offset/orders", "records": "$.data.items[*]", "pagination": {"offset": {"size": 100}},
        "total": {"path": "$.meta.total"}, "in_flight": 8,
    })  # fmt: skip
    bronze = Bronze(Lake(uri=folder), "bench", Stream("orders", options, Snapshot()))
    timed(
        lambda: bronze.land(source, Run("bench")).account.inserted,
        "pyarrow.parquet",
        "pyarrow.json",
        "deltalake",
        "httpx",
    )


main(*sys.argv[1:])
