"""Follows the events of a log: which transaction they belong to, where it stands, and which streams they are for."""

from __future__ import annotations

import re
from collections.abc import Callable

from etl_resources.changes import mysql_events as ev
from etl_resources.changes.mysql_collect import Collector
from etl_resources.changes.mysql_events import Event
from etl_resources.changes.mysql_gtid import GtidSet, parse_set
from etl_resources.changes.mysql_pending import Transaction
from etl_resources.changes.mysql_position import Cursor, encoded
from etl_resources.changes.mysql_statements import control
from etl_resources.exceptions import LogLostError

_GTIDS = frozenset({ev.MARIADB_GTID, ev.GTID, ev.ANONYMOUS_GTID, ev.TAGGED_GTID})
_XA_NAME = re.compile(r"XA\s+(?:START|BEGIN|COMMIT|ROLLBACK)\s+(.*?)\s*(?:ONE\s+PHASE)?\s*$", re.IGNORECASE | re.DOTALL)
Reread = Callable[[str, int, Transaction], None]


class Follower:
    """Takes events in; what is decoded waits in `collector`. `cursor()` is the end of the last whole transaction."""

    def __init__(self, start: Cursor, collector: Collector, *, mariadb: bool, reread: Reread, where: str) -> None:
        self.collector, self.where = collector, where
        self.server, self.base, self.file, self.place = start.server, start.base, start.file, start.place
        self._born, self._anchor = start.born, start.anchor
        self._gtids: GtidSet | None = None if start.gtid is None else parse_set(start.gtid, mariadb=mariadb)
        self._prepared: dict[str, tuple[str, int]] = dict(start.prepared)
        self._reread = reread
        self._group: Transaction | None = None
        self._group_at = start.place
        self._gtid: str | None = None
        self._alone = self._is_begun = self._is_named = False
        self._xa: str | None = None
        self._kinds: dict[int, Callable[[Event], None]] = {
            **dict.fromkeys(_GTIDS, self._begin), ev.XID: self._end_of_transaction,
            ev.QUERY: self._statement, ev.QUERY_COMPRESSED: self._statement, ev.XA_PREPARE: self._prepare,
            ev.PAYLOAD: self._payload, ev.FORMAT: self._format,
            ev.INCIDENT: self._impossible, ev.PARTIAL_ROWS: self._impossible,
        }  # fmt: skip
        self.committed = 0
        """When the last transaction was committed, in microseconds since 1970."""
        self.moved = False
        """There was a transaction since the last boundary."""

    @property
    def between(self) -> bool:
        """No transaction is open."""
        return self._group is None

    @property
    def pos(self) -> int:
        """Where the log is read to."""
        return encoded(self.base, self.file, self.place)

    def reached(self, pos: int) -> bool:
        """Return whether all transactions up to a place have been taken in."""
        return self._group is None and self.pos >= pos

    def cursor(self) -> Cursor:
        """Return the place, which is between two transactions."""
        gtid = None if self._gtids is None else str(self._gtids)
        return Cursor(
            self.server, self.base, self.file, self.place, self._born, self._anchor, gtid, dict(self._prepared)
        )

    def handle(self, event: Event) -> None:
        """Take in one event.

        Raises:
            LogLostError: the log says that changes are missing from it, or a table is no longer the one it was.
        """
        kind = event.kind
        if kind == ev.ROTATE:
            self._rotate(event)
            return
        is_stored = event.is_stored
        if is_stored:
            # The header has only 32 bits of the place.
            self.place += (event.end - self.place) % 2**32
        self._take(event)
        if self._group is None and is_stored:
            self._anchor = (self.place - event.size, event.crc)

    def _take(self, event: Event) -> None:
        kind = event.kind
        if kind in ev.ROWS:
            self.collector.rows(event, self._opened(event))
        elif kind == ev.TABLE_MAP:
            self.collector.table(event)
        elif (does := self._kinds.get(kind)) is not None:
            does(event)

    def _end_of_transaction(self, _: Event) -> None:
        self._end()

    def _payload(self, event: Event) -> None:
        for inner in ev.payload(event):
            self._take(inner)

    def _format(self, event: Event) -> None:
        self._interrupted()
        self._born = event.timestamp
        self.collector.forget_tables()

    def _rotate(self, event: Event) -> None:
        """Go to another file; the server also says by it, without any place, where it begins to send."""
        file, place = ev.rotation(event)
        if file != self.file:
            self._interrupted()
            self._born = self._anchor = None
        elif not event.is_stored:
            return
        self.file, self.place = file, place

    def _interrupted(self) -> None:
        """Forget a transaction that a crash of the server has cut off: its file ends in the middle of it."""
        if self._group is not None:
            self.collector.undo(self._group)
            self._group = None

    def _begin(self, event: Event) -> None:
        said = ev.group(event)
        if said.tagged:
            self._gtids = None
        self._interrupted()
        place = f"{self.file}:{self.place}"
        origin = said.server if said.gtid and said.server != self.server else None
        self._group = Transaction(self.pos, said.gtid or place, said.committed, origin)
        self._gtid, self._alone, self._is_begun, self._xa = said.gtid, said.alone, False, said.prepared
        self._group_at = self.place - event.size
        self.collector.skipped = said.prepared is not None

    def _opened(self, event: Event) -> Transaction:
        """Return the transaction; a server of before GTIDs names none."""
        if self._group is None:
            self._group = Transaction(self.pos, f"{self.file}:{self.place}", event.timestamp * 1_000_000)
            self._gtid, self._alone, self._is_begun, self._xa = None, False, True, None
            self._group_at, self.collector.skipped = self.place - event.size, False
        return self._group

    def _statement(self, event: Event) -> None:
        database, text = ev.query(event)
        does = control(text)
        transaction = self._opened(event)
        if does == "begin":
            self._is_begun = True
        elif does == "commit":
            self._end()
        elif does == "rollback":
            self.collector.undo(transaction)
            self._end()
        elif does == "prepare":
            self._is_begun, self._xa, self.collector.skipped = True, _xa_name(text), True
        elif does == "decide":
            self._decide(_xa_name(text), is_commit=text[:9].upper() == "XA COMMIT", transaction=transaction)
            self._end()
        elif does != "nothing":
            self.collector.statement(text, database, transaction)
            if self._alone or not self._is_begun:
                self._end()

    def _prepare(self, event: Event) -> None:
        """End an XA transaction whose fate comes later, unless it is committed at once."""
        touched, self.collector.skipped = self.collector.was_skipped(), False
        one_phase = event.body[:1] == b"\x01"
        if touched and one_phase and self._group is not None:
            self._reread(self.file, self._group_at, self._group)
        elif touched and self._xa:
            self._prepared[self._xa] = (self.file, self._group_at)
        self._end()

    def _decide(self, name: str, *, is_commit: bool, transaction: Transaction) -> None:
        """Read again the rows of a prepared transaction, now that it is committed."""
        if (stands := self._prepared.pop(name, None)) is not None and is_commit:
            self._reread(*stands, transaction)

    def _end(self) -> None:
        if self._group is not None:
            self.committed = self._group.committed
        if self._gtid is not None and self._gtids is not None:
            self._gtids.add(self._gtid)
        self._group, self._gtid, self.moved = None, None, True
        self.collector.skipped = False

    def _impossible(self, event: Event) -> None:
        if event.kind == ev.INCIDENT:
            raise LogLostError(
                "the server has noted in its binlog that changes are missing from it",
                where=f"{self.file}:{self.place}, {self.where}",
                fix="read the streams anew: etl capture resnapshot",
            )  # fmt: skip
        if self.collector.concerns_last_table():
            raise LogLostError(
                "an update was logged as parts of a JSON document", where=f"{self.file}:{self.place}, {self.where}",
                fix="SET GLOBAL binlog_row_value_options = '', and read the stream anew: etl capture resnapshot",
            )  # fmt: skip


def _xa_name(text: str) -> str:
    found = _XA_NAME.match(text)
    return found[1] if found else text
