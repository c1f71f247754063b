"""Which transaction each message belongs to, and its place within it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from etl_resources.changes.pgoutput_wire import (
    BEGIN,
    COMMIT,
    DELETE,
    INSERT,
    NEW,
    ORIGIN,
    TRUNCATE,
    UPDATE,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.changes.pgoutput_wire import Places, Wire

_EPOCH_US = 946_684_800_000_000  # 2000-01-01, from where PostgreSQL counts, as microseconds since 1970


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit: its position (LSN of the commit record), where that record ends, when it was, and which transaction."""

    pos: int
    end: int
    at: datetime
    xid: int


@dataclass(frozen=True, slots=True)
class Ongoing:
    """A transaction whose commit has not been seen yet; `events`: places of it that are taken."""

    pos: int
    at: int
    xid: int
    origin: str | None
    events: int


class Transactions:
    """The transactions of some messages; number 0 is the one that was going on before them, if any was.

    `number[i]` is that of message i, `seq[i]` the place of its last event. An insert and a delete take one place, a
    truncate one per relation, and an update whose old row or key is in the log takes two: it may be a change of the
    key, which is a delete and an update. So places depend on nothing but the messages of the transaction.
    """

    def __init__(self, wire: Wire, ongoing: Ongoing | None) -> None:
        import numpy as np

        begins = wire.tagged(BEGIN)
        at = wire.starts[begins]
        before = ongoing or Ongoing(0, 0, 0, None, 0)
        self.number: Places = np.cumsum(wire.tags == BEGIN)
        self.pos: Places = np.concatenate(([before.pos], wire.int64[at + 1])).astype(np.int64)
        self.at: Places = np.concatenate(([before.at], wire.int64[at + 9] + _EPOCH_US)).astype(np.int64)
        self.xid: Places = np.concatenate(([before.xid], wire.int32[at + 17].astype(np.uint32))).astype(np.int64)
        taken = np.cumsum(_places(wire))
        self.seq: Places = taken - np.concatenate(([-before.events], taken[begins]))[self.number]
        self.origin = self._origins(wire, before.origin)
        self.ongoing, self.committed = self._ended(wire, ongoing, begins)

    def columns(self, numbers: Places) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
        """Return `_pos`, `_xid`, `_commit_ts` and `_origin` of events of these transactions."""
        import pyarrow as pa

        index = pa.array(numbers)
        origin = pa.nulls(len(numbers), pa.string()) if self.origin is None else self.origin.take(index)
        moment = pa.array(self.at[numbers]).cast(pa.timestamp("us", "UTC"))
        return pa.array(self.pos[numbers]), pa.array(self.xid).cast(pa.string()).take(index), moment, origin

    def _origins(self, wire: Wire, before: str | None) -> pa.Array | None:
        """Return the origin of each transaction; None: none has one."""
        import numpy as np
        import pyarrow as pa

        found = wire.tagged(ORIGIN)
        if before is None and not len(found):
            return None
        starts, ends = wire.starts[found] + 9, wire.ends[found] - 1
        names = wire.texts(starts, ends, np.ones(len(found), np.bool_))
        names = pa.concat_arrays([pa.array([before], pa.string()), names])
        index = np.full(len(self.pos), -1)
        index[0] = 0
        index[self.number[found]] = np.arange(1, len(found) + 1)
        return names.take(pa.array(index, mask=index < 0))

    def _ended(self, wire: Wire, ongoing: Ongoing | None, begins: Places) -> tuple[Ongoing | None, Committed | None]:
        """Return the transaction that goes on behind these messages, and the last commit among them."""
        commits = wire.tagged(COMMIT)
        last = int(commits[-1]) if len(commits) else -1
        committed = None
        if last >= 0:
            at = int(wire.starts[last])
            pos, end, us = (int(wire.int64[at + n]) for n in (2, 10, 18))
            committed = Committed(pos, end, moment(us + _EPOCH_US), int(self.xid[self.number[last]]))
        if last > (int(begins[-1]) if len(begins) else -1) or (ongoing is None and not len(begins)):
            return None, committed
        origin = None if self.origin is None else self.origin[-1].as_py()
        events = int(self.seq[-1]) if len(self.seq) else 0
        return Ongoing(int(self.pos[-1]), int(self.at[-1]), int(self.xid[-1]), origin, events), committed


def _places(wire: Wire) -> NDArray[np.int64]:
    """Return how many places of its transaction each message takes."""
    import numpy as np

    tags = wire.tags
    places = ((tags == INSERT) | (tags == DELETE)).astype(np.int64)
    updates = wire.tagged(UPDATE)
    places[updates] = np.where(wire.octets[wire.starts[updates] + 5] == NEW, 1, 2)
    truncates = wire.tagged(TRUNCATE)
    places[truncates] = wire.int32[wire.starts[truncates] + 1]
    return places


def moment(us: int) -> datetime:
    """Return microseconds since 1970 as a time."""
    from datetime import UTC, timedelta

    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
