"""(log) An access log, read and parsed to typed columns, nothing written: `path`."""

from __future__ import annotations

import sys

from bench.said import timed
from etl_resources.source import Stream
from etl_resources.sources.log import LogOptions, LogSource


def read(path: str) -> int:
    stream = Stream("hits", LogOptions(path=path, format="apache_combined"))
    return sum(batch.data.num_rows for batch in LogSource().read(stream, None))


if __name__ == "__main__":
    timed(lambda: read(sys.argv[1]), "pyarrow.compute", "duckdb", "pandas")
