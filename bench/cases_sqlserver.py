"""SQL Server -> bronze, measured against draining the same driver.

The far end is the tests' own server of the protocol, which gives some 300,000 rows a second: both tasks wait for it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import duckdb

from bench.cases import _fresh, _row, _task
from bench.measure import Summary, interleaved, run
from bench.report import Row
from tests.servers.tds import TdsServer, running_tds

_COLUMNS = (
    "id bigint, customer int, product nvarchar(20), reference nvarchar(40), status nvarchar(10), amount decimal(12, 2),"
    " quantity int, ordered_at datetime2(6), updated_at datetimeoffset(6)"
)
_ROWS = """
    SELECT i AS id, ((i * 7919) % 1000003)::INT AS customer, 'sku-' || (i % 50021) AS product,
        md5(i::VARCHAR) AS reference, ['new', 'paid', 'sent', 'done'][1 + i % 4] AS status,
        (((i * 37) % 1000000) / 100.0)::DECIMAL(12, 2) AS amount, (i % 97)::INT AS quantity,
        TIMESTAMP '2024-01-01' + to_seconds(i * 3) AS ordered_at,
        (TIMESTAMP '2024-01-01' + to_seconds(i * 3))::TIMESTAMPTZ AS updated_at
    FROM range({}::BIGINT) t(i)
"""


def fill(server: TdsServer, rows: int) -> str:
    """Create the table `orders_<rows>` of nine mixed columns and return its name."""
    name = f"orders_{rows}"
    server.execute(f"CREATE TABLE dbo.{name} ({_COLUMNS})")
    with tempfile.NamedTemporaryFile(dir=server.directory, suffix=".parquet") as file:
        made = duckdb.connect()
        made.execute("SET TimeZone = 'UTC'")
        made.execute(f"COPY ({_ROWS.format(rows)}) TO '{file.name}' (FORMAT parquet)")
        server.execute(f"EXEC tds_load N'dbo.{name}', N'{file.name}'")
    return name


def sqlserver_to_bronze(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """SQL Server -> bronze, 1 M rows of 9 columns, and 4 M for the memory."""
    rows = int(1_000_000 * scale)
    with running_tds() as server:
        port, name, large = str(server.port), fill(server, rows), fill(server, 4 * rows)
        ours = "bronze, with account and position"
        tasks = {
            "mssql-python's Arrow batches, drained": (sys.executable, _task("sqlserver_drain"), [port, name]),
            ours: (sys.executable, _task("sqlserver_bronze"), [port, name, "{fresh}"]),
        }
        found = interleaved(_fresh(tasks, folder), rounds)
        at_four = run(sys.executable, _task("sqlserver_bronze"), port, large, str(folder / "large"))
    limit, mine = found.values()
    share, wide = limit.seconds / mine.seconds, Summary(f"{ours}, 4 x the rows", (at_four,))
    growth = wide.peak_mb / mine.peak_mb
    return [
        _row("sqlserver", limit, rows),
        _row("sqlserver", mine, rows, figure=f"{share:.0%} of the limit", goal=">= 50 %", met=share >= 0.5),
        _row("sqlserver", wide, 4 * rows, figure=f"{growth:.2f} x the memory", goal="<= 1.2 x", met=growth <= 1.2),
    ]
