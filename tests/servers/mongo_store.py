"""Documents of the MongoDB test server: raw BSON with every version it had, so that a read can be as of a time."""

from __future__ import annotations

import datetime
import threading
import time
from bisect import bisect_left, insort
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import bson
from bson import CodecOptions, DatetimeMS, Decimal128, MaxKey, MinKey, ObjectId, Timestamp
from bson.codec_options import DatetimeConversion
from bson.raw_bson import RawBSONDocument

from tests.servers.mongo_oplog import Entry, Oplog, new_uuid

CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)  # fmt: skip
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def order(value: Any) -> tuple[int, Any]:
    """Return a key that sorts values as MongoDB does: by type, then by value; usable in a dictionary."""
    for type_, rank, key in _ORDER:
        if isinstance(value, type_):
            return rank, key(value)
    return 50, repr(value)


_ORDER: tuple[tuple[Any, int, Any], ...] = (
    (MinKey, -1, lambda _: 0),
    (type(None), 5, lambda _: 0),
    (bool, 40, bool),
    (int | float, 10, lambda v: v),
    (Decimal128, 10, lambda v: v.to_decimal() if v.to_decimal().is_finite() else Decimal(0)),
    (str, 15, str.encode),
    (dict, 20, lambda v: tuple((order(x), k) for k, x in v.items())),
    (list, 25, lambda v: tuple(order(x) for x in v)),
    (ObjectId, 35, lambda v: v.binary),
    (bytes, 30, lambda v: (len(v), getattr(v, "subtype", 0), bytes(v))),
    (datetime.datetime, 45, lambda v: (v - _EPOCH) // datetime.timedelta(milliseconds=1)),
    (DatetimeMS, 45, int),
    (Timestamp, 47, lambda v: (v.time, v.inc)),
    (MaxKey, 127, lambda _: 0),
)


class Collection:
    """Versions of documents by `_id`, which is kept in order."""

    def __init__(self) -> None:
        self.ids: list[tuple[int, Any]] = []
        self.versions: dict[tuple[int, Any], list[tuple[int, bytes | None]]] = {}

    def put(self, key: tuple[int, Any], at: int, raw: bytes | None) -> None:
        if key not in self.versions:
            self.versions[key] = []
            if self.ids and key < self.ids[-1]:
                insort(self.ids, key)
            else:
                self.ids.append(key)
        self.versions[key].append((at, raw))

    def get(self, key: tuple[int, Any], at: int | None = None) -> bytes | None:
        """Return the document as it was at a time (None: as it is), or None where there was none."""
        for written, raw in reversed(self.versions.get(key, [])):
            if at is None or written <= at:
                return raw
        return None

    def documents(
        self, at: int | None = None, *, first: tuple[int, Any] | None = None, end: tuple[int, Any] | None = None
    ) -> Iterator[bytes]:
        """Yield the documents of a time in the order of `_id`, from `first` on and before `end`."""
        start = bisect_left(self.ids, first) if first is not None else 0
        stop = bisect_left(self.ids, end) if end is not None else len(self.ids)
        for key in self.ids[start:stop]:
            raw = self.get(key, at)
            if raw is not None:
                yield raw


class Store:
    """All collections, their oplog, a clock of writes, and a journal that a restarted server reads."""

    def __init__(self, journal: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.written = threading.Condition(self.lock)
        self.clock = int(time.time()) << 32 | 1
        self.set_id = ObjectId()
        self.collections: dict[tuple[str, str], Collection] = {}
        self.views: dict[tuple[str, str], tuple[str, list[Any]]] = {}
        self.options: dict[tuple[str, str], dict[str, Any]] = {}
        self.uuids: dict[tuple[str, str], Any] = {}
        self.oplog = Oplog()
        self._transaction: tuple[Any, int] | None = None
        self._within = 0
        self._journal: IO[bytes] | None = None
        if journal is not None:
            self._replay(journal)
            self._journal = journal.open("ab")

    def collection(self, database: str, name: str) -> Collection:
        self.uuids.setdefault((database, name), new_uuid())
        return self.collections.setdefault((database, name), Collection())

    def tick(self) -> int:
        """Let the clock of writes go on, as a write or a no-op does; within a transaction it stands still."""
        if self._transaction is None or not self._within:
            now = int(time.time()) << 32
            self.clock = now | 1 if now > self.clock else self.clock + 1
        return self.clock

    @contextmanager
    def transaction(self, lsid: Any, number: int) -> Iterator[None]:
        """Make what is written inside at one moment."""
        with self.lock:
            self._transaction, self._within = (lsid, number), 0
            try:
                yield
            finally:
                self._transaction, self._within = None, 0

    def write(
        self, database: str, name: str, changes: list[tuple[tuple[int, Any], bytes | None]], kind: str = "update"
    ) -> None:
        """Make the changes one after the other; None deletes. `kind`: update or replace."""
        place = (database, name)
        with self.lock:
            into = self.collection(*place)
            images = bool(self.options.get(place, {}).get("changeStreamPreAndPostImages", {}).get("enabled"))
            for key, raw in changes:
                before = into.get(key)
                if raw is None and before is None:
                    continue
                found = bson.decode(raw or before or b"", CODEC)
                self._log(
                    "delete" if raw is None else "insert" if before is None else kind, place,
                    identity=_identity(found), after=raw, before=before, images=images,
                    description=_description(before, raw) if raw and before and kind == "update" else None,
                )  # fmt: skip
                into.put(key, self.clock, raw)
            self._flush()

    def configure(self, place: tuple[str, str], options: dict[str, Any]) -> None:
        """Set options of a collection, also for a server that starts with this journal."""
        with self.lock:
            self.collection(*place)
            self.options.setdefault(place, {}).update(options)
            self._note({"o": "options", "ns": list(place), "d": self.options[place], "t": self.clock})
            self._flush()

    def drop(self, place: tuple[str, str], *, kind: str = "drop") -> None:
        """Drop a collection; `kind` dropDatabase: note that its database went."""
        with self.lock:
            if kind == "drop" and self.collections.pop(place, None) is None:
                return
            self.options.pop(place, None)
            self.uuids.pop(place, None)
            self._log(kind, place)
            self._flush()

    def rename(self, place: tuple[str, str], to: tuple[str, str]) -> None:
        """Rename a collection, over one that may be there."""
        with self.lock:
            self._log("rename", place, to=to)
            self._move(place, to)
            self._flush()

    def _move(self, place: tuple[str, str], to: tuple[str, str]) -> None:
        kept: dict[tuple[str, str], Any]
        for kept in (self.collections, self.options, self.uuids):
            kept.pop(to, None)
            if place in kept:
                kept[to] = kept.pop(place)

    def _log(self, kind: str, place: tuple[str, str], **more: Any) -> None:
        at, n = self.tick(), self._within
        self._within += 1 if self._transaction else 0
        wall = datetime.datetime.now(datetime.UTC)
        entry = Entry(at, n, kind, place, transaction=self._transaction, wall=wall, **more)
        self.oplog.add(entry)
        self._note(entry.record())
        self.written.notify_all()

    def _note(self, record: dict[str, Any]) -> None:
        if self._journal is not None:
            self._journal.write(bson.encode(record))

    def _flush(self) -> None:
        if self._journal is not None:
            self._journal.flush()

    def _replay(self, journal: Path) -> None:
        if not journal.exists():
            journal.write_bytes(bson.encode({"o": "set", "d": self.set_id}))
            return
        for raw in bson.decode_file_iter(journal.open("rb"), _RAW):
            record = bson.decode(raw.raw, CODEC)
            if record["o"] == "set":
                self.set_id = record["d"]
                continue
            place = tuple(record["ns"])
            if record["o"] == "options":
                self.collection(*place)
                self.options[place] = record["d"]
                continue
            self.clock = max(self.clock, record["t"])
            entry = Entry.of(record, raw["i"])
            self.oplog.add(entry)
            if entry.kind == "drop":
                self.collections.pop(place, None)
                self.options.pop(place, None)
            elif entry.to is not None:
                self._move(place, entry.to)
            elif entry.identity is not None:
                identity = bson.decode(entry.identity.raw, CODEC)["_id"]
                self.collection(*place).put(order(identity), entry.at, entry.after)


def _identity(document: dict[str, Any]) -> RawBSONDocument:
    return RawBSONDocument(bson.encode({"_id": document["_id"]}, codec_options=CODEC), _RAW)


def _description(before: bytes, after: bytes) -> dict[str, Any]:
    """Return what an update did; of embedded documents as a whole, where a real server may say it in parts."""
    old, new = bson.decode(before, CODEC), bson.decode(after, CODEC)
    changed = {k: v for k, v in new.items() if k not in old or order(old[k]) != order(v)}
    return {"updatedFields": changed, "removedFields": [k for k in old if k not in new], "truncatedArrays": []}
