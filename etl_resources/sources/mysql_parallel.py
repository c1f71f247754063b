"""One table read over several connections at once, all of which see the same moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from etl_resources.exceptions import CredentialsRejectedError, UnavailableError
from etl_resources.mysql_sql import quote

if TYPE_CHECKING:
    from etl_resources.mysql import MysqlConnection
    from etl_resources.mysql_session import Session

SNAPSHOT = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
_PATIENCE = 30  # seconds to wait for writers; others wait behind us meanwhile


def ranges(session: Session, relation: str, column: str, parts: int) -> list[str]:
    """Return conditions that cut a table into parts of about equal width of an integer column.

    Every row meets exactly one of them: the first and the last are open, and rows without a value go with the first.
    """
    own = f"t.{quote(column)}"
    low, high = session.rows(f"SELECT MIN({own}), MAX({own}) FROM {relation} AS t")[0]  # noqa: S608 - names are quoted
    if low is None:
        return ["TRUE"]
    low, high = int(low), int(high)
    cuts = sorted({low + (high - low + 1) * n // parts for n in range(1, parts)} - {low})
    if not cuts:
        return ["TRUE"]
    between = [f"{own} >= {a} AND {own} < {b}" for a, b in pairwise(cuts)]
    return [f"{own} < {cuts[0]} OR {own} IS NULL", *between, f"{own} >= {cuts[-1]}"]


@contextmanager
def same_moment(connection: MysqlConnection, relation: str, count: int) -> Iterator[list[Session]]:
    """Give sessions in which one table looks the same: nobody writes to it while their snapshots begin.

    Raises:
        CredentialsRejectedError: the user may not lock the table.
        UnavailableError: a transaction that has written to it did not end in time.
    """
    with ExitStack() as stack:
        sessions = [stack.enter_context(connection.session()) for _ in range(count)]
        with connection.session() as gate:
            try:
                gate.execute(f"SET SESSION lock_wait_timeout = {_PATIENCE}", f"LOCK TABLES {relation} READ")
            except CredentialsRejectedError as error:
                raise CredentialsRejectedError(
                    error.what, where=error.where, fix="GRANT LOCK TABLES on the database, or leave out `parallel`"
                ) from error
            except UnavailableError as error:
                raise UnavailableError(
                    f"{error.what}: a transaction that wrote to the table has been open for {_PATIENCE} s",
                    where=error.where, fix="end it, or leave out `parallel`",
                ) from error  # fmt: skip
            for session in sessions:
                session.execute(SNAPSHOT)
            gate.execute("UNLOCK TABLES")
        yield sessions
