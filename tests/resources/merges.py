"""Merge what a reader gives into a lake table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from etl_resources.delta.merging import Merge
from etl_resources.engines.duckdb import DuckDB

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.delta.rewriting import Changes
    from etl_resources.lake import Commit, Handle, LakeTable


def merged(
    table: LakeTable,
    handle: Handle,
    source: Callable[[], pa.RecordBatchReader],
    key: Sequence[str],
    commit: Commit,
    expected: Changes,
) -> Handle:
    with DuckDB(threads=1).session() as session:
        session.connection.register("changes", changes := source().read_all())
        return table.merge(handle, Merge(session, "changes", changes.schema.names, key, expected), commit)
