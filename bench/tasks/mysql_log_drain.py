"""A binlog decoded into events and thrown away: `port from_file from_place`."""

from __future__ import annotations

import sys

from bench.said import timed
from etl_resources.change_log import Changes, LogTable
from etl_resources.changes.mysql_position import Cursor
from etl_resources.changes.mysql_settings import MysqlLogCapture
from etl_resources.source import Stream
from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions


def main(port: str, file: str, place: str) -> None:
    source = MysqlSource(host="127.0.0.1", port=int(port), database="bench", user="root", ssl_mode="disabled")
    capture = MysqlLogCapture()
    stream = Stream("orders", MysqlStreamOptions(type="mysql", table="orders"), capture)
    log = source.change_log("bench", [LogTable(stream, ("id",))], capture)
    begin = Cursor("1", 0, file, int(place)).to_position()

    def drain() -> int:
        return sum(item.batch.data.num_rows for item in log.read({"orders": begin}) if isinstance(item, Changes))

    timed(drain, "pyarrow.compute", "pandas", "pymysql", "numpy", "stamina", "etl_resources.changes.mysql_reading")


main(*sys.argv[1:])
