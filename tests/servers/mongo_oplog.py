"""The oplog of the MongoDB test server: every write in its order, with the time of the cluster's clock."""

from __future__ import annotations

import datetime
import uuid
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

from bson import Binary, Timestamp
from bson.raw_bson import RawBSONDocument

Reply = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One write. `at`: seconds << 32 | increment; `n`: place in its transaction, 0 outside of one."""

    at: int
    n: int
    kind: str
    namespace: tuple[str, str]
    identity: RawBSONDocument | None = None
    after: bytes | None = None
    before: bytes | None = None
    images: bool = False
    """The collection kept pre- and post-images when it was written."""
    description: Reply | None = None
    to: tuple[str, str] | None = None
    transaction: tuple[Any, int] | None = None
    wall: datetime.datetime = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in the oplog."""
        return self.at, self.n

    def record(self) -> Reply:
        """Return it as the journal keeps it."""
        lsid, number = self.transaction or (None, None)
        return {
            "o": self.kind, "t": self.at, "m": self.n, "ns": list(self.namespace), "i": self.identity, "d": self.after,
            "b": self.before, "g": self.images, "u": self.description, "to": list(self.to) if self.to else None,
            "l": lsid, "x": number, "w": self.wall,
        }  # fmt: skip

    @classmethod
    def of(cls, record: Reply, identity: RawBSONDocument | None) -> Entry:
        """Return what `record` wrote."""
        transaction = (record["l"], record["x"]) if record["l"] else None
        to = tuple(record["to"]) if record["to"] else None
        return cls(
            record["t"], record["m"], record["o"], tuple(record["ns"]), identity, record["d"], record["b"],
            record["g"], record["u"], to, transaction, record["w"],
        )  # fmt: skip


class Oplog:
    """Entries in order; `oldest`: what lies before it can no longer be resumed."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.oldest = 0

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    def first(self, place: tuple[int, int]) -> int:
        """Return the index of the first entry at or behind a place."""
        return bisect_left(self.entries, place, key=lambda e: e.place)

    def has(self, place: tuple[int, int]) -> bool:
        """Tell whether there is an entry at exactly this place."""
        index = self.first(place)
        return index < len(self.entries) and self.entries[index].place == place

    def trim(self, keep: int, now: int) -> None:
        """Forget all but the newest entries, as a full oplog does."""
        self.entries = self.entries[len(self.entries) - min(keep, len(self.entries)) :]
        self.oldest = self.entries[0].at if self.entries else now

    def forget_images(self) -> None:
        """Let the pre- and post-images expire."""
        self.entries = [Entry(**{**vars_of(e), "images": False}) for e in self.entries]

    def documents(self, now: int) -> list[Reply]:
        """Return what `local.oplog.rs` shows: the times, of which the newest is now."""
        times = [e.at for e in self.entries] or [now]
        return [{"ts": stamp(at), "op": "n", "ns": ""} for at in sorted({max(self.oldest, 1), *times, now})]


def vars_of(entry: Entry) -> Reply:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


def stamp(at: int) -> Timestamp:
    return Timestamp(at >> 32, at & 0xFFFFFFFF)


def number(at: Timestamp) -> int:
    return int(at.time) << 32 | int(at.inc)


def new_uuid() -> Binary:
    return Binary.from_uuid(uuid.uuid4())
