"""Prepare (cdc-merge): silver of `rows` captured orders, then `changes` events in bronze that silver has not read.

Arguments: `rows changes folder`. Of twenty events five insert, twelve update random rows, one updates a row that was
inserted just before, and two delete.
"""

from __future__ import annotations

import sys

from bench.captured import captured_silver
from bench.said import timed
from bench.tasks.make_bronze import Generated
from etl_assets.bronze import Bronze
from etl_assets.run import Run
from etl_resources.lake import Lake
from etl_resources.source import Stream, StreamOptions

ROW = """
    id, (id * 7919) % 1000003 AS customer, 'sku-' || (id % 50021) AS product, md5(id::VARCHAR) AS reference,
    ['new', 'paid', 'sent', 'done'][1 + (id % 4)] AS status,
    ((((id + n) * 37) % 1000000) / 100)::DECIMAL(12, 2) AS amount,
    TIMESTAMPTZ '2024-01-01 00:00+00' + to_seconds(id + n) AS updated_at
"""
EVENTS = """
    SELECT {row}, op AS _op, 100 + n // 1000 AS _pos, n % 1000 AS _seq, (n // 1000)::VARCHAR AS _xid,
        TIMESTAMPTZ '2026-01-01 00:00+00' + to_milliseconds(n) AS _commit_ts, NULL::VARCHAR AS _origin,
        NULL::VARCHAR[] AS _unchanged,
        NULL::STRUCT(id BIGINT, customer BIGINT, product VARCHAR, reference VARCHAR, status VARCHAR,
            amount DECIMAL(12, 2), updated_at TIMESTAMPTZ) AS _before
    FROM ({picked})
"""
FIRST = "SELECT i + 1 AS id, 'read' AS op, -i - 1 AS n FROM range(0, {rows}) AS r(i)"
LATER = """
    SELECT CASE WHEN k < 5 THEN {rows} + 1 + (n // 20) * 5 + k
        WHEN k = 5 THEN {rows} + 1 + (n // 20) * 5 + n % 5
        WHEN k < 8 THEN 10 * (1 + ((n // 20) * 2 + k - 6) * 7919 % ({rows} // 10))
        ELSE 1 + any_of + any_of // 9 END AS id,
        CASE WHEN k < 5 THEN 'insert' WHEN k IN (6, 7) THEN 'delete' ELSE 'update' END AS op, n
    FROM (SELECT n, n % 20 AS k, (random() * ({rows} // 10 * 9 - 1))::BIGINT AS any_of FROM range(0, {changes}) AS r(n))
"""


def main(rows: str, changes: str, folder: str) -> None:
    stream = Stream("orders", StreamOptions(type="generated"))

    def land(picked: str) -> None:
        sql = EVENTS.format(row=ROW, picked=picked.format(rows=rows, changes=changes))
        Bronze(Lake(uri=folder), "bench", stream, commit_rows=10**9).land(Generated(sql=sql), Run("make"))

    def make() -> None:
        land(FIRST)
        captured_silver(folder).refine(Run("make"))
        land(LATER)

    timed(make)


main(*sys.argv[1:])
