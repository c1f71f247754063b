"""PostgreSQL's change log, read and decoded, against counting the same changes within the server and against peers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import psycopg

from bench.cases import _row, _task
from bench.measure import interleaved
from bench.report import Row
from bench.servers import server

TABLE = """
    CREATE TABLE changes (
        id bigint PRIMARY KEY, customer int, product text, status text, amount numeric(12, 2), ratio float8,
        updated_at timestamptz
    )
"""
VALUES = """
    SELECT i, (i * 7919) % 1000003, 'sku-' || (i % 50021) || md5(i::text), (ARRAY['new', 'paid', 'sent'])[1 + i % 3],
        (((i * 37) % 1000000) / 100.0)::numeric(12, 2), i / 7.0, timestamptz '2024-01-01 00:00Z' + i * interval '3 s'
    FROM generate_series({first}::bigint, {last}) i
"""
TRANSACTIONS = 1000
PUBLICATION, SLOT, JSON_SLOT = "changes", "changes_pgoutput", "changes_wal2json"


def fill(port: int, rows: int) -> tuple[int, bool]:
    """Write changes to seven columns, half of them inserts, a third updates, the rest deletes, in 1,000 transactions.

    Return how many, and whether there is a slot of wal2json beside that of pgoutput.
    """
    address = f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
    inserted, updated, deleted = (int(rows * share) * 2 // TRANSACTIONS for share in (0.5, 0.35, 0.15))
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE changes")
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [SLOT])
        try:
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'wal2json')", [JSON_SLOT])
            has_json = True
        except psycopg.errors.UndefinedFile:
            has_json = False
        half = TRANSACTIONS // 2
        for n in range(half):
            connection.execute(f"INSERT INTO changes {VALUES.format(first=n * inserted + 1, last=(n + 1) * inserted)}")
        for n in range(half):
            within = "id > {} AND id <= {}"
            if n % 2:
                its = within.format(n // 2 * deleted * 2, (n // 2 + 1) * deleted * 2)
                connection.execute(f"DELETE FROM changes WHERE {its}")
            its = within.format(half * inserted - (n + 1) * updated, half * inserted - n * updated)
            connection.execute(f"UPDATE changes SET status = 'x', amount = amount + 1 WHERE {its}")
    return half * (inserted + updated) + half // 2 * deleted * 2, has_json


def postgres_log(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """PostgreSQL's change log -> Arrow, 1 M changes of 7 columns in 1,000 transactions."""
    with server() as running:
        changes, has_json = fill(running.port, int(1_000_000 * scale))
        port, ours = str(running.port), "peek and decode, drained"
        limit, decoding = "count(*) over the same peek (the limit)", "decode alone"
        pgoutput = [port, SLOT, PUBLICATION]
        tasks = {
            limit: (sys.executable, _task("pgoutput_count"), pgoutput),
            ours: (sys.executable, _task("pgoutput_drain"), [*pgoutput, "all"]),
            decoding: (sys.executable, _task("pgoutput_drain"), [*pgoutput, "decode"]),
            "psycopg2, streaming, not decoded": (sys.executable, _task("pgoutput_psycopg2"), [*pgoutput, str(changes)]),
        }
        if has_json:
            tasks["wal2json, peeked, not parsed"] = (sys.executable, _task("pgoutput_wal2json"), [port, JSON_SLOT])
        found = interleaved(tasks, rounds)
    if found[ours].result != changes:
        raise RuntimeError(f"{changes} changes were written, and {found[ours].result} were read")
    mine, share = found[ours], found[limit].seconds / found[ours].seconds
    rate, alone = changes / mine.seconds, changes / found[decoding].seconds
    table = [
        _row("postgres-log", found[limit], changes),
        _row("postgres-log", mine, changes, figure=f"{share:.0%} of the limit", goal=">= 60 %, >= 250 k rows/s",
             met=share >= 0.6 and rate >= 250_000),
        _row("postgres-log", found[decoding], changes, goal=">= 1 M rows/s", met=alone >= 1_000_000),
    ]  # fmt: skip
    for peer in [name for name in found if name not in {limit, ours, decoding}]:
        faster = found[peer].seconds / mine.seconds
        table.append(_row("postgres-log", found[peer], changes, figure=f"ours is {faster:.1f} x as fast"))
    return table
