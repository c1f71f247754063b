"""Change streams of the MongoDB test server: over a database or a collection, from its oplog."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bson import Int64
from bson.raw_bson import RawBSONDocument
from mongomock.filtering import filter_applies

from tests.servers.mongo_oplog import Entry, Reply, number, stamp
from tests.servers.mongo_store import Store, order

_BATCH_BYTES = 16_000_000
_EVENT, _HIGH_WATER = "2B042C0100", "2B0429296E1404"
_TOKEN = re.compile(rf"82([0-9A-F]{{16}})(?:{_HIGH_WATER}|{_EVENT}([0-9A-F]{{8}})(6E|6F)04)")
_KINDS = frozenset({"insert", "update", "replace", "delete", "drop", "rename", "dropDatabase"})


class Failure(Exception):  # noqa: N818 - what the server answers
    """An error reply."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code, self.name = code, name


@dataclass
class Stream:
    """An open change stream: what it is of, how it shows events, and the place it looks at next."""

    database: str
    collection: str | None
    stage: Reply
    pipeline: list[Reply]
    lsid: Any
    at: tuple[int, int]
    token: str
    ended: Entry | None = None
    """It was invalidated by this, and has to say so."""


@dataclass
class Watching:
    """The part of the server that follows the oplog."""

    store: Store
    set_name: str | None
    streams: dict[int, Stream] = field(default_factory=dict, init=False)
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1_000_000), init=False)

    def watch(self, command: Reply) -> Reply:
        """Answer an aggregate that begins with $changeStream; its first batch is always empty."""
        if not self.set_name:
            raise Failure(40573, "Location40573", "The $changeStream stage is only supported on replica sets")
        stage = command["pipeline"][0]["$changeStream"]
        name = command["aggregate"] if isinstance(command["aggregate"], str) else None
        at, token = self._start(stage)
        opened = Stream(command["$db"], name, stage, command["pipeline"][1:], command.get("lsid"), at, token)
        cursor = next(self._ids)
        self.streams[cursor] = opened
        return self._batch(cursor, opened, [], "firstBatch")

    def more(self, command: Reply) -> Reply:
        """Answer a getMore: at once if there is an event, else when one comes or `maxTimeMS` is over."""
        cursor = command["getMore"]
        opened = self.streams[cursor]
        if opened.lsid != command.get("lsid"):
            raise Failure(50738, "Location50738", f"Cannot run getMore on cursor {cursor} in another session")
        until = time.monotonic() + (command.get("maxTimeMS") or 1000) / 1000
        size = command.get("batchSize") or 10**9
        while True:
            try:
                events = self._events(opened, size)
            except Failure:
                self.streams.pop(cursor, None)
                raise
            left = until - time.monotonic()
            if events or left <= 0 or cursor not in self.streams:
                return self._batch(cursor, opened, events, "nextBatch")
            self.store.written.wait(left)
            if cursor not in self.streams:
                raise Failure(237, "CursorKilled", "cursor was killed")

    def _batch(self, cursor: int, opened: Stream, events: list[Reply], batch: str) -> Reply:
        ended = bool(events) and events[-1].get("operationType") == "invalidate"
        if ended:
            self.streams.pop(cursor, None)
        namespace = f"{opened.database}.{opened.collection or '$cmd.aggregate'}"
        return {"cursor": {batch: events, "id": Int64(0 if ended else cursor), "ns": namespace,
                           "postBatchResumeToken": {"_data": opened.token}}}  # fmt: skip

    def _start(self, stage: Reply) -> tuple[tuple[int, int], str]:
        """Return the place of the first event, and the token that says so."""
        kind = next((k for k in ("resumeAfter", "startAfter") if stage.get(k)), None)
        if kind is None:
            moment = stage.get("startAtOperationTime")
            at = number(moment) if moment is not None else self.store.clock + 1
            if at < self.store.oplog.oldest:
                raise _lost()
            return (at, 0), _token(at)
        token = stage[kind]["_data"]
        found = _TOKEN.fullmatch(token)
        if found is None:
            raise Failure(260, "InvalidResumeToken", f"Bad resume token: {token}")
        at = int(found[1], 16)
        if at < self.store.oplog.oldest:
            raise _lost()
        if found[2] is None:
            return (at, 0), token
        if found[3] == "6F" and kind == "resumeAfter":
            raise Failure(260, "InvalidResumeToken", "Attempting to resume a change stream using 'resumeAfter' is not"
                          " allowed from an invalidate notification.")  # fmt: skip
        place = (at, int(found[2], 16))
        if not self.store.oplog.has(place):
            raise Failure(280, "ChangeStreamFatalError", "cannot resume stream; the resume token was not found.")
        return (at, place[1] + 1), token

    def _events(self, opened: Stream, size: int) -> list[Reply]:
        """Return the next events, and move the stream behind what was looked at."""
        oplog = self.store.oplog
        if opened.ended is not None:
            entry, opened.ended = opened.ended, None
            opened.token = _token(entry.at, entry.n, invalidate=True)
            return [{"_id": {"_data": opened.token}, "operationType": "invalidate", "clusterTime": stamp(entry.at),
                     "wallTime": entry.wall}]  # fmt: skip
        if opened.at[0] < oplog.oldest and opened.at <= (oplog.oldest, 0):
            raise Failure(136, "CappedPositionLost", "CollectionScan died due to position in capped being deleted")
        events: list[Reply] = []
        used = 0
        for entry in itertools.islice(oplog.entries, oplog.first(opened.at), None):
            opened.at = (entry.at, entry.n + 1)
            event = self._event(opened, entry)
            if event is not None:
                events.append(event)
                opened.token = event["_id"]["_data"]
                used += sum(len(raw) for raw in (entry.after, entry.before) if raw)
                if _ends(opened, entry):
                    opened.ended = entry
                    break
            if len(events) >= size or used > _BATCH_BYTES:
                return events
        else:
            # A no-op, too, is an entry of the oplog: the token goes on where nothing was written that matters.
            if _token(self.store.clock) > opened.token:
                opened.token = _token(self.store.clock)
                opened.at = max(opened.at, (self.store.clock, 0))
        return events

    def _event(self, opened: Stream, entry: Entry) -> Reply | None:
        """Return an entry as the stream shows it; None: it does not."""
        if entry.kind not in _KINDS or entry.namespace[0] != opened.database:
            return None
        names = {entry.namespace[1], *(entry.to or ())[1:]}
        if opened.collection is not None and entry.kind != "dropDatabase" and opened.collection not in names:
            return None
        event = _described(entry)
        if entry.identity is not None:
            event["documentKey"] = entry.identity
            self._images(opened.stage, entry, event)
        return _piped(event, opened.pipeline)

    def _images(self, stage: Reply, entry: Entry, event: Reply) -> None:
        before = stage.get("fullDocumentBeforeChange", "off")
        if before != "off" and entry.kind != "insert":
            if not entry.images and before == "required":
                raise _no_image("pre")
            event["fullDocumentBeforeChange"] = RawBSONDocument(entry.before) if entry.images and entry.before else None
        if entry.kind == "update":
            event["updateDescription"] = entry.description
            wanted = stage.get("fullDocument", "default")
            if wanted == "required" and not entry.images:
                raise _no_image("post")
            if wanted in {"required", "whenAvailable"}:
                event["fullDocument"] = RawBSONDocument(entry.after) if entry.images and entry.after else None
            elif wanted == "updateLookup":
                assert entry.identity is not None
                collection = self.store.collections.get(entry.namespace)
                raw = collection.get(order(dict(entry.identity)["_id"])) if collection is not None else None
                event["fullDocument"] = RawBSONDocument(raw) if raw else None
        elif entry.after is not None:
            event["fullDocument"] = RawBSONDocument(entry.after)


