"""What a change log is: the one interface between a system's own record of its changes and bronze.

A log is read in ticks. A tick is some batches of change events of several streams, closed by a `Boundary`: everything
since the last boundary is whole transactions, and each stream is committed to the lake with the position that the
boundary gives it. The position in the lake is the truth; what the far end remembers (a slot, a consumer group) follows
it by `acknowledge` and may fall back at any time, so events at or before a stream's own position are dropped and
counted as `repeated`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from etl_resources.exceptions import ConfigurationError
from etl_resources.resilience import Policy
from etl_resources.source import Batch, Position, Stream

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.compared import ComparedTable

INSERT, UPDATE, DELETE, TRUNCATE, READ = "insert", "update", "delete", "truncate", "read"
"""Values of `_op`. `read` is a row as a snapshot found it; `truncate` empties the table and has no key."""


def event_fields(row: pa.Schema) -> list[pa.Field]:
    """Return the columns that an event has beside those of the row.

    - `_op`: see above.
    - `_pos` (int64): where in the log the event's transaction was committed. No event comes later than one with a
      greater `_pos` of an earlier tick; a snapshot's row has the position at which it was true.
    - `_seq` (int64): place of the event within its transaction; negative for rows of a snapshot, so that at the same
      `_pos` events come after them. `(_pos, _seq)` names an event of a stream, and is the same whenever it is read.
    - `_xid` (string): the transaction, as the system names it.
    - `_commit_ts` (timestamp, us, UTC): when it was committed, by the clock of the system.
    - `_origin` (string): where the transaction came from, if it was replicated from elsewhere.
    - `_unchanged` (list of strings): columns that the event does not give because they did not change; null: none.
    - `_before` (struct of the columns of the row): the row before the change, as far as the log has it.

    A delete has the key in its columns, and null elsewhere. A change of the key is two events: a delete of the old
    key, then an `update` of the new one whose `_before` has the old key.
    """
    import pyarrow as pa

    return [
        pa.field("_op", pa.string()),
        pa.field("_pos", pa.int64()),
        pa.field("_seq", pa.int64()),
        pa.field("_xid", pa.string()),
        pa.field("_commit_ts", pa.timestamp("us", tz="UTC")),
        pa.field("_origin", pa.string()),
        pa.field("_unchanged", pa.list_(pa.string())),
        pa.field("_before", pa.struct([pa.field(column.name, column.type) for column in row])),
    ]


@dataclass(frozen=True, slots=True)
class LogTable:
    """A stream that is captured from a log, and the columns that identify its rows (those of silver's key)."""

    stream: Stream
    key: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self.stream.name


@dataclass(frozen=True, slots=True)
class Changes:
    """Some events of one stream, in the order of the log.

    `batch.data` has the columns of the row and `event_fields`; `batch.rows_read` is the running count of the stream's
    events since `read` began, counted by the log apart from what is yielded; `batch.repeated` are events at or before
    the stream's position. An event whose values cannot be decoded goes to `batch.unreadable`, with `raw` as JSON
    `{"key": {...}, "pos": ..., "seq": ..., "op": ..., "values": {...}}`: that key has not converged. `position` stays
    unset: a stream is committed at a `Boundary`, and nowhere else.
    """

    stream: str
    batch: Batch


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the lake is behind the system; None is what the system cannot tell."""

    bytes: int | None = None
    """Of log between the position and the end."""
    seconds: float | None = None
    """Since the commit of the oldest change that is not read; 0 when caught up."""
    retained: int | None = None
    """Bytes of log that the system keeps because of us."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """A place between transactions at which every stream can be committed."""

    positions: Mapping[str, Position]
    """Stream -> where to resume; every stream that is read, whether it had events or not."""
    swept: Mapping[str, int] = field(default_factory=dict)
    """Streams whose snapshot has ended here -> the `_pos` at which it began. Keys of the lake without any event since
    then are no longer in the table: they were deleted while nobody listened."""
    lag: Lag = Lag()
    caught_up: bool = False
    """There was nothing more to read at this moment."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a preflight found."""

    level: Literal["ok", "warning", "error"]
    what: str
    fix: str = ""
    stream: str | None = None


@dataclass(frozen=True, slots=True)
class LogState:
    """What the far end says about the log, for people and alarms."""

    state: Literal["none", "ok", "warning", "lost"]
    """none: not set up yet; lost: what comes next is no longer there, the streams have to be read anew."""
    news: bool | None = None
    """Whether a run would find events; None: it cannot be told cheaply."""
    lag: Lag = Lag()
    notes: Sequence[str] = ()


class ChangeLog(ABC):
    """The log of one connection, for some streams. Settings only: connections open inside the methods.

    Made by `Source.change_log`. Only one reader at a time may follow a log: where the system does not see to it
    itself, the commit in the lake refuses the second.
    """

    tables: Sequence[LogTable]
    resilience: Policy = Policy()
    """How often, and with what waits, a read that has broken off is begun again from what the lake holds."""
    lasts: float = float("inf")
    """Seconds after which reading ends (`mode: continuous`), however often it has broken off."""

    @abstractmethod
    def read(self, since: Mapping[str, Position | None]) -> Generator[Changes | Boundary]:
        """Yield what has come since the positions (None: the stream was never read, its snapshot comes first).

        `since` may name fewer streams than there are tables: only those are read. `acknowledge` gets the positions of
        all of them.

        Ends when what was there at the beginning has been read (`mode: batch`), or when the capture's time is up
        (`mode: continuous`). Ends with a `Boundary`. The generator is suspended in a boundary's yield while the lake
        commits and `acknowledge` is called.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError: as their names say.
            LogLostError: the log no longer has what comes after a position; names the streams, if it is not all.
            ConfigurationError: a finding of `preflight` stands in the way.
        """

    @abstractmethod
    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        """Tell the far end what the lake holds, for every table (also those not read); it may forget what is older."""

    @abstractmethod
    def renewed(self, position: Position | None) -> Position | None:
        """Return the position that makes the next `read` take the stream's snapshot again, for `resnapshot`."""

    @abstractmethod
    def preflight(self) -> list[Finding]:
        """Look whether the capture can work, without changing anything."""

    @abstractmethod
    def state(self, since: Mapping[str, Position | None]) -> LogState:
        """Ask, cheaply and without changing anything, how the log is and how far it is ahead of the positions."""

    def protect(self) -> str | None:
        """Keep the far end from harm where the user has said so, whether a run is wanted or not; most logs can do none.

        Returns what was done, for people; None: nothing.

        Raises:
            UnavailableError, CredentialsRejectedError: it could not be found out.
        """
        return None

    def compared(self, stream: str) -> AbstractContextManager[ComparedTable]:
        """Return a snapshot of a table with checksums of its rows, to hold the lake against.

        Raises:
            ConfigurationError: this log has none.
        """
        raise ConfigurationError(
            f"{type(self).__name__} cannot compare its tables with the lake",
            where=f"stream {stream}",
            fix="`etl capture resnapshot` reads the table anew, whatever is wrong",
        )

    @abstractmethod
    def remove(self) -> None:
        """Remove what the capture has set up at the far end (a slot), so that it keeps nothing for us any more."""
