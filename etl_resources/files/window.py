"""The part of a file's rows that belongs to one partition, by event time."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from etl_resources.engines.kept import database
from etl_resources.exceptions import NotFoundError
from etl_resources.files.chunks import Chunk, Unreadable
from etl_resources.source import Window

if TYPE_CHECKING:
    import pyarrow as pa


def restrict(chunk: Chunk, window: Window, origin: str) -> Chunk:
    """Return the rows of a chunk whose event time lies in the window; `records` are then those, and the unreadable.

    The column is a date, a timestamp, or an ISO 8601 string; without a zone it is UTC. A row whose event time is empty
    or no time belongs to no window, and is handed on as unreadable with every one.

    Raises:
        NotFoundError: the column is not there.
    """
    table = chunk.data
    if table is None or not table.num_columns:
        return chunk
    if window.column not in table.column_names:
        raise NotFoundError(
            f"no column {window.column} to partition by", where=origin, fix=f"there are {', '.join(table.column_names)}"
        )
    quoted = window.column.replace('"', '""')
    event = f'TRY_CAST("{quoted}" AS TIMESTAMPTZ)'
    with database(None, {"threads": 1}) as connection:  # in UTC: what a time without zone is taken for
        connection.register("chunk", table)
        inside: pa.Table = connection.sql(
            f"SELECT * FROM chunk WHERE {event} >= ? AND {event} < ?",  # noqa: S608 - the name is quoted
            params=[_utc(window.start), _utc(window.end)],
        ).to_arrow_table()
        undated = connection.execute(
            f"SELECT to_json(chunk)::VARCHAR FROM chunk WHERE {event} IS NULL"  # noqa: S608
        ).fetchall()
    reason = f"{window.column} holds no time, so the row belongs to no partition"
    unreadable = chunk.unreadable + [Unreadable(reason, row.encode(), 0) for (row,) in undated]
    return Chunk(inside.cast(table.schema), inside.num_rows + len(unreadable), unreadable)


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment
