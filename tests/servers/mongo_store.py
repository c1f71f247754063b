"""Documents of the MongoDB test server: raw BSON with every version it had, so that a read can be as of a time."""

from __future__ import annotations

import datetime
import threading
from bisect import bisect_left, insort
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import bson
from bson import CodecOptions, DatetimeMS, Decimal128, MaxKey, MinKey, ObjectId, Timestamp
from bson.codec_options import DatetimeConversion

CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)  # fmt: skip
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
    """All collections, a clock of writes, and a journal that a restarted server reads."""

    def __init__(self, journal: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.clock = 1
        self.collections: dict[tuple[str, str], Collection] = {}
        self.views: dict[tuple[str, str], tuple[str, list[Any]]] = {}
        self._journal: IO[bytes] | None = None
        if journal is not None:
            self._replay(journal)
            self._journal = journal.open("ab")

    def collection(self, database: str, name: str) -> Collection:
        return self.collections.setdefault((database, name), Collection())

    def write(self, database: str, name: str, changes: list[tuple[tuple[int, Any], bytes | None]]) -> None:
        """Make all the changes at one moment; None deletes."""
        with self.lock:
            self.clock += 1
            into = self.collection(database, name)
            for key, raw in changes:
                into.put(key, self.clock, raw)
            if self._journal is not None:
                for key, raw in changes:
                    entry = {"n": [database, name], "t": self.clock, "d": raw, "i": None if raw else _id(into, key)}
                    self._journal.write(bson.encode(entry))
                self._journal.flush()

    def _replay(self, journal: Path) -> None:
        if not journal.exists():
            return
        for entry in bson.decode_iter(journal.read_bytes()):
            self.clock = entry["t"]
            raw = entry["d"]
            identity = bson.decode(raw, CODEC)["_id"] if raw else entry["i"]["_id"]
            self.collection(*entry["n"]).put(order(identity), self.clock, raw)


def _id(collection: Collection, key: tuple[int, Any]) -> dict[str, Any]:
    """Return the `_id` that a deleted document had."""
    raw = next(raw for _, raw in reversed(collection.versions[key]) if raw)
    return {"_id": bson.decode(raw, CODEC)["_id"]}
