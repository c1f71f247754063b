"""MySQL -> bronze, against draining the same client and against dlt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from bench.cases import _fresh, _row, _task
from bench.measure import Summary, interleaved, run
from bench.report import Row
from tests.servers.mysql import MysqlServer, running_mysql

TABLE = """
    CREATE TABLE {name} (PRIMARY KEY (id)) AS
    SELECT seq AS id, (seq * 7919) % 1000003 AS customer, CONCAT('sku-', seq % 50021) AS product, MD5(seq) AS reference,
        ELT(1 + seq % 4, 'new', 'paid', 'sent', 'done') AS status,
        CAST(((seq * 37) % 1000000) / 100 AS DECIMAL(12, 2)) AS amount, CAST(seq % 97 AS INT) AS quantity,
        TIMESTAMP '2024-01-01 00:00:00' + INTERVAL seq * 3 SECOND AS ordered_at,
        TIMESTAMP '2024-01-01 00:00:00' + INTERVAL seq * 3 SECOND AS updated_at
    FROM seq_1_to_{rows}
"""
SETTINGS = {"innodb-buffer-pool-size": "1G", "innodb-log-file-size": "512M", "skip-log-bin": "1"}


def fill(server: MysqlServer, rows: int) -> str:
    """Create the table `orders_<rows>` of nine mixed columns and return its name."""
    name = f"orders_{rows}"
    server.execute("bench", TABLE.format(name=name, rows=rows), f"ANALYZE TABLE {name}")
    return name


def mysql_to_bronze(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:
    """MySQL -> bronze, 2 M rows of 9 columns."""
    rows, python = int(2_000_000 * scale), peers()
    with running_mysql(SETTINGS) as server:
        server.execute(None, "CREATE DATABASE bench CHARACTER SET utf8mb4")
        port, name, large = str(server.port), fill(server, rows), fill(server, 4 * rows)
        ours, drained = "bronze, with account and position", "the same client, drained into Arrow (the limit)"
        tasks = {
            drained: (sys.executable, _task("mysql_drain"), [port, name, "arrow"]),
            "its bytes alone, drained": (sys.executable, _task("mysql_drain"), [port, name, "bytes"]),
            ours: (sys.executable, _task("mysql_bronze"), [port, name, "{fresh}"]),
            "connectorx, drained": (python, _task("mysql_connectorx"), [port, name]),
            "dlt, connectorx": (python, _task("mysql_peer_dlt"), [port, name, "{fresh}", "connectorx"]),
            "dlt, pyarrow": (python, _task("mysql_peer_dlt"), [port, name, "{fresh}", "pyarrow"]),
        }
        found = interleaved(_fresh(tasks, folder), rounds)
        at_four = run(sys.executable, _task("mysql_bronze"), port, large, str(folder / "large"))
    limit, mine = found[drained], found[ours]
    wide = Summary(f"{ours}, 4 x the rows", (at_four,))
    share, growth = limit.seconds / mine.seconds, wide.peak_mb / mine.peak_mb
    table = [
        _row("mysql", limit, rows),
        _row("mysql", mine, rows, figure=f"{share:.0%} of the limit", goal=">= 50 %", met=share >= 0.5),
        _row("mysql", wide, 4 * rows, figure=f"{growth:.2f} x the memory", goal="<= 1.2 x", met=growth <= 1.2),
    ]
    for peer in ("its bytes alone, drained", "connectorx, drained", "dlt, connectorx", "dlt, pyarrow"):
        faster = found[peer].seconds / mine.seconds
        table.append(_row("mysql", found[peer], rows, figure=f"ours is {faster:.1f} x as fast"))
    return table
