"""SQL over the bronze batches that a silver table is made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from etl_assets.partitions import BatchInfo, Part
from etl_assets.silver_query import Verdict
from etl_resources.engines.duckdb import Session, quote

if TYPE_CHECKING:
    from etl_resources.lake import Handle


def rows_between(session: Session, bronze: Handle, above: int, upto: int, but: Collection[int] = ()) -> str:
    """Return SQL after FROM: the bronze rows with `above < _batch <= upto`, without some batches."""
    scan = session.lake_relation(bronze, column="_batch", above=above)
    without = f" AND _batch NOT IN ({', '.join(map(str, sorted(but)))})" if but else ""
    return f"(SELECT * FROM {scan} WHERE _batch > {above} AND _batch <= {upto}{without})"  # noqa: S608


def outside(batches: Sequence[BatchInfo]) -> list[Verdict]:
    """Return the verdict on rows that are not in the partition that their batch is a reading of."""
    parts = [(batch.number, batch.part) for batch in batches if batch.part is not None]
    if not parts:
        return []
    arms = " ".join(f"WHEN {number} THEN NOT coalesce({part.contains('t')}, false)" for number, part in parts)
    column = parts[0][1].column
    reason = f"{column} is outside of the partition that was read"
    return [Verdict("rejected", f"partition.{column}", reason, f"CASE t._batch {arms} ELSE false END")]


def elsewhere(current: str, part: Part, key: Sequence[str]) -> Verdict:
    """Return the verdict on rows whose key is in another partition, where this work may change nothing."""
    same = " AND ".join(f"x.{quote(name)} = t.{quote(name)}" for name in key)
    sql = f"EXISTS (SELECT 1 FROM {current} x WHERE {same} AND NOT coalesce({part.contains('x')}, false))"  # noqa: S608
    return Verdict("rejected", "partition.key", "the key is in another partition: run that one again first", sql)


def alive(relation: str, key: Sequence[str], snapshots: Sequence[int]) -> str:
    """Return SQL after FROM: (key, `_batch`) of the versions whose key is in every later snapshot as well.

    A snapshot without a key deletes it, whatever the versions before it were.
    """
    keys = ", ".join(quote(name) for name in key)
    complete = " AND ".join(f"{quote(name)} IS NOT NULL" for name in key)
    number = f"list_position([{', '.join(map(str, snapshots))}], _batch)"
    return (
        f"(SELECT {keys}, _batch FROM (SELECT DISTINCT {keys}, _batch, {number} AS __number FROM {relation} "  # noqa: S608
        f"WHERE {complete}) QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY __number DESC) "
        f"= {len(snapshots)} - __number + 1)"
    )
