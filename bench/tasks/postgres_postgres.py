"""(d) PostgreSQL -> PostgreSQL through source and target, with token and account: `port table`."""

from __future__ import annotations

import sys
import uuid

from bench.said import timed
from etl_resources.source import Snapshot, Stream
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from etl_resources.target import CommitToken, Load
from etl_resources.targets.postgres import PostgresTarget, PostgresTargetOptions


def main(port: str, table: str) -> None:
    settings = {
        "host": "127.0.0.1",
        "port": int(port),
        "database": "postgres",
        "user": "postgres",
        "sslmode": "disable",
    }
    source, target = PostgresSource(**settings), PostgresTarget(**settings)
    stream = Stream("orders", PostgresStreamOptions(type="postgres", table=table), Snapshot())
    name = f"loaded_{uuid.uuid4().hex}"
    load = Load(
        options=PostgresTargetOptions(type="postgres", table=name),
        schema=source.read_schema(stream),
        mode="replace",
        token=CommitToken(f"bench/{uuid.uuid4()}", 1, "bench"),
    )
    timed(
        lambda: target.write(load, (batch.data for batch in source.read(stream, None))).inserted,
        "pyarrow.parquet",
        "adbc_driver_postgresql.dbapi",
    )
    with target.session() as session:
        session.execute(f"DROP TABLE {name}")


main(*sys.argv[1:])
