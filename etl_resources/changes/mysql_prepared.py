"""XA transactions: their rows stand in the log where they were prepared, and count where they are committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl_resources.changes import mysql_events as ev
from etl_resources.exceptions import UnavailableError

if TYPE_CHECKING:
    from etl_resources.changes.mysql_collect import Collector
    from etl_resources.changes.mysql_dump import Dump
    from etl_resources.changes.mysql_pending import Transaction


def reread(dump: Dump, file: str, place: int, transaction: Transaction, collector: Collector, *, wait: float) -> None:
    """Give the collector the rows that stand at a place up to where they were prepared, as of `transaction`.

    Raises:
        LogLostError: that part of the log is gone.
    """
    skipped, collector.skipped = collector.skipped, False
    # The numbers of tables are those of that part of the log.
    with collector.apart():
        dump.start(file, place)
        while True:
            if (event := dump.next(wait)) is None:
                raise UnavailableError("the server did not send a prepared transaction", where=dump.where)
            if event.kind == ev.TABLE_MAP:
                collector.table(event)
            elif event.kind in ev.ROWS:
                collector.rows(event, transaction)
            elif event.kind == ev.XA_PREPARE:
                break
    collector.skipped = skipped
