"""Deletes that nobody was there to hear: found after a table was read anew, by what is in the lake and was not read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from etl_resources.change_log import DELETE, TRUNCATE, event_fields
from etl_resources.engines.duckdb import literal, quote
from etl_resources.source import Batch

if TYPE_CHECKING:
    from etl_resources.engines.duckdb import Session
    from etl_resources.lake import Handle

ORIGIN = "resnapshot"
"""`_origin` of the deletes that are found this way."""
ROWS = 131_072


def sweep(session: Session, bronze: Handle, key: Sequence[str], began: int, counted: int) -> Iterator[Batch]:
    """Yield delete events for the keys that live in bronze and have no event since `began`.

    They get `began` as their `_pos`: whatever the log says of their key from then on is newer.

    Args:
        bronze: the table, with the whole snapshot that began at `began`.
        counted: the running count of events that the batches go on from.
    """
    import pyarrow as pa

    relation = session.lake_relation(bronze)
    if not session.execute(f"SELECT 1 FROM {relation} WHERE _pos < {began} LIMIT 1"):  # noqa: S608
        return
    keys = ", ".join(quote(name) for name in key)
    complete = " AND ".join(f"{quote(name)} IS NOT NULL" for name in key)
    session.execute(
        f"CREATE OR REPLACE TEMP TABLE gone AS SELECT {keys} FROM {relation} WHERE {complete} GROUP BY {keys} "  # noqa: S608
        f"HAVING max(_pos) < {began} AND arg_max(_op, (_pos, _seq)) <> {literal(DELETE)} AND max(_pos) >= coalesce("
        f"(SELECT max(_pos) FROM {relation} WHERE _op = {literal(TRUNCATE)}), 0)"
    )
    if not session.execute("SELECT 1 FROM gone LIMIT 1"):
        return
    schema = bronze.schema()
    row = pa.schema([schema.field(name) for name in key])
    own = pa.schema([*row, *event_fields(row)])
    # Their place is behind the events before the snapshot, and before all rows of it.
    sql = (
        f"SELECT {keys}, {literal(DELETE)} AS _op, {began}::BIGINT AS _pos, "  # noqa: S608
        f"(-9223372036854775808 + row_number() OVER ())::BIGINT AS _seq, {literal(ORIGIN)} AS _origin FROM gone"
    )
    from etl_resources.delta.evolution import conform

    for batch in session.stream(sql, ROWS):
        counted += batch.num_rows
        yield Batch(conform(batch, own, where=bronze.table.name), counted)
