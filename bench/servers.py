"""The PostgreSQL server of the bench and what is in it."""

from __future__ import annotations

from contextlib import AbstractContextManager

import psycopg

from tests.servers.postgres import PostgresServer, running_postgres

TABLE = """
    CREATE TABLE {name} AS
    SELECT i AS id, (i * 7919) % 1000003 AS customer, 'sku-' || (i % 50021) AS product, md5(i::text) AS reference,
        (ARRAY['new', 'paid', 'sent', 'done'])[1 + i % 4] AS status,
        (((i * 37) % 1000000) / 100.0)::numeric(12, 2) AS amount,
        (i % 97)::int AS quantity, timestamp '2024-01-01' + i * interval '3 seconds' AS ordered_at,
        timestamptz '2024-01-01 00:00+00' + i * interval '3 seconds' AS updated_at
    FROM generate_series(1::bigint, {rows}) AS i
"""


def server() -> AbstractContextManager[PostgresServer]:
    """Start a private server with room for the bench's tables; it is gone afterwards."""
    return running_postgres({"shared_buffers": "256MB", "max_wal_size": "16GB"})


def fill(port: int, rows: int) -> str:
    """Create the table `orders_<rows>` of nine mixed columns and return its name."""
    name = f"orders_{rows}"
    with psycopg.connect(
        host="127.0.0.1", port=port, user="postgres", dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(TABLE.format(name=name, rows=rows))
        connection.execute(f"VACUUM ANALYZE {name}")
    return name
