"""From a slot to committed bronze, with account and position: `port table key slot lake folder`.

The slot and the lake are copied first, so that every run finds the same changes; without `folder` they are made.
"""

from __future__ import annotations

import shutil
import sys

import psycopg

from bench.captured import IMPORTS, OF_POSTGRES, of_postgres
from bench.said import timed
from etl_assets.run import Run


def main(port: str, table: str, key: str, slot: str, lake: str, folder: str = "") -> None:
    keys = {table: (key,)}
    if not folder:
        timed(lambda: of_postgres(port, lake, keys, slot).follow(Run("begin"))[table].account.read)
        return
    own = f"{slot}_copied"
    shutil.copytree(lake, folder)
    with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", autocommit=True) as client:
        client.execute("SELECT pg_copy_logical_replication_slot(%s, %s)", [slot, own])
        captured = of_postgres(port, folder, keys, own)
        timed(lambda: captured.follow(Run("bench"))[table].account.read, *IMPORTS, *OF_POSTGRES)
        client.execute("SELECT pg_drop_replication_slot(%s)", [own])
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
