"""What a source is: the one interface between an outside system and bronze."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field

from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.change_log import ChangeLog, LogTable
    from etl_resources.hashed import HashedTable

Position = Mapping[str, Any]
"""Where a source has been read to: JSON-serialisable, opaque to everyone but the source that made it."""


class StreamOptions(BaseModel):
    """What a user writes under `source:`; each source derives its own. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    connection: str | None = Field(default=None, description="Name of an entry of the Connections component.")


class Snapshot(BaseModel):
    """Read everything, every time; a key that is no longer there was deleted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["snapshot"] = "snapshot"


class Incremental(BaseModel):
    """Read what has changed since the last commit, by a cursor column."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["incremental"] = "incremental"
    cursor: str = Field(description="Column that grows whenever a row is written, e.g. updated_at.")


class LogCapture(BaseModel):
    """Follow the change log of the system; a source that has one derives its own, with what it needs beside this."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["log"] = "log"
    mode: Literal["batch", "continuous"] = Field(
        default="batch", description="batch: a run reads what is there and ends; continuous: it goes on for `lasts`."
    )
    every: float = Field(default=0.5, gt=0, description="continuous: seconds from look to look when caught up.")
    lasts: float = Field(default=600.0, gt=0, description="continuous: seconds after which the run ends.")
    merge_share: float = Field(
        default=0.02, gt=0, le=1,
        description="continuous: share of a large silver table that has to be pending to be merged ahead of time.",
    )  # fmt: skip
    merge_age: float = Field(
        default=300.0, ge=0, description="continuous: seconds after which what is pending is merged in any case."
    )
    on_lost: Literal["fail", "resnapshot"] = Field(
        default="fail", description="What a run does when the log no longer has what comes next."
    )
    compact_after_days: int | None = Field(
        default=None, ge=0,
        description="Whole days (UTC) after which bronze keeps only the last change of each key; left out: never.",
    )  # fmt: skip

    @property
    def time(self) -> float:
        """Seconds after which reading ends, however often it has broken off; without end where the log's end counts."""
        return self.lasts if self.mode == "continuous" else float("inf")


class Diff(BaseModel):
    """Read everything, and keep what differs from the last state as events of a change log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["diff"] = "diff"
    hashes: Literal["auto", "here"] = Field(
        default="auto",
        description="auto: rows are hashed in the database where it can, so that only changed ones are moved.",
    )

    def reading(self) -> Snapshot:
        """Return how the source is asked."""
        return Snapshot()


class Watermark(BaseModel):
    """Read what has changed by a cursor column, and now and then all keys, as events of a change log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["watermark"] = "watermark"
    cursor: str = Field(description="Column that grows whenever a row is written, e.g. updated_at.")
    reconcile_hours: float = Field(
        default=24.0,
        ge=0,
        description="Hours after which a run reads all keys, to find what was deleted; 0: every run.",
    )

    def reading(self) -> Incremental:
        """Return how the source is asked."""
        return Incremental(cursor=self.cursor)


Compared = Diff | Watermark
"""Captures that make a change log of what they read; the source itself is asked as `reading` says."""
Capture = Snapshot | Incremental | LogCapture | Diff | Watermark


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open interval `[start, end)` of event time, as one partition of a pipeline covers it."""

    column: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Stream:
    """One table, query, folder or topic of a source, and how to read it."""

    name: str
    options: StreamOptions
    capture: Capture | None = None
    """None: the source's own way (a file source reads the files it has not read)."""
    window: Window | None = None
    """Read only this partition; the position is then neither used nor moved."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records, in the order of the source.

    `data` holds the records; beside their own columns they may carry `_op` (string), `_seq` (int64, grows with the
    order of changes in the source) and `_origin` (string: the file, object or partition they came from).
    `rows_read` is the source's own running count of records it produced, readable or not, this batch included: the
    independent side of the row account, so a batch that gets lost on the way is noticed.
    `position` is where to resume after this batch; None: it cannot be resumed here, only after a later batch.
    """

    data: pa.RecordBatch
    rows_read: int
    position: Position | None = None
    unreadable: pa.RecordBatch | None = None
    """Records that could not be parsed, in `unreadable_schema()`."""
    repeated: int = 0
    """Records that came again and were recognised: counted by `rows_read`, in neither `data` nor `unreadable`."""
    commit: bool = False
    """The source wants what it gave so far to be committed now (a micro-batch is full, or its time is up), and to be
    told by `acknowledge`; such a batch carries a position."""


