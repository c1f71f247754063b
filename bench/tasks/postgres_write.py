"""Update random rows at a steady rate, ten to a transaction: `port table key rate seconds`."""

from __future__ import annotations

import random
import sys
import time

import psycopg


def main(port: str, table: str, key: str, rate: str, seconds: str) -> None:
    address = f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
    with psycopg.connect(address, autocommit=True) as client:
        (rows,) = client.execute(f"SELECT max({key}) FROM {table}").fetchone() or (0,)
        update = f"UPDATE {table} SET amount = amount + 1, updated_at = clock_timestamp() WHERE {key} = ANY(%s)"
        began, written = time.monotonic(), 0
        while time.monotonic() - began < float(seconds):
            client.execute(update, [random.sample(range(1, rows + 1), 10)], prepare=True)
            written += 10
            time.sleep(max(0.0, written / float(rate) - (time.monotonic() - began)))


main(*sys.argv[1:])
