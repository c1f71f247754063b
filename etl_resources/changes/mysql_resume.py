"""Where reading goes on: at the place of the streams' positions, or, at another server, behind their transactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etl_resources.changes import mysql_events as ev
from etl_resources.changes.mysql_gtid import MysqlSet
from etl_resources.changes.mysql_position import Cursor, encoded, file_number, following
from etl_resources.exceptions import LogLostError, UnavailableError
from etl_resources.mysql_sql import literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl_resources.changes.mysql_dump import Dump
    from etl_resources.changes.mysql_server import Server

_FIRST = 4
"""Where the first event of a file begins."""
_RENEW = "read the streams anew: etl capture resnapshot"


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin, and on which connection; `elsewhere` are the streams whose places are those of another server."""

    cursor: Cursor
    dump: Dump
    elsewhere: frozenset[str] = frozenset()


def resume(
    server: Server, cursors: Mapping[str, Cursor | None], open_dump: Callable[[], Dump], *, wait: float
) -> Start:
    """Connect at the earliest place of the streams that have one; else at the end of the log.

    Raises:
        LogLostError: the log of this server does not continue what the streams hold.
    """
    known = {name: c for name, c in cursors.items() if c is not None}
    placed = {name: c for name, c in known.items() if not c.is_fresh}
    if not placed:
        return _fresh(server, [*known.values()], open_dump, wait)
    here = {name: c for name, c in placed.items() if c.server == server.identity}
    if len(here) == len(placed):
        first = min(here.values(), key=lambda c: c.pos)
        dump = open_dump()
        try:
            return Start(_at(first, dump, wait), dump)
        except BaseException:
            dump.close(server.session)
            raise
    first = min((c for name, c in placed.items() if name not in here), key=lambda c: c.pos)
    return _elsewhere(server, first, [*known.values()], here, frozenset(placed) - frozenset(here), open_dump)


def _fresh(server: Server, known: list[Cursor], open_dump: Callable[[], Dump], wait: float) -> Start:
    """Begin at the end of the log; positions of before only see to it that `_pos` does not fall."""
    file, place = server.end()
    base = _base(server, known, file, place)
    gtid = server.gtids(file, place)
    if not server.is_mariadb and (server.setting("gtid_mode") or "").upper() == "ON":
        gtid = _gtids_of_mysql(open_dump(), file, place, wait)
    dump = open_dump()
    return Start(_at(Cursor(server.identity, base, file, place, gtid=gtid), dump, wait), dump)


def _base(server: Server, known: list[Cursor], file: str, place: int) -> int:
    """Return what is added to numbers of files, so that a place here is behind all that is known."""
    base = max((c.base for c in known), default=0)
    highest = max((c.pos for c in known), default=-1)
    same = all(c.server == server.identity for c in known)
    if same and encoded(base, file, place) >= highest:
        return base
    return max(c.base + file_number(c.file) for c in known) + 1 - file_number(file)


def _gtids_of_mysql(dump: Dump, file: str, place: int, wait: float) -> str | None:
    """Return the transactions up to a place: those that the file says came before it, and its own.

    What the server says at this moment (gtid_executed) leaves out those that are just about to be committed.
    """
    found: MysqlSet | None = None
    at = 0
    try:
        dump.start(file, _FIRST)
        while at < place:
            if (event := dump.next(wait)) is None:
                raise UnavailableError("the server did not send its log up to its end", where=dump.where)
            if event.kind == ev.PREVIOUS_GTIDS:
                found = MysqlSet.decoded(event.body)
            elif event.kind == ev.TAGGED_GTID:
                return None
            elif event.kind == ev.GTID and found is not None and event.end <= place:
                found.add(str(ev.group(event).gtid))
            at = max(at, event.end if event.is_stored else 0)
    except ValueError:  # tags in the names of transactions
        return None
    finally:
        dump.close()
    return None if found is None else str(found)


def _at(cursor: Cursor, dump: Dump, wait: float) -> Cursor:
    """Ask for the log from a cursor on, and see that it is the log in which the cursor was taken."""
    if cursor.place >= 2**32:  # only the last transaction of a file is there, and nothing can be asked for so far back
        dump.start(following(cursor.file), _FIRST)
        return cursor
    begin = cursor.anchor[0] if cursor.anchor else cursor.place
    dump.start(cursor.file, begin)
    event = _next(dump, {ev.FORMAT}, wait)
    if cursor.born in {None, event.timestamp}:
        born = replace(cursor, born=event.timestamp)
        if cursor.anchor is None or (begin == _FIRST and event.crc == cursor.anchor[1]):
            return born
        if begin != _FIRST and _next(dump, set(), wait).crc == cursor.anchor[1]:
            return born
    raise LogLostError(
        f"the binlog of this server is not the one that was read: {cursor.file} has something else at {begin}",
        where=dump.where, fix=f"after RESET MASTER, or a restored backup: {_RENEW}",
    )  # fmt: skip


def _next(dump: Dump, kinds: set[int], wait: float) -> ev.Event:
    """Return the next event of some kinds, or, where none are given, the next that stands in the log."""
    while (event := dump.next(wait)) is not None:
        if event.kind in kinds or (not kinds and event.is_stored):
            return event
    raise UnavailableError("the server has not begun to send its log", where=dump.where)


def _elsewhere(
    server: Server, first: Cursor, known: list[Cursor], here: Mapping[str, Cursor], names: frozenset[str],
    open_dump: Callable[[], Dump],
) -> Start:  # fmt: skip
    """Go on at a server that has taken over: it knows the transactions by the same global names."""
    if first.gtid is None or (not server.is_mariadb and "-" not in first.gtid):
        raise LogLostError(
            f"this is another server ({server.identity}) than the one that was read ({first.server}), and the position"
            " holds no GTID to go on by", where=server.session.where, fix=_RENEW,
        )  # fmt: skip
    holds = f"SELECT GTID_SUBSET({literal(first.gtid)}, @@GLOBAL.gtid_executed)"
    if not server.is_mariadb and not server.session.value(holds):
        raise LogLostError(
            f"this server ({server.identity}) does not have all transactions that were read from {first.server}",
            where=server.session.where, fix=f"connect to one that has, or {_RENEW}",
        )  # fmt: skip
    file, place = server.files()[0][0], _FIRST
    base = next(iter(here.values())).base if here else _base(server, known, file, place)
    dump = open_dump()
    dump.start_behind(first.gtid)
    return Start(Cursor(server.identity, base, file, place, gtid=first.gtid, prepared={}), dump, names)
