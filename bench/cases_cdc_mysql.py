"""Changes per second out of the binlog of MariaDB."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from bench.cases import _fresh, _row, _task
from bench.measure import interleaved, run
from bench.report import Row
from tests.servers.mysql import MysqlServer, running_mysql

SETTINGS = {"innodb-buffer-pool-size": "512M", "innodb-log-file-size": "512M", "max-binlog-size": "1G"}
TABLE = """
    CREATE TABLE orders (id bigint PRIMARY KEY, customer int, product varchar(40), status enum('new', 'paid', 'sent'),
        amount decimal(12, 2), quantity double, updated_at datetime(6))
"""
CHANGES = (
    (
        "INSERT INTO orders SELECT seq, seq % 1003, CONCAT('sku-', seq % 5021), 'new', (seq % 100000) / 100, seq % 97,"
        " '2024-01-01' + INTERVAL seq SECOND FROM seq_{first}_to_{last}"
    ),
    "UPDATE orders SET status = 'paid', amount = amount + 1 WHERE id BETWEEN {first} AND {seventy}",
    "DELETE FROM orders WHERE id BETWEEN {first} AND {thirty}",
)
"""Of ten changes five insert, three and a half update, one and a half delete."""
AT_ONCE = 500


def write(server: MysqlServer, changes: int) -> tuple[str, int, int]:
    """Write a log in transactions of about a thousand changes; return where it begins, and how many changes it has."""
    file, place = server.execute(None, "SHOW MASTER STATUS")[0][:2]
    made = 0
    with server.connect("bench", autocommit=False) as connection, connection.cursor() as cursor:
        for first in range(1, changes // 2, AT_ONCE):
            bounds = {
                "first": first, "last": first + AT_ONCE - 1, "seventy": first + AT_ONCE * 7 // 10 - 1,
                "thirty": first + AT_ONCE * 3 // 10 - 1,
            }  # fmt: skip
            made += sum(cursor.execute(statement.format(**bounds)) for statement in CHANGES)
            connection.commit()
    return file, int(place), made


def binlog_to_bronze(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:
    """MariaDB's binlog -> bronze, 1 M changes of 7 columns in 1,000 transactions."""
    python, lake = peers(), str(folder / "lake")
    with running_mysql(SETTINGS) as server:
        server.execute(None, "CREATE DATABASE bench CHARACTER SET utf8mb4")
        server.execute("bench", TABLE)
        port = str(server.port)
        run(sys.executable, _task("mysql_capture"), port, "orders", "id", lake)
        file, place, changes = write(server, int(1_000_000 * scale))
        where = [port, file, str(place)]
        tasks = {
            "binlog -> bronze, with account and position": (
                sys.executable, _task("mysql_capture"), [port, "orders", "id", lake, "{fresh}"],
            ),
            "binlog -> events with before images, drained": (sys.executable, _task("mysql_log_drain"), where),
            "mysql-replication, as dicts, drained": (python, _task("mysql_log_peer"), where),
        }  # fmt: skip
        found = interleaved(_fresh(tasks, folder), rounds)
    mine, drained, peer = found.values()
    for summary in found.values():
        for measured in summary.runs:
            if measured.result != changes:
                raise RuntimeError(f"{summary.name}: {measured.result} changes of {changes}")
    figures = {summary: changes / summary.seconds for summary in (mine, drained)}
    return [
        *(
            _row("cdc-mysql", summary, changes, goal=">= 400 k changes/s", met=rate >= 400_000)
            for summary, rate in figures.items()
        ),
        _row("cdc-mysql", peer, changes, figure=f"binlog -> bronze is {peer.seconds / mine.seconds:.1f} x as fast"),
    ]
