"""Tells a PostgreSQL server that works from one that is gone: both say nothing.

A statement may work for long before its first row comes, so silence alone proves nothing. After a while of it the
server is asked over another connection what the first one does. If it is not at work, or believes that it is sending to
us, or cannot be asked, the first connection is hung up on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import EtlError
from etl_resources.lifeline import Lifeline
from etl_resources.postgres_errors import translated

if TYPE_CHECKING:
    import psycopg

    from etl_resources.resilience import Policy

_AT_WORK = "SELECT state = 'active' AND wait_event IS DISTINCT FROM 'ClientWrite' FROM pg_stat_activity WHERE pid = %s"


def at_work(conninfo: str, pid: int, policy: Policy, where: str) -> Callable[[], bool]:
    """Return what asks the server whether its process `pid` is at work; takes about `policy.timeout` at the most."""

    def ask() -> bool:
        import psycopg

        # Whatever stands in the way of the question is the answer.
        try:
            with translated(where), psycopg.connect(conninfo, autocommit=True) as connection:
                line = Lifeline.of_descriptor(connection.fileno(), policy.timeout, where)
                try:
                    with line.watched():
                        found = connection.execute(_AT_WORK, [pid]).fetchone()
                finally:
                    line.close()
        except EtlError as error:
            # Except that a server that says that it has no connection to spare is there, and has work.
            return "too many" in error.what
        return found is not None and bool(found[0])

    return ask


def lifeline(client: psycopg.Connection[Any], conninfo: str, policy: Policy, where: str) -> Lifeline:
    """Return what hangs up on a connection once the server is gone."""
    line = Lifeline.of_descriptor(client.fileno(), policy.silence, where)
    line.at_work = at_work(conninfo, client.info.backend_pid, policy, where)
    return line