def unreadable_schema() -> pa.Schema:
    """Columns of records that could not be parsed: `reason`, `raw` (bytes as they came), `origin`, `line` (1-based)."""
    import pyarrow as pa

    return pa.schema([("reason", pa.string()), ("raw", pa.binary()), ("origin", pa.string()), ("line", pa.int64())])


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a read would find, told without reading it; None is what cannot be told cheaply."""

    rows: int | None = None
    size: int | None = None
    """Bytes, as the source stores them."""
    items: tuple[str, ...] = ()
    """What is new, by name, where a source consists of things with names, such as files."""


@dataclass(frozen=True)
class Capabilities:
    """What a source can do, as data; the conformance suite reads it, and the docs print it."""

    captures: frozenset[str] = frozenset({"snapshot"})
    resumes: bool = False
    """Batches in the middle of a read carry a position."""
    windows: bool = False
    """Can restrict a read to a `Window`."""
    gaps: Mapping[str, str] = field(default_factory=dict)
    """Conformance case -> reason why this source cannot pass it (a strict expected failure)."""


class Source(dg.ConfigurableResource, ABC):
    """A system that is read. Holds settings only; connections open inside `read` and are closed when it ends.

    A subclass lives in `etl_resources/sources/<type>.py`, which binds it to the module name `SOURCE`.
    """

    options_type: ClassVar[type[StreamOptions]]
    capabilities: ClassVar[Capabilities]
    log_type: ClassVar[type[LogCapture]] = LogCapture
    """Settings of `capture: {log: ...}`."""

    @abstractmethod
    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the Arrow schema of the stream as the source has it now, without provenance columns."""

    @abstractmethod
    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield what has come since `since` (None: everything), in batches of about `batch_rows` rows.

        The last batch always carries a position. Nothing new: no batch at all.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError: as their names say.
        """

    def change_log(
        self,
        pipeline: str,  # noqa: ARG002 - the default has none
        tables: Sequence[LogTable],  # noqa: ARG002 - as above
        capture: LogCapture,  # noqa: ARG002 - as above
    ) -> ChangeLog:
        """Return the change log of some streams of one pipeline; nothing connects yet.

        Raises:
            ConfigurationError: this source has none.
        """
        raise ConfigurationError(f"{type(self).__name__} has no change log", fix="choose another capture")

    def hashed(
        self,
        stream: Stream,  # noqa: ARG002 - the default hashes nothing
        key: Sequence[str],  # noqa: ARG002 - as above
    ) -> AbstractContextManager[HashedTable] | None:
        """Return a snapshot of the stream that hashes its rows by itself; None: this source cannot.

        Raises:
            NotFoundError: also where a column of the key is not there.
        """
        return None

    def rereads(self, stream: Stream) -> bool:  # noqa: ARG002 - true of most, whatever the stream
        """Tell whether a read without a position gives again what was read before; a queue has forgotten it."""
        return True

    def latest(self, stream: Stream) -> Position | None:  # noqa: ARG002 - the default knows nothing
        """Return the newest position, cheaply, for sensors and plans; None: this source cannot tell."""
        return None

    def estimate(self, stream: Stream, since: Position | None) -> Estimate | None:  # noqa: ARG002 - as above
        """Return what `read` would find, cheaply, for plans; None: this source cannot tell.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError: as `read`.
        """
        return None

    def ping(self) -> bool:
        """Connect and hang up; False: there is nothing that could be tried.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError: as their names say.
        """
        return False

    def acknowledge(self, stream: Stream, position: Position) -> None:
        """Tell the source that everything up to `position` is safely committed in the lake.

        Called after every commit, while `read` is suspended in the yield of the batch that carried `position`, or has
        ended; a queue acknowledges its messages here. A kill before it leaves a committed position that the next
        `read` gets as `since`: what is delivered again then has to be recognised.
        """
