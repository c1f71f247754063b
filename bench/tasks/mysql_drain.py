"""The limit: receive a table with the client of the source, cut it into rows, and throw it away: `port table`."""

from __future__ import annotations

import sys

from bench.said import timed
from etl_resources.sources.mysql import MysqlSource


def main(port: str, table: str) -> None:
    source = MysqlSource(host="127.0.0.1", port=int(port), database="bench", user="root", ssl_mode="disabled")

    def drain() -> int:
        with source.session() as session:
            _, blocks = session.stream(f"SELECT * FROM {table}", rows=131_072)
            return sum(len(block) for block in blocks)

    timed(drain, "pyarrow.compute", "pymysql", "numpy", "stamina")


main(*sys.argv[1:])
