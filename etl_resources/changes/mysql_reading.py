"""One read of the log: its ticks, with the parts of snapshots between them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from etl_resources.change_log import Boundary, Changes, Lag
from etl_resources.changes.mysql_changes import Streamed
from etl_resources.changes.mysql_charsets import Charsets
from etl_resources.changes.mysql_collect import Collector, Stream
from etl_resources.changes.mysql_events import HEARTBEAT, HEARTBEAT_2, Event
from etl_resources.changes.mysql_follow import Follower
from etl_resources.changes.mysql_gtid import parse_set
from etl_resources.changes.mysql_moment import is_transactional, moment
from etl_resources.changes.mysql_pending import Transaction
from etl_resources.changes.mysql_position import Cursor, Progress, encoded
from etl_resources.changes.mysql_prepared import reread
from etl_resources.changes.mysql_resume import resume
from etl_resources.changes.mysql_snapshot import Snapshot, walk
from etl_resources.exceptions import EtlError
from etl_resources.source import Position

if TYPE_CHECKING:
    from etl_resources.changes.mysql import MysqlLog
    from etl_resources.changes.mysql_server import Server
    from etl_resources.changes.mysql_shapes import Definition

_LONGEST_TICK = 30.0
"""Seconds after which a backlog without changes of ours is committed as well: a kill does not throw us back far."""


class Reading:
    """State of one `read`."""

    def __init__(
        self, log: MysqlLog, server: Server, definitions: list[Definition], since: Mapping[str, Position | None],
        stack: ExitStack,
    ) -> None:  # fmt: skip
        self.log, self.server, self.stack, self.capture = log, server, stack, log.capture
        self.where, self.wait = log.source.address, log.source.resilience.timeout
        self.cursors = {d.name: Cursor.from_position(p) if (p := since.get(d.name)) else None for d in definitions}
        start = resume(server, self.cursors, log.dump, wait=self.wait)
        self.dump, self._is_deaf = start.dump, False
        stack.callback(self._hang_up)
        self.base = start.cursor.base
        charsets, streams = Charsets(server.session), []
        for definition in definitions:
            cursor = self.cursors[definition.name]
            is_new = cursor is None or cursor.is_fresh
            streamed = Streamed(start.cursor.pos if is_new or cursor is None else cursor.pos, charsets, self.where)
            if definition.name in start.elsewhere and cursor is not None and cursor.gtid is not None:
                streamed.cursor, streamed.held = -1, parse_set(cursor.gtid, mariadb=server.is_mariadb)
            streams.append(Stream(definition, streamed, self._end() if is_new else -1))
        folded = server.session.value("SELECT @@lower_case_table_names") != 0
        self.collector = Collector(
            streams,
            lambda d: log.define(server.session, d.log_table),
            mariadb=server.is_mariadb,
            folded=folded,
            where=self.where,
        )
        self.follower = Follower(
            start.cursor, self.collector, mariadb=server.is_mariadb, reread=self._reread, where=self.where
        )
        self.snapshots = {s.definition.name: self._snapshot(s) for s in streams}
        self._committed_rows, self._since_boundary = 0, time.monotonic()

    def _hang_up(self) -> None:
        self.dump.close(None if self._is_deaf else self.server.session)

    def _end(self) -> int:
        """Return `_pos` of the end of the log."""
        return encoded(self.base, *self.server.end())

    def _snapshot(self, stream: Stream) -> Snapshot | None:
        cursor = self.cursors[stream.definition.name]
        progress = Progress() if cursor is None else cursor.snapshot
        if progress is None:
            return None
        return Snapshot(stream, progress, walk(self.server.session, stream.definition))

    def ticks(self) -> Iterator[Changes | Boundary]:
        """Yield all ticks of the read."""
        try:
            yield from self._ticks()
        except EtlError:
            self._is_deaf = True
            raise

    def _ticks(self) -> Iterator[Changes | Boundary]:
        deadline = time.monotonic() + self.capture.lasts
        is_continuous = self.capture.mode == "continuous"
        yield from self._up_to(self._end(), boundaries=True)
        while any(self.snapshots.values()):
            yield from self._parts()
            if is_continuous and time.monotonic() > deadline:
                break
            yield from self._up_to(self._end(), boundaries=True)
        if is_continuous:
            yield from self._follow(deadline)
        yield from self._flushed()
        yield self._boundary(caught_up=not any(self.snapshots.values()))

    def _up_to(self, pos: int, *, boundaries: bool) -> Iterator[Changes | Boundary]:
        """Read the log to the first end of a transaction that is not before `pos`."""
        follower, collector = self.follower, self.collector
        while not follower.reached(pos):
            event = self.dump.next(self.capture.heartbeat)
            if event is None:
                continue
            if event.kind == HEARTBEAT and follower.between and self._place_of(event) >= pos:
                return  # all up to there has been sent, or left out
            follower.handle(event)
            if collector.ready:
                yield from collector.take()
            if boundaries and follower.between and self._is_due():
                yield from self._flushed()
                yield self._boundary(caught_up=False)

    def _place_of(self, heartbeat: Event) -> int:
        return encoded(self.base, heartbeat.body.decode(errors="replace"), heartbeat.end)

    def _is_due(self) -> bool:
        rows = self.collector.rows_read - self._committed_rows + self.collector.waiting
        return rows >= self.capture.commit_rows or time.monotonic() - self._since_boundary > _LONGEST_TICK

    def _follow(self, deadline: float) -> Iterator[Changes | Boundary]:
        """Read what comes, as it comes; a boundary every so often, and as soon as nothing more is there."""
        follower, collector, every = self.follower, self.collector, self.capture.every
        while (now := time.monotonic()) < deadline:
            due = self._since_boundary + every
            wait = due - now if follower.moved and due > now else min(every, deadline - now)
            event = self.dump.next(max(wait, 0.0))
            if event is not None:
                follower.handle(event)
                yield from collector.take()
            is_idle = event is None or event.kind in {HEARTBEAT, HEARTBEAT_2}
            if follower.between and follower.moved and (time.monotonic() >= due or self._is_due()):
                yield from self._flushed()
                yield self._boundary(caught_up=is_idle or not self.dump.is_waiting)

    def _parts(self) -> Iterator[Changes | Boundary]:
        """Yield the next part of each snapshot, each at a moment up to which the log has been read."""
        ended: dict[str, int] = {}
        for name, snapshot in self.snapshots.items():
            if snapshot is None:
                continue
            definition = snapshot.stream.definition
            transactional = is_transactional(self.server.session, definition.database, definition.table)
            with moment(
                self.log.source, self.server, definition.plan, base=self.base, not_before=self.follower.pos,
                lock_wait=self.capture.lock_wait, transactional=transactional,
            ) as at:  # fmt: skip
                pos = encoded(self.base, at.file, at.place)
                rows = snapshot.part(at.session, pos, self.capture.snapshot_rows)
                if at.held:
                    rows = iter(list(rows))
                else:
                    yield from self._up_to(pos, boundaries=False)
                    yield from self._flushed()
                    self._is_deaf = True
                    yield from rows
                    self._is_deaf = False
            if at.held:
                yield from self._up_to(pos, boundaries=False)
                yield from self._flushed()
                yield from rows
            if snapshot.ended:
                ended[name] = snapshot.progress.began or 0
        for name in ended:
            self.snapshots[name] = None
        yield self._boundary(caught_up=False, swept=ended)

    def _flushed(self) -> Iterator[Changes]:
        self.collector.flush()
        yield from self.collector.take()

    def _boundary(self, *, caught_up: bool, swept: Mapping[str, int] | None = None) -> Boundary:
        cursor = self.follower.cursor()
        positions = {}
        for name, snapshot in self.snapshots.items():
            progress = snapshot.progress if snapshot is not None else None
            positions[name] = cursor.with_snapshot(progress).to_position()
        self._committed_rows, self._since_boundary, self.follower.moved = (
            self.collector.rows_read,
            time.monotonic(),
            False,
        )
        return Boundary(positions, swept or {}, self._lag(cursor, caught_up=caught_up), caught_up)

    def _lag(self, cursor: Cursor, *, caught_up: bool) -> Lag:
        if caught_up:
            return Lag(0, 0.0)
        behind = self.server.behind(cursor.file, cursor.place)
        seconds = max(0.0, time.time() - self.follower.committed / 1e6) if self.follower.committed else None
        return Lag(behind, seconds)

    def _reread(self, file: str, place: int, transaction: Transaction) -> None:
        with closing(self.log.dump()) as dump:
            reread(dump, file, place, transaction, self.collector, wait=self.wait)
