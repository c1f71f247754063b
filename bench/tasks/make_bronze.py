"""Prepare (b): a bronze table of `rows` orders in the lake at `folder`: `rows folder`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from bench.said import timed
from etl_assets.bronze import Bronze
from etl_assets.run import Run
from etl_resources.engines.duckdb import DuckDB
from etl_resources.lake import Lake
from etl_resources.source import Batch, Capabilities, Position, Source, Stream, StreamOptions

ORDERS = """
    SELECT i AS id, (i * 7919) % 1000003 AS customer, 'sku-' || (i % 50021) AS product, md5(i::VARCHAR) AS reference,
        ['new', 'paid', 'sent', 'done'][1 + (i % 4)] AS status, (((i * 37) % 1000000) / 100)::DECIMAL(12, 2) AS amount,
        i % 97 AS quantity, TIMESTAMP '2024-01-01' + to_seconds(i * 3) AS ordered_at,
        TIMESTAMPTZ '2024-01-01 00:00+00' + to_seconds(i * 3) AS updated_at
    FROM range({start}, {stop}) AS r(i)
"""


class Generated(Source):
    """Rows made by DuckDB."""

    options_type = StreamOptions
    capabilities = Capabilities()
    sql: str

    def read_schema(self, stream: Stream) -> object:
        raise NotImplementedError

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:  # noqa: ARG002
        rows = 0
        with DuckDB(memory_limit="2GB").session() as session:
            for batch in session.stream(self.sql, batch_rows):
                rows += batch.num_rows
                yield Batch(batch, rows, {"rows": rows})


def main(rows: str, folder: str, start: str = "0") -> None:
    sql = ORDERS.format(start=start, stop=int(start) + int(rows))
    bronze = Bronze(Lake(uri=folder), "bench", Stream("orders", StreamOptions(type="generated")), commit_rows=10**9)
    timed(lambda: bronze.land(Generated(sql=sql), Run("bench"), full_refresh=False).account.inserted)


if __name__ == "__main__":
    main(*sys.argv[1:])