def _ends(opened: Stream, entry: Entry) -> bool:
    """Tell whether the stream is invalidated by an entry: what it is of is no longer there."""
    return entry.kind == "dropDatabase" or (opened.collection is not None and entry.kind in {"drop", "rename"})


def _described(entry: Entry) -> Reply:
    event: Reply = {
        "_id": {"_data": _token(entry.at, entry.n)}, "operationType": entry.kind, "clusterTime": stamp(entry.at),
        "wallTime": entry.wall,
    }  # fmt: skip
    if entry.transaction is not None:
        event |= {"lsid": entry.transaction[0], "txnNumber": Int64(entry.transaction[1])}
    event["ns"] = {"db": entry.namespace[0]}
    if entry.kind != "dropDatabase":
        event["ns"]["coll"] = entry.namespace[1]
    if entry.to is not None:
        event["to"] = {"db": entry.to[0], "coll": entry.to[1]}
    return event


def _piped(event: Reply, pipeline: list[Reply]) -> Reply | None:
    """Return the event behind the stages that came with the stream; None: one of them leaves it out."""
    for stage in pipeline:
        ((kind, what),) = stage.items()
        if kind == "$match":
            if not filter_applies(what, event):
                return None
        elif kind == "$unset":
            for name in [what] if isinstance(what, str) else what:
                event.pop(name, None)
        else:
            raise Failure(40324, "Location40324", f"Unrecognized pipeline stage name: {kind!r}")
    return event


def _token(at: int, n: int | None = None, *, invalidate: bool = False) -> str:
    """Return a resume token, which sorts as the place does: the time, then a high-water mark before events."""
    return f"82{at:016X}" + (_HIGH_WATER if n is None else f"{_EVENT}{n:08X}{'6F' if invalidate else '6E'}04")


def _lost() -> Failure:
    return Failure(286, "ChangeStreamHistoryLost", "Resume of change stream was not possible, as the resume point may"
                   " no longer be in the oplog.")  # fmt: skip


def _no_image(which: str) -> Failure:
    return Failure(47, "NoMatchingDocument", f"Change stream was configured to require a {which}-image for all update,"
                   f" delete and replace events, but the {which}-image was not found")  # fmt: skip
