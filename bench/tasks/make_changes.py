"""Prepare (c): silver of `rows` orders, then a bronze batch of `changes` random changes that silver has not read.

Arguments: `rows changes folder`. Three quarters of the changes are updates of random keys, the rest new keys.
"""

from __future__ import annotations

import sys

from bench.said import timed
from bench.tables import silver
from bench.tasks.make_bronze import ORDERS, Generated
from etl_assets.bronze import Bronze
from etl_assets.run import Run
from etl_resources.lake import Lake
from etl_resources.source import Stream, StreamOptions

CHANGES = """
    WITH picked AS (
        SELECT DISTINCT (random() * {rows})::BIGINT AS id FROM range(0, {updates})
        UNION ALL SELECT {rows} + 1 + r.i FROM range(0, {inserts}) AS r(i)
    )
    SELECT id, (id * 7919) % 1000003 AS customer, 'sku-' || (id % 50021) AS product, md5(id::VARCHAR) AS reference,
        'done' AS status, ((((id + 1) * 41) % 1000000) / 100)::DECIMAL(12, 2) AS amount, 1 + id % 97 AS quantity,
        TIMESTAMP '2024-01-01' + to_seconds(id * 3) AS ordered_at, TIMESTAMPTZ '2025-01-01 00:00+00' AS updated_at
    FROM picked
"""


def main(rows: str, changes: str, folder: str) -> None:
    stream = Stream("orders", StreamOptions(type="generated"))
    inserts = int(changes) // 4
    sql = CHANGES.format(rows=rows, updates=int(changes) - inserts, inserts=inserts)

    def make() -> None:
        lake = Lake(uri=folder)
        everything = Generated(sql=ORDERS.format(start=0, stop=int(rows) + 1))
        Bronze(lake, "bench", stream, commit_rows=10**9).land(everything, Run("first"))
        silver(folder).refine(Run("first"))
        Bronze(lake, "bench", stream, commit_rows=10**9).land(Generated(sql=sql), Run("changes"), full_refresh=False)

    timed(make)


main(*sys.argv[1:])
