"""Whether what has been read is still part of the history of the server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from etl_resources.changes.postgres_link import RESNAPSHOT
from etl_resources.changes.postgres_position import Cursor, Server, lsn
from etl_resources.exceptions import LogLostError

if TYPE_CHECKING:
    from etl_resources.postgres import PostgresConnection


def check(cursor: Cursor, server: Server, connection: PostgresConnection, stream: str) -> None:
    """Make sure that a cursor belongs to this server, and to a time before its history took another way.

    Raises:
        LogLostError: it does not.
    """
    before, what = cursor.server, ""
    if before.system != server.system:
        what = "this is another PostgreSQL cluster than the one that was followed"
    elif before.database != server.database:
        what = f"this is database {server.database}, and {before.database} was followed"
    elif before.timeline != server.timeline:
        left = branches(connection, server.timeline).get(before.timeline)
        if left is None or cursor.end > left:
            what = (
                f"the server was promoted or restored (timeline {before.timeline}, now {server.timeline}), and changes"
                " that were read are not part of its history"
            )
    if what:
        raise LogLostError(f"stream {stream}: {what}", where=connection.address, fix=RESNAPSHOT, streams=[stream])


def branches(connection: PostgresConnection, timeline: int) -> dict[int, int]:
    """Return earlier timelines of the server -> where in the log it left them.

    Asked over the replication protocol: the file is closed to most users.
    """
    import psycopg

    with connection.client(replication=True) as client:
        result = client.pgconn.exec_(f"TIMELINE_HISTORY {timeline}".encode())
        if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
            return {}
        content = result.get_value(0, 1) or b""
    return parsed(content.decode(errors="replace"))


def parsed(history: str) -> dict[int, int]:
    """Return what a history file says: lines of timeline, place in the log, reason."""
    lines = re.findall(r"^\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)", history, re.MULTILINE)
    return {int(number): lsn(place) for number, place in lines}
