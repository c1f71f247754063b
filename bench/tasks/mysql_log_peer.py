"""The same binlog through mysql-replication, each change as the dict that it gives: `port from_file from_place`."""

from __future__ import annotations

import json
import sys
import time

from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent


def main(port: str, file: str, place: str) -> None:
    started = time.perf_counter()
    reader = BinLogStreamReader(
        connection_settings={"host": "127.0.0.1", "port": int(port), "user": "root", "passwd": ""}, server_id=77,
        log_file=file, log_pos=int(place), resume_stream=True, blocking=False,
        only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent], only_tables=["orders"], only_schemas=["bench"],
    )  # fmt: skip
    changes = sum(len(event.rows) for event in reader)
    print(json.dumps({"seconds": time.perf_counter() - started, "result": changes}))


main(*sys.argv[1:])
