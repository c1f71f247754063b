"""(files) The source alone, drained: `path`."""

from __future__ import annotations

import sys

from bench.said import timed
from etl_resources.source import Stream
from etl_resources.sources.file import FileOptions, FileSource


def main(path: str) -> int:
    return sum(b.data.num_rows for b in FileSource().read(Stream("orders", FileOptions(path=path)), None))


if __name__ == "__main__":
    timed(lambda: main(sys.argv[1]), "pyarrow.compute", "pyarrow.csv", "pyarrow.json", "duckdb", "pandas")
