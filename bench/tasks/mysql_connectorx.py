"""For comparison: connectorx, drained: `port table`. Runs in the environment of the peers."""

from __future__ import annotations

import sys

from bench.said import timed


def main(port: str, table: str) -> None:
    import connectorx

    def drain() -> int:
        address = f"mysql://root@127.0.0.1:{port}/bench"
        query = f"SELECT * FROM {table}"
        reader = connectorx.read_sql(address, query, return_type="arrow_stream", batch_size=131_072)
        return sum(batch.num_rows for batch in reader)

    timed(drain, "pyarrow")


main(*sys.argv[1:])
