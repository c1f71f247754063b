"""What the MongoDB test server does with commands that read: find, getMore, aggregate and the like."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import bson
import mongomock
from bson import Int64
from bson.raw_bson import RawBSONDocument
from mongomock.filtering import filter_applies

from tests.servers.mongo_changes import Failure, Watching
from tests.servers.mongo_oplog import Reply, number
from tests.servers.mongo_store import CODEC, order

_BATCH_BYTES = 16_000_000


@dataclass
class Reading(Watching):
    """The half of the server that reads."""

    cursors: dict[int, Iterator[bytes]] = field(default_factory=dict, init=False)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1000), init=False)

    def do_listcollections(self, command: Reply, _: Any) -> Reply:
        database, filter_ = command["$db"], command.get("filter") or {}
        found = [
            {"name": n, "type": "collection", "options": self.store.options.get((d, n), {}),
             "info": {"readOnly": False, "uuid": self.store.uuids[(d, n)]}}
            for d, n in self.store.collections if d == database
        ]  # fmt: skip
        found += [
            {"name": n, "type": "view", "options": {}, "info": {"readOnly": True}}
            for d, n in self.store.views
            if d == database
        ]
        raws = [bson.encode(c) for c in found if filter_applies(filter_, c)]
        return self._open(iter(raws), f"{database}.$cmd.listCollections", len(raws) + 1, "firstBatch")

    def do_find(self, command: Reply, _: Any) -> Reply:
        database, name = command["$db"], command["find"]
        if (database, name) == ("local", "oplog.rs"):
            return self._oplog(command)
        if (database, name) in self.store.views:
            on, pipeline = self.store.views[(database, name)]
            raws: Iterator[bytes] = iter(self._run_pipeline(database, on, pipeline, None))
        else:
            raws = self._scan(command)
        for key, direction in reversed(list((command.get("sort") or {}).items())):
            if (key, direction) == ("_id", -1):
                raws = reversed(list(raws))
            elif key != "_id":
                # Before the filter, which is slow, and with a limit seldom asked.
                raws = iter(sorted(raws, key=_sort_key(key), reverse=direction < 0))
        if filter_ := command.get("filter"):
            raws = (r for r in raws if filter_applies(filter_, bson.decode(r, CODEC)))
        if limit := command.get("limit"):
            raws = itertools.islice(raws, limit)
        if projection := command.get("projection"):
            raws = (_project(r, projection) for r in raws)
        size = 1 if command.get("singleBatch") else command.get("batchSize", 101)
        return self._open(iter(list(raws)), f"{database}.{name}", size, "firstBatch")

    def _scan(self, command: Reply) -> Iterator[bytes]:
        if ("min" in command or "max" in command) and "hint" not in command:
            raise Failure(
                51173, "Location51173", "When using min()/max() a hint of which index to use must be provided"
            )
        place = (command["$db"], command["find"])
        if place not in self.store.collections:
            return iter(())
        first, end = (order(command[k]["_id"]) if k in command else None for k in ("min", "max"))
        return self.store.collection(*place).documents(self._as_of(command), first=first, end=end)

    def _as_of(self, command: Reply) -> int | None:
        concern = command.get("readConcern") or {}
        if concern.get("level") != "snapshot":
            return None
        if not self.set_name:
            raise Failure(123, "NotAReplicaSet", "node needs to be a replica set member to use readConcern: snapshot")
        at = concern.get("atClusterTime")
        return number(at) if at is not None else self.store.clock

    def _oplog(self, command: Reply) -> Reply:
        if not self.set_name:
            return self._open(iter(()), "local.oplog.rs", 1, "firstBatch")
        documents = self.store.oplog.documents(self.store.clock)
        if (command.get("sort") or {}).get("$natural") == -1:
            documents.reverse()
        raws = [bson.encode(d) for d in documents[: command.get("limit") or None]]
        return self._open(iter(raws), "local.oplog.rs", 101, "firstBatch")

    def _open(self, raws: Iterator[bytes], namespace: str, size: int, batch: str, number: int = 0) -> Reply:
        taken, used = [], 0
        for raw in itertools.islice(raws, size or 0):
            taken.append(RawBSONDocument(raw))
            used += len(raw)
            if used > _BATCH_BYTES:
                break
        following = next(raws, None)
        if following is None:
            self.cursors.pop(number, None)
            number = 0
        else:
            number = number or next(self._numbers)
            self.cursors[number] = itertools.chain([following], raws)
        return {"cursor": {batch: taken, "id": Int64(number), "ns": namespace}}

    def do_getmore(self, command: Reply, _: Any) -> Reply:
        cursor = command["getMore"]
        if cursor in self.streams:
            return self.more(command)
        if cursor not in self.cursors:
            raise Failure(43, "CursorNotFound", f"cursor id {cursor} not found")
        namespace = f"{command['$db']}.{command['collection']}"
        return self._open(self.cursors[cursor], namespace, command.get("batchSize", 10**9), "nextBatch", cursor)

    def do_killcursors(self, command: Reply, _: Any) -> Reply:
        kept = (self.cursors, self.streams)
        killed = [n for n in command["cursors"] if any(k.pop(n, None) is not None for k in kept)]
        return {"cursorsKilled": killed, "cursorsNotFound": [], "cursorsAlive": [], "cursorsUnknown": []}

    def do_count(self, command: Reply, _: Any) -> Reply:
        found = self.store.collections.get((command["$db"], command["count"]))
        return {"n": sum(1 for _ in found.documents()) if found else 0}

    def do_aggregate(self, command: Reply, _: Any) -> Reply:
        if command["pipeline"] and "$changeStream" in command["pipeline"][0]:
            return self.watch(command)
        database, name = command["$db"], command["aggregate"]
        raws = self._run_pipeline(database, name, command["pipeline"], self._as_of(command))
        size = (command.get("cursor") or {}).get("batchSize", 101)
        return self._open(iter(raws), f"{database}.{name}", size, "firstBatch")

    def _run_pipeline(self, database: str, name: str, pipeline: list[Any], at: int | None) -> list[bytes]:
        scratch = mongomock.MongoClient(tz_aware=True).scratch.scratch
        documents = [bson.decode(r, CODEC) for r in self.store.collection(database, name).documents(at)]
        if documents:
            scratch.insert_many(documents)
        return [bson.encode(d, codec_options=CODEC) for d in scratch.aggregate(pipeline)]


def _sort_key(path: str) -> Callable[[bytes], tuple[int, Any]]:
    return lambda raw: order(_at(bson.decode(raw, CODEC), path))


def _at(document: Any, path: str) -> Any:
    for key in path.split("."):
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _project(raw: bytes, projection: Reply) -> bytes:
    """Keep the fields that a projection names with 1, and the places that they are in; `_id` unless it says 0."""
    document = bson.decode(raw, CODEC)
    wanted = {path for path, on in projection.items() if on}
    if not wanted:
        dropped = {path for path, on in projection.items() if not on}
        return bson.encode({k: v for k, v in document.items() if k not in dropped}, codec_options=CODEC)
    if projection.get("_id", 1):
        wanted.add("_id")
    return bson.encode(_pick(document, wanted), codec_options=CODEC)


def _pick(document: Reply, wanted: set[str]) -> Reply:
    kept = {}
    for key, value in document.items():
        below = {path[len(key) + 1 :] for path in wanted if path.startswith(f"{key}.")}
        if key in wanted:
            kept[key] = value
        elif below and isinstance(value, dict):
            kept[key] = _pick(value, below)
    return kept
