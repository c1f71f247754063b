"""(cdc-merge) The bare MERGE of delta-rs, of changes that lie ready in memory, the last one of each key: `lake folder`.

The result has the rows of the table afterwards.
"""

from __future__ import annotations

import shutil
import sys

from bench.captured import captured_silver
from bench.said import timed
from etl_resources.delta.evolution import conform
from etl_resources.engines.duckdb import quote


def main(lake: str, folder: str) -> None:
    import pyarrow as pa

    shutil.copytree(lake, folder)
    silver = captured_silver(folder)
    handle, bronze = silver.table.open(), silver.bronze.open()
    names = handle.schema().names
    schema = handle.schema().append(pa.field("_op", pa.string()))
    with silver.engine.session() as session:
        columns = ", ".join(map(quote, schema.names))
        sql = (
            f"SELECT {columns} FROM {session.lake_relation(bronze)} WHERE _batch = 2 "
            "QUALIFY row_number() OVER (PARTITION BY id ORDER BY _pos DESC, _seq DESC) = 1"
        )
        batches = [conform(batch, schema, where="bench") for batch in session.stream(sql)]
    changes = pa.Table.from_batches(batches, schema)
    assignments = {f"`{name}`": f"s.`{name}`" for name in names}

    def merge() -> int:
        merger = handle.delta.merge(changes, "t.id = s.id", source_alias="s", target_alias="t", streamed_exec=False)
        merger = merger.when_matched_delete("s._op = 'delete'").when_matched_update(assignments, "s._op <> 'delete'")
        merger.when_not_matched_insert(assignments, "s._op <> 'delete'").execute()
        return int(handle.delta.count())

    timed(merge)
    shutil.rmtree(folder)


main(*sys.argv[1:])
