"""Whether the lake has what the source has: checksums by segment, and row by row where they differ.

The source is read in one snapshot, the log is then brought to that moment and beyond it, and the lake is compared as of
exactly that moment: events that the snapshot does not contain are left out. So whoever writes meanwhile makes no
difference. Compared are the columns as the log has them, before any step; then silver is held against the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etl_assets.reconcile_lake import comparable, create_state, find_doubled, segments
from etl_assets.reconcile_silver import find_silver_differences
from etl_assets.silver_extent import rows_between
from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    from etl_assets.capture import Capture
    from etl_assets.silver import Silver
    from etl_resources.compared import ComparedColumn, ComparedTable
    from etl_resources.engines.duckdb import Session
    from etl_resources.lake import Handle
    from etl_resources.source import Position

ROWS = 2_000
"""Rows of a segment, about."""
MOST_SEGMENTS = 65_536


@dataclass(frozen=True)
class Difference:
    """A key, as text, on which source, log and silver disagree."""

    key: tuple[str | None, ...]
    what: str


@dataclass(frozen=True)
class Reconciled:
    """What a comparison found."""

    rows: int
    """Of the source."""
    segments: int
    differing_segments: int
    differing: int
    """Number of differences."""
    differences: Sequence[Difference]
    """Some of them."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Columns that were not compared with the source -> why."""

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return self.differing == 0


def reconcile(capture: Capture, silver: Silver, catch_up: Callable[[], Any], *, limit: int = 20) -> Reconciled:
    """Compare a captured table with its source.

    Args:
        catch_up: lands the log as far as it goes when the call is made, or further.
        limit: how many differences are returned one by one.

    Raises:
        ConfigurationError: the log cannot be compared, the table was never read whole, or its key cannot be compared.
        UnavailableError, NotFoundError: as their names say.
    """
    name = silver.spec.name
    with capture.log.compared(name) as source:
        before = silver.bronze.open()
        if before is None:
            raise ConfigurationError("it was never read", where=silver.bronze.name, fix="run the pipeline first")
        _check_read(capture, name, source, before)
        columns, left_out = comparable(before.schema(), source.columns)
        _check_key(silver, columns)
        number = max(1, min(before.rows() // ROWS, MOST_SEGMENTS))
        theirs = source.segments(number, columns)
        catch_up()
        bronze = silver.bronze.open()
        assert bronze is not None  # noqa: S101 - it was there before
        position = _check_read(capture, name, source, bronze)
        with silver.engine.session() as session:
            session.connection.register("theirs", theirs)
            session.execute("CREATE TEMP TABLE differences (key VARCHAR[], what VARCHAR)")
            apart = _compare(session, silver, bronze, source, _Extent(columns, number, source.seen(position)))
            find_doubled(session, bronze, silver.spec.log_key)
            find_silver_differences(silver, session, bronze)
            total = int(session.execute("SELECT count(*) FROM differences")[0][0])
            some = session.execute(f"SELECT key, what FROM differences ORDER BY ALL LIMIT {limit}")  # noqa: S608
    return Reconciled(
        sum(theirs["rows"].to_pylist()),
        number,
        apart,
        total,
        [Difference(tuple(key), what) for key, what in some],
        {**source.left_out, **left_out},
    )


@dataclass(frozen=True)
class _Extent:
    """What is compared, and into how many segments it is divided."""

    columns: Sequence[ComparedColumn]
    number: int
    seen: str
    """Condition for the events of the log that are compared."""


def _check_read(capture: Capture, name: str, source: ComparedTable, bronze: Handle) -> Position:
    """Return the position; before the snapshot as well as after it, the table has to be read."""
    position = capture.bronzes[name].position_at(bronze)
    why = source.unfinished(position)
    if why is not None:
        raise ConfigurationError(why, where=capture.bronzes[name].app_id, fix="run the pipeline until it has")
    assert position is not None  # noqa: S101 - of a table without one the source says why
    return position


def _check_key(silver: Silver, columns: Sequence[ComparedColumn]) -> None:
    names = [column.name for column in columns]
    missing = [name for name in silver.spec.log_key if name not in names]
    if missing:
        raise ConfigurationError(
            f"key column {missing[0]} is of a type that cannot be compared",
            where=silver.bronze.name,
            fix="docs/cdc.md has the types; `etl capture resnapshot` reads the table anew, whatever is wrong",
        )


def _compare(session: Session, silver: Silver, bronze: Handle, source: ComparedTable, extent: _Extent) -> int:
    """Add the keys on which source and log differ to `differences`; returns the number of segments that do."""
    import pyarrow as pa

    key, number = silver.spec.log_key, extent.number
    upto = bronze.committed(silver.bronze.name)
    log = f"(SELECT * FROM {rows_between(session, bronze, 0, upto)} WHERE {extent.seen})"  # noqa: S608
    create_state(session, log, key, extent.columns, number)
    found = session.execute(
        f"SELECT coalesce(o.segment, t.segment) FROM {segments()} o FULL JOIN theirs t ON t.segment = o.segment "  # noqa: S608
        "WHERE (o.rows, o.total) IS DISTINCT FROM (t.rows, t.total)"
    )
    apart = [segment for (segment,) in found]
    if not apart:
        return 0
    names = [f"k{n}" for n in range(len(key))]
    shape = pa.schema([*((name, pa.string()) for name in names), ("hash", pa.int64())])
    batches = (batch.cast(shape) for batch in source.rows(number, apart, extent.columns))
    session.connection.register("their_rows", pa.RecordBatchReader.from_batches(shape, batches))
    session.execute("CREATE OR REPLACE TEMP TABLE theirs_apart AS SELECT * FROM their_rows")
    same = " AND ".join(f"o.{name} IS NOT DISTINCT FROM t.{name}" for name in names)
    keys = ", ".join(f"coalesce(o.{name}, t.{name})" for name in names)
    session.execute(
        f"INSERT INTO differences SELECT [{keys}], CASE WHEN o.hash IS NULL THEN 'missing in the lake' "  # noqa: S608
        "WHEN t.hash IS NULL THEN 'not in the source' ELSE 'other values in the lake' END "
        f"FROM (SELECT * FROM state WHERE segment IN (SELECT unnest({apart}))) o "
        f"FULL JOIN theirs_apart t ON {same} WHERE o.hash IS DISTINCT FROM t.hash"
    )
    return len(apart)
