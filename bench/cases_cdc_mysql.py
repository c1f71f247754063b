"""Changes per second out of the binlog of MariaDB."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from bench.cases import _row, _task
from bench.measure import interleaved
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
    server.execute(None, "CREATE DATABASE bench CHARACTER SET utf8mb4")
    server.execute("bench", TABLE)
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


def binlog_to_changes(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """MariaDB's binlog -> events as Arrow, 1 M changes of 7 columns in 1,000 transactions, drained."""
    python = peers()
    with running_mysql(SETTINGS) as server:
        file, place, changes = write(server, int(1_000_000 * scale))
        where = [str(server.port), file, str(place)]
        ours = "binlog -> events with before images, drained"
        tasks = {
            ours: (sys.executable, _task("mysql_log_drain"), where),
            "mysql-replication, as dicts, drained": (python, _task("mysql_log_peer"), where),
        }
        found = interleaved(tasks, rounds)
    mine, peer = found.values()
    for summary in (mine, peer):
        for measured in summary.runs:
            if measured.result != changes:
                raise RuntimeError(f"{summary.name}: {measured.result} changes of {changes}")
    rate = changes / mine.seconds
    goal = ">= 400 k changes/s"
    return [
        _row("cdc mysql", mine, changes, figure=f"{rate / 1000:,.0f} k changes/s", goal=goal, met=rate >= 400_000),
        _row("cdc mysql", peer, changes, figure=f"ours is {peer.seconds / mine.seconds:.1f} x as fast"),
    ]
