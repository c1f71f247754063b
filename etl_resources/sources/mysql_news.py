"""Whether anything was written since somebody looked: what a sensor asks, without looking at any table.

Three things, of which each changes with a commit that the others may not show: the transactions in the binary log
(those of every engine, but not of a session that leaves the log out); InnoDB's count of writes, which moves when a
statement writes and not when it is committed; and therefore the transactions that are open and have written, of which
one is gone when it has been committed. The count is taken before the list: what writes in between is on the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import CredentialsRejectedError
from etl_resources.sources.mysql_horizon import writers

if TYPE_CHECKING:
    from etl_resources.mysql_session import Session

_COUNTS = ("Innodb_max_trx_id", "Innodb_rows_deleted", "Innodb_rows_inserted", "Innodb_rows_updated")
"""The first is MariaDB's, the others are MySQL's."""


def news(session: Session) -> dict[str, Any] | None:
    """Return what differs once something has been written to the server, to whatever table; None: nobody can tell.

    A rollback changes it, too.
    """
    logged = _logged(session)
    counts = [list(row) for row in session.rows(f"SHOW GLOBAL STATUS WHERE Variable_name IN {_COUNTS!r}")]
    try:
        still = writers(session)
    except CredentialsRejectedError:
        # Without the privilege PROCESS the counts do not tell when a transaction is committed.
        return {"logged": logged} if logged else None
    if not logged and not counts:
        return None
    return {"logged": logged, "written": sorted(counts), "open": still}


def _logged(session: Session) -> str | None:
    """Return which transactions are in the binary log; None: there is none, or it does not number them."""
    if not int(session.value("SELECT @@GLOBAL.log_bin")):
        return None
    variable = "gtid_binlog_pos" if session.is_mariadb else "gtid_executed"
    return str(session.value(f"SELECT @@GLOBAL.{variable}")) or None
