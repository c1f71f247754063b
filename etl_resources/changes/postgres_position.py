"""How far a stream has been read from a PostgreSQL change log, and how it is kept in the lake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from etl_resources.source import Position


def lsn(text: str) -> int:
    """Return a place in the log (`16/B374D848`) as a number."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def text_of(place: int) -> str:
    """Return a place in the log as PostgreSQL writes it."""
    return f"{place >> 32:X}/{place & 0xFFFFFFFF:X}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the snapshot of a stream has come."""

    began: int | None = None
    """`_pos` at which it began; None: not yet."""
    after: tuple[str, ...] | None = None
    """Key of the last row read, as text; None: none yet."""
    waits: int | None = None
    """The first chunk waits until all transactions below this number have ended: what they wrote before the table was
    watched is not in the log, and not yet in a snapshot either."""
    ended: bool = False
    """The last row was read; only `moved` is left."""
    moved: tuple[tuple[str, ...], ...] = ()
    """Keys that rows were given without their large values, which the snapshot may not have seen under the old key,
    and may never see under the new one: to be read once more."""


@dataclass(frozen=True, slots=True)
class Server:
    """A database of a server, and the history that it is on."""

    system: str
    timeline: int
    database: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a stream is. The lake holds it as JSON, in the same commit as the events."""

    server: Server
    slot: str
    table: int
    """`oid`: a table that was dropped and made anew is another one, whose events the publication does not have."""
    lsn: int
    """Commit record of the last transaction that was read; what is not greater came before."""
    end: int
    """Where that transaction ends: the slot may be advanced to here."""
    shift: int = 0
    """`_pos` is the commit record's place plus this; not 0 where a server has taken the place of another."""
    unseen: tuple[int, ...] = ()
    """Transactions that were read while snapshots could not see them yet."""
    view: str | None = None
    """Snapshot before the last look, and `own`, our transaction since: what has ended since is new."""
    own: int | None = None
    snapshot: Progress | None = None
    renewed: bool = False
    """A person, or `on_lost`, has asked for the snapshot to be taken again: nothing can be lost any more."""

    def to_position(self) -> dict[str, Any]:
        """Return it as JSON-serialisable data."""
        progress = self.snapshot and {
            "began": self.snapshot.began, "waits": self.snapshot.waits,
            "after": None if self.snapshot.after is None else list(self.snapshot.after),
            "ended": self.snapshot.ended, "moved": [list(key) for key in self.snapshot.moved],
        }  # fmt: skip
        position = {
            "system": self.server.system, "timeline": self.server.timeline, "database": self.server.database,
            "slot": self.slot, "table": self.table, "lsn": self.lsn, "end": self.end, "unseen": list(self.unseen),
            "view": self.view, "own": self.own, "snapshot": progress,
        }  # fmt: skip
        if self.shift:
            position["shift"] = self.shift
        return {**position, "renewed": True} if self.renewed else position

    @classmethod
    def from_position(cls, position: Position) -> Cursor:
        """Return what `to_position` was made of."""
        return cls(
            Server(position["system"], position["timeline"], position["database"]), position["slot"],
            position["table"], position["lsn"], position["end"], position.get("shift", 0),
            tuple(position["unseen"]), position["view"], position["own"], _progress(position["snapshot"]),
            position.get("renewed", False),
        )  # fmt: skip

    def anew(self) -> Cursor:
        """Return the cursor whose next read takes the snapshot again; events that are in the lake stay known."""
        return replace(self, snapshot=Progress(), renewed=True)


def _progress(given: Mapping[str, Any] | None) -> Progress | None:
    if given is None:
        return None
    after = given["after"]
    moved = tuple(tuple(key) for key in given["moved"])
    return Progress(given["began"], None if after is None else tuple(after), given["waits"], given["ended"], moved)
