"""Following a change stream in ticks: whole transactions, chunks of first loads between them, a boundary behind each.

A chunk is read as of a moment t, and its rows have t + 1 as their `_pos`, and come before every event there. Its tick
gives the events up to t, and ends: so at the boundary everything up to t is given, the next chunk is read at t or later
(nobody may have written since), and nothing that comes later has a `_pos` of before.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etl_resources.change_log import Boundary, Changes, Lag
from etl_resources.changes.mongodb_events import Events
from etl_resources.changes.mongodb_position import Cursor, Snapshot, Token, pos_of, seconds_of
from etl_resources.exceptions import LogLostError
from etl_resources.files import json_types
from etl_resources.mongodb_errors import translated

if TYPE_CHECKING:
    import pymongo

    from etl_resources.changes.mongodb_feed import Feed
    from etl_resources.changes.mongodb_rows import Rows
    from etl_resources.changes.mongodb_settings import MongoLogCapture
    from etl_resources.changes.mongodb_snapshot import Chunks
    from etl_resources.source import Batch

_MOST, _QUIET, _GLANCE = 250_000, 30.0, 0.001
_END = (1 << 63) - 1


@dataclass
class Followed:
    """A stream, where it is, and what was counted."""

    name: str
    cursor: Cursor
    rows: Rows
    chunks: Chunks
    read: int = 0
    swept: int | None = None
    """Its snapshot has ended in this tick; it began here."""


@dataclass
class Follower:
    """`at`: everything at or before it was given; `token`: what comes behind that."""

    client: pymongo.MongoClient[Any]
    feed: Feed
    streams: list[Followed]
    capture: MongoLogCapture
    where: str
    at: int
    patience: float
    """Seconds for which the server may take to show what it has written."""
    token: Token | None = None
    caught_up: bool = False
    _pending: Events | None = field(default=None, init=False)
    _given: int = field(default=0, init=False)

    def run(self) -> Generator[Changes | Boundary, None, None]:
        """Yield ticks as `ChangeLog.read` says."""
        self.token = self.feed.token
        target = now(self.client, self.where)
        ends = time.monotonic() + self.capture.lasts
        quiet_since = time.monotonic()
        while True:
            loading = next((s for s in self.streams if s.cursor.snapshot is not None), None)
            if loading is not None and self.caught_up:
                yield from self._load(loading)
            elif self.capture.mode == "batch":
                yield from self._tick(target + 1, target)
            else:
                yield from self._tick(_END, None)
            loading = next((s for s in self.streams if s.cursor.snapshot is not None), None)
            done = self.caught_up and loading is None if self.capture.mode == "batch" else time.monotonic() > ends
            if done or self._given or time.monotonic() - quiet_since > _QUIET or self._swept():
                yield self._boundary()
                self._given, quiet_since = 0, time.monotonic()
            if done:
                return

    def _load(self, stream: Followed) -> Iterator[Changes]:
        """Give a chunk of a first load, and the events before its moment."""
        at = now(self.client, self.where)
        progress = stream.cursor.snapshot
        assert progress is not None  # noqa: S101 - that is why it is loaded
        if stream.cursor.pos is not None and at < stream.cursor.pos:
            raise LogLostError(
                "the clock of the server is behind what was read from it: it was restored from a backup",
                where=self.where, fix="wait until its clock has passed the old one, or begin a new pipeline",
            )  # fmt: skip
        raws, last = stream.chunks.next(progress, at)
        progress.began = at + 1 if progress.began is None else progress.began
        if stream.cursor.pos is None:
            stream.cursor.pos = at  # what came before is in the chunk, and in those behind it
        for batch in stream.chunks.rows(raws, progress, at + 1, stream.read):
            stream.read = batch.rows_read
            self._given += batch.data.num_rows + 1
            yield Changes(stream.name, batch)
        if last:
            stream.swept, stream.cursor.snapshot = progress.began, None
        yield from self._tick(at + 1, at)

    def _tick(self, limit: int, reach: int | None) -> Iterator[Changes]:
        """Give the events before `limit`, or many of them, in whole transactions; or until there are none.

        `reach`: up to where the server has to have looked before that is believed; None: as it is.
        """
        given, deadline = 0, time.monotonic() + self.patience
        while True:
            events = self._pending
            if events is None:
                events = self._next(given)
                if not len(events):
                    if reach is None or self.feed.at >= reach or time.monotonic() > deadline:
                        return
                    continue
            deadline = time.monotonic() + self.patience
            stop = limit if given < _MOST else min(limit, self.at + 1)
            count = int(events.pos.searchsorted(stop, "left"))
            if count:
                yield from self._give(events.rows(slice(0, count)))
                given += count
            self._pending = events.rows(slice(count, None)) if count < len(events) else None
            if self._pending is not None:
                self.at, self.caught_up = max(self.at, stop - 1), stop == limit
                return

    def _next(self, given: int) -> Events:
        """Return what the feed has; nothing at all: it has told up to where there is nothing."""
        # What belongs to the same transaction is there at once; only what nobody has written yet is waited for.
        reply = self.feed.next(_GLANCE if given or self._given else self.capture.every)
        if not len(reply.starts):
            self.at, self.token, self.caught_up = max(self.at, reply.at - 1), reply.token, True
        return Events(reply.buffer, reply.starts, self.where)

    def _give(self, events: Events) -> Iterator[Changes]:
        for stream in self.streams:
            mine = events.of(stream.rows.collection)
            found = int(mine.sum())
            if not found:
                continue
            chosen = events.rows(mine)
            old = _old(stream, chosen)
            stream.read += found
            yield Changes(stream.name, self._batch(stream, chosen, old))
            if old < found and chosen.rows(slice(old, None)).became(stream.rows.collection).any():
                stream.cursor.snapshot, stream.swept = Snapshot(), None  # another collection: nothing of it is known
        self.at, self.token, self.caught_up = int(events.pos[-1]), events.token(len(events) - 1), False
        self._given += len(events)

    def _batch(self, stream: Followed, events: Events, old: int) -> Batch:
        if old:
            stream.rows.skip(events.rows(slice(0, old)))
        return stream.rows.of(events.rows(slice(old, None)), stream.read, old)

    def _swept(self) -> Mapping[str, int]:
        return {s.name: s.swept for s in self.streams if s.swept is not None}

    def _boundary(self) -> Boundary:
        positions = {}
        for stream in self.streams:
            cursor = stream.cursor
            if cursor.pos is not None:
                cursor.pos, cursor.token, cursor.renewed = max(cursor.pos, self.at), self.token, False
            cursor.schema = json_types.dump_schema(stream.rows.schema)
            positions[stream.name] = cursor.dump()
        swept = self._swept()
        for stream in self.streams:
            stream.swept = None
        behind = 0.0 if self.caught_up else max(0.0, time.time() - seconds_of(self.at))
        return Boundary(positions, swept, Lag(seconds=behind), self.caught_up)


def _old(stream: Followed, events: Events) -> int:
    """Return how many of the events, the first ones, the stream has already; all of them before its first load."""
    if stream.cursor.pos is None:
        return len(events)
    return int(events.pos.searchsorted(stream.cursor.pos, "right"))


def now(client: pymongo.MongoClient[Any], where: str) -> int:
    """Return the `_pos` of the newest write of the cluster.

    Raises:
        UnavailableError: the server could not be reached.
    """
    from pymongo import ReadPreference

    with translated(where):
        return pos_of(client.admin.command("ping", read_preference=ReadPreference.PRIMARY)["operationTime"])
