"""A moment of the database whose place in the log is known exactly: what the parts of a snapshot are read at.

MariaDB tells the place at which a consistent snapshot stands. MySQL does not: there the table is locked against writers
(`LOCK TABLES … READ` is granted when all that has been written to it is committed, and in the log) for as long as it
takes to begin the snapshot and to ask where the log ends; for this table the two are the same moment. A table of an
engine without transactions stays locked until its part has been read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.changes.mysql_position import encoded
from etl_resources.exceptions import UnavailableError
from etl_resources.mysql_sql import literal
from etl_resources.sources.mysql_parallel import SNAPSHOT

if TYPE_CHECKING:
    from etl_resources.changes.mysql_server import Server
    from etl_resources.mysql import MysqlConnection
    from etl_resources.mysql_session import Session
    from etl_resources.sources.mysql_plan import Plan

_TRANSACTIONAL = frozenset({"innodb", "rocksdb", "ndbcluster"})
_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Moment:
    """`session` sees the database as it was after all transactions up to a place in the log, and no other."""

    session: Session
    file: str
    place: int
    held: bool
    """Writers wait until this is over: read at once, and work afterwards."""


def is_transactional(session: Session, database: str, table: str) -> bool:
    """Return whether a consistent snapshot holds for a table."""
    found = session.rows(
        "SELECT engine FROM information_schema.tables"  # noqa: S608 - literals
        f" WHERE table_schema = {literal(database)} AND table_name = {literal(table)}"
    )
    return bool(found) and str(found[0][0]).lower() in _TRANSACTIONAL


@contextmanager
def moment(
    connection: MysqlConnection, server: Server, plan: Plan, *, base: int, not_before: int, lock_wait: float,
    transactional: bool,
) -> Iterator[Moment]:  # fmt: skip
    """Give a moment for one table at a place of the log that is not before `not_before` (a `_pos`).

    Raises:
        UnavailableError: transactions kept the table locked for longer than `lock_wait` seconds.
    """
    deadline = time.monotonic() + connection.resilience.timeout
    while True:
        with ExitStack() as stack:
            if server.is_mariadb and transactional:
                found = _snapshot_of_mariadb(server.session)
                stack.callback(server.session.execute, "ROLLBACK")
            else:
                found = _locked(stack, connection, server, plan, lock_wait=lock_wait, transactional=transactional)
            if encoded(base, found.file, found.place) >= not_before:
                yield found
                return
        # What the log holds already is not visible yet: its transactions are about to end.
        if time.monotonic() > deadline:
            raise UnavailableError("no snapshot could be taken at the end of the binlog", where=plan.where)
        time.sleep(_PAUSE)


def _snapshot_of_mariadb(session: Session) -> Moment:
    session.execute(SNAPSHOT)
    status = dict(session.rows("SHOW STATUS LIKE 'binlog_snapshot_%'"))
    place = {str(name).lower(): value for name, value in status.items()}
    return Moment(session, str(place["binlog_snapshot_file"]), int(place["binlog_snapshot_position"]), held=False)


def _locked(
    stack: ExitStack, connection: MysqlConnection, server: Server, plan: Plan, *, lock_wait: float, transactional: bool
) -> Moment:
    locking = stack.enter_context(connection.session())
    try:
        locking.execute(
            f"SET SESSION lock_wait_timeout = {max(1, round(lock_wait))}",
            f"LOCK TABLES {plan.relation} AS t READ",
        )
    except UnavailableError as error:
        raise UnavailableError(
            f"transactions have kept the table from being locked for {lock_wait:g} s: {error.what}", where=plan.where,
            fix="run again when they have ended, or raise `lock_wait` (writers wait as well meanwhile)",
        ) from error  # fmt: skip
    if not transactional:
        file, place = server.end()
        return Moment(locking, file, place, held=True)
    server.session.execute(SNAPSHOT)
    stack.callback(server.session.execute, "ROLLBACK")
    reading = server.session
    file, place = type(server)(locking, server.identity, server.version).end()
    locking.execute("UNLOCK TABLES")
    return Moment(reading, file, place, held=False)
