"""Where a stream has been read to: a place in the binlog of one server, and how to know that it is still the same log.

`_pos` is `(base + number of the file) << 40 | place in the file`. The place is the end of the event that opens the
transaction (it is known before the rows come, and orders transactions as their ends do, because the log holds one whole
transaction after the other). `base` is 0, and grows when the numbering of files begins anew (RESET MASTER, another
server), so that `_pos` never falls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from etl_resources.source import Position

_PLACE_BITS = 40
_NO_FILE = 0


def file_number(name: str) -> int:
    """Return the number in the name of a binlog's file, as `binlog.000042`."""
    number = name.rpartition(".")[2]
    return int(number) if number.isdigit() else _NO_FILE


def following(name: str) -> str:
    """Return the name of the file that comes after."""
    stem, _, number = name.rpartition(".")
    return f"{stem}.{int(number) + 1:0{len(number)}d}"


def encoded(base: int, file: str, place: int) -> int:
    """Return `_pos` of a place."""
    return (base + file_number(file)) << _PLACE_BITS | place


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream's snapshot is."""

    began: int | None = None
    """`_pos` just before the first part; None: it has not begun."""
    after: tuple[str, ...] | None = None
    """Key of the last row; None: from the beginning."""
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place between two transactions."""

    server: str
    """MySQL's UUID, or MariaDB's number of the server."""
    base: int
    file: str
    place: int
    born: int | None = None
    """When the file was begun, by its own first event."""
    anchor: tuple[int, int] | None = None
    """Start and CRC32 of the event that ends here: the same log has it again. None: not known."""
    gtid: str | None = None
    """The transactions up to here, as the server names them; None: not known."""
    prepared: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """XA transactions that were prepared and not yet decided: where they stand."""
    snapshot: Progress | None = None
    """None: the stream's snapshot is complete."""

    @property
    def pos(self) -> int:
        """The place as one number."""
        return encoded(self.base, self.file, self.place)

    @property
    def is_fresh(self) -> bool:
        """The stream has to be read from the beginning, and the log from its end on."""
        return self.snapshot is not None and self.snapshot.began is None

    def with_snapshot(self, snapshot: Progress | None) -> Cursor:
        """Return the same place with another progress."""
        return replace(self, snapshot=snapshot)

    def to_position(self) -> dict[str, Any]:
        """Return it as JSON-serialisable data."""
        shot = self.snapshot
        after = list(shot.after) if shot is not None and shot.after else None
        return {
            "server": self.server, "base": self.base, "file": self.file, "pos": self.place, "born": self.born,
            "anchor": list(self.anchor) if self.anchor else None, "gtid": self.gtid,
            "xa": {name: list(where) for name, where in self.prepared.items()},
            "snapshot": shot and {"began": shot.began, "after": after, "rows": shot.rows},
        }  # fmt: skip

    @classmethod
    def from_position(cls, position: Position) -> Cursor:
        """Return what `to_position` was made of."""
        p, shot = position, position["snapshot"]
        return cls(
            p["server"], p["base"], p["file"], p["pos"], p["born"],
            (p["anchor"][0], p["anchor"][1]) if p["anchor"] else None, p["gtid"],
            {name: (where[0], where[1]) for name, where in p["xa"].items()},
            shot and Progress(shot["began"], tuple(shot["after"]) if shot["after"] else None, shot["rows"]),
        )  # fmt: skip
