"""(c) The bare MERGE of delta-rs, of changes that lie ready in memory: `lake folder`."""

from __future__ import annotations

import shutil
import sys

from bench.said import timed
from bench.tables import silver
from etl_resources.delta.evolution import conform
from etl_resources.engines.duckdb import quote


def main(lake: str, folder: str) -> None:
    import pyarrow as pa

    shutil.copytree(lake, folder)
    table = silver(folder)
    handle = table.table.open()
    with table.engine.session() as session:
        bronze = table.bronze.open()
        relation = f"(SELECT * FROM {session.lake_relation(bronze)} WHERE _batch = 2)"
        judgement = table.judgement(session, bronze, relation, {})
        columns = ", ".join(quote(name) for name in handle.schema().names)
        schema = handle.schema()
        batches = [
            conform(b, schema, where="bench") for b in session.stream(f"SELECT {columns} FROM ({judgement.sql})")
        ]
    changes = pa.Table.from_batches(batches, schema)

    def merge() -> object:
        merger = handle.delta.merge(changes, "t.id = s.id", source_alias="s", target_alias="t", streamed_exec=False)
        return merger.when_matched_update_all().when_not_matched_insert_all().execute()["num_output_rows"]

    timed(merge)
    shutil.rmtree(folder)


main(*sys.argv[1:])
