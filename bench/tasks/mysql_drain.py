"""A table received by the client of the source and thrown away, as rows of bytes or as Arrow: `port table form`."""

from __future__ import annotations

import sys

from bench.said import timed
from etl_resources.source import Snapshot, Stream
from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions


def main(port: str, table: str, form: str) -> None:
    source = MysqlSource(host="127.0.0.1", port=int(port), database="bench", user="root", ssl_mode="disabled")

    def as_bytes() -> int:
        with source.session() as session:
            _, blocks = session.stream(f"SELECT * FROM {table}", rows=131_072)
            return sum(len(block) for block in blocks)

    def as_arrow() -> int:
        stream = Stream("orders", MysqlStreamOptions(type="mysql", table=table), Snapshot())
        return sum(batch.data.num_rows for batch in source.read(stream, None))

    work = as_bytes if form == "bytes" else as_arrow
    timed(work, "pyarrow.compute", "pymysql", "numpy", "stamina")


main(*sys.argv[1:])
