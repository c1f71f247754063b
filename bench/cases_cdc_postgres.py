"""PostgreSQL's change log, read and decoded, against counting the same changes within the server and against peers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from bench.cases import _fresh, _row, _task
from bench.measure import Summary, interleaved, run
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
CAPTURED = "changes_captured"


def prepare(port: int, lake: Path) -> bool:
    """Make the empty table, a capture of it into `lake` by the slot `CAPTURED`, and slots for the peers.

    Return whether there is a slot of wal2json.
    """
    with connected(port) as connection:
        connection.execute(TABLE)
        run(sys.executable, _task("postgres_capture"), str(port), "changes", "id", CAPTURED, str(lake))
        connection.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE changes")
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [SLOT])
        try:
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'wal2json')", [JSON_SLOT])
        except psycopg.errors.UndefinedFile:
            return False
    return True


def write(port: int, rows: int) -> int:
    """Write changes to seven columns, half of them inserts, a third updates, the rest deletes, in 1,000 transactions.

    Return how many.
    """
    inserted, updated, deleted = (int(rows * share) * 2 // TRANSACTIONS for share in (0.5, 0.35, 0.15))
    half = TRANSACTIONS // 2
    with connected(port) as connection:
        for n in range(half):
            connection.execute(f"INSERT INTO changes {VALUES.format(first=n * inserted + 1, last=(n + 1) * inserted)}")
        for n in range(half):
            within = "id > {} AND id <= {}"
            if n % 2:
                its = within.format(n // 2 * deleted * 2, (n // 2 + 1) * deleted * 2)
                connection.execute(f"DELETE FROM changes WHERE {its}")
            its = within.format(half * inserted - (n + 1) * updated, half * inserted - n * updated)
            connection.execute(f"UPDATE changes SET status = 'x', amount = amount + 1 WHERE {its}")
        # Or the server would do so by itself, beside the first tasks that are timed.
        connection.execute("VACUUM ANALYZE changes")
        connection.execute("CHECKPOINT")
    return half * (inserted + updated) + half // 2 * deleted * 2


def connected(port: int) -> psycopg.Connection[Any]:
    """Connect to the bench's server."""
    return psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres", autocommit=True)


def postgres_log(folder: Path, *, rounds: int, scale: float, peers: Callable[[], str]) -> list[Row]:  # noqa: ARG001
    """PostgreSQL: change log -> bronze, 1 M changes of 7 columns in 1,000 transactions, and 1 M in one."""
    lake, large = str(folder / "lake"), int(1_000_000 * scale)
    with server() as running:
        has_json = prepare(running.port, folder / "lake")
        changes = write(running.port, int(1_000_000 * scale))
        port, ours = str(running.port), "log -> bronze, with account and position"
        limit, drained = "count(*) over the same peek (the limit)", "peek and decode, drained"
        decoding = "decode alone"
        pgoutput = [port, SLOT, PUBLICATION]
        tasks = {
            limit: (sys.executable, _task("pgoutput_count"), pgoutput),
            ours: (sys.executable, _task("postgres_capture"), [port, "changes", "id", CAPTURED, lake, "{fresh}"]),
            drained: (sys.executable, _task("pgoutput_drain"), [*pgoutput, "all"]),
            decoding: (sys.executable, _task("pgoutput_drain"), [*pgoutput, "decode"]),
            "psycopg2, streaming, not decoded": (sys.executable, _task("pgoutput_psycopg2"), [*pgoutput, str(changes)]),
        }
        if has_json:
            tasks["wal2json, peeked, not parsed"] = (sys.executable, _task("pgoutput_wal2json"), [port, JSON_SLOT])
        found = interleaved(_fresh(tasks, folder), rounds)
        for mine in (ours, drained):
            if found[mine].result != changes:
                raise RuntimeError(f"{changes} changes were written, and {found[mine].result} were read")
        with connected(running.port) as connection:  # the peers' slots would hold the log back
            connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
            connection.execute("TRUNCATE changes")
        arguments = [port, "changes", "id", str(folder / "large"), str(large)]
        once = Summary("the same, one transaction", (run(sys.executable, _task("postgres_capture_large"), *arguments),))
    return [*_rates(found, changes, limit, [ours, drained], decoding), _large(once, large)]


def _rates(found: dict[str, Summary], changes: int, limit: str, mine: list[str], decoding: str) -> list[Row]:
    table = [_row("cdc-postgres", found[limit], changes)]
    for name in mine:
        share, rate = found[limit].seconds / found[name].seconds, changes / found[name].seconds
        goal, met = ">= 60 %, >= 250 k rows/s", share >= 0.6 and rate >= 250_000
        table.append(_row("cdc-postgres", found[name], changes, figure=f"{share:.0%} of the limit", goal=goal, met=met))
    alone = changes / found[decoding].seconds
    table.append(_row("cdc-postgres", found[decoding], changes, goal=">= 1 M rows/s", met=alone >= 1_000_000))
    for peer in [name for name in found if name not in {limit, *mine, decoding}]:
        faster = found[peer].seconds / found[mine[0]].seconds
        table.append(_row("cdc-postgres", found[peer], changes, figure=f"log -> bronze is {faster:.1f} x as fast"))
    return table


def _large(once: Summary, rows: int) -> Row:
    if once.result["rows"] != rows:
        raise RuntimeError(f"{rows} rows were written, and {once.result['rows']} were read")
    grown = once.result["grown"]
    return _row("cdc-postgres", once, rows, figure=f"+{grown:.0f} MB", goal="<= +50 MB", met=grown <= 50)
