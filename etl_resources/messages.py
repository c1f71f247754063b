"""Messages of queues, topics and streams: gathered in micro-batches, decoded into columns.

How a source uses it, in a generator that is suspended while bronze writes (so a slow lake slows the reader down):

    batcher = MicroBatcher(options, batch_rows=batch_rows)
    while not batcher.over():                              # idle_seconds, run_seconds
        for message in client.poll(timeout=batcher.wait()):
            batcher.add(message, size=len(message.body))
        if batcher.due():
            yield make_batch(*batcher.take())
    if batcher.pending():
        yield make_batch(*batcher.take(end=True))

where `make_batch(messages, commit)` decodes the bodies (`payload_decoder`), puts its own columns beside them
(`Decoded.beside`) and returns `Batch(data, rows_read, {..., "payload": decoder.dump()}, unreadable, commit=commit)`.
Bronze calls `acknowledge` while the generator is suspended in the yield of a batch with `commit=True`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pydantic import Field

from etl_resources.exceptions import ConfigurationError
from etl_resources.source import StreamOptions, unreadable_schema

if TYPE_CHECKING:
    import pyarrow as pa

M = TypeVar("M")

BATCH_BYTES = 16 << 20
"""Bodies that are decoded at once, at most about so many bytes; a micro-batch may be several such batches."""
RESERVED = frozenset({"_batch", "_row", "_read_at", "_op", "_seq", "_origin", "_partition"})
"""Columns that a payload cannot have: they are kept for provenance."""


class MicroBatchOptions(StreamOptions):
    """Options of every source of messages: when what has come is committed, and when a run ends.

    A run ends at the end that was there when it began, where the source can tell. Where it cannot, or if
    `idle_seconds` is set, it ends when no message has come for so long; in any case after `run_seconds`.
    """

    max_messages: int = Field(default=100_000, gt=0, description="Commit after so many messages,")
    max_bytes: int = Field(default=64 << 20, gt=0, description="or after so many bytes of messages,")
    max_seconds: float = Field(default=30.0, gt=0, description="or so many seconds after the first: what comes first.")
    idle_seconds: float | None = Field(
        default=None, gt=0, description="Go on reading until no message has come for so many seconds."
    )
    run_seconds: float | None = Field(default=None, gt=0, description="End the run after so many seconds.")


class PayloadOptions(StreamOptions):
    """Options of every source of messages: what is in them."""

    format: str = Field(
        default="json",
        pattern="^(json|text|bytes)$",
        description="json: an object per message, its keys become columns; text or bytes: one column `payload`.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="JSON: types of columns, where those found in the first messages will not do."
    )


class MicroBatcher(Generic[M]):
    """Gathers messages, and says when to hand them on, when to commit, and when the run is over."""

    def __init__(
        self, options: MicroBatchOptions, *, batch_rows: int = 131_072, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._options, self._clock = options, clock
        self._batch_rows = min(batch_rows, options.max_messages)
        self._messages: list[M] = []
        self._bytes = 0  # of the messages that were not taken
        self._open_messages = self._open_bytes = 0  # since the last commit, taken or not
        self._opened: float | None = None
        self._began = clock()
        self._heard: float | None = None

    def add(self, message: M, size: int) -> None:
        """Take one message of `size` bytes."""
        self.extend([message], size)

    def extend(self, messages: Sequence[M], size: int) -> None:
        """Take some messages of `size` bytes in all, in their order."""
        if not messages:
            return
        self._heard = self._clock()
        if self._opened is None:
            self._opened = self._heard
        self._messages += messages
        self._bytes += size
        self._open_messages += len(messages)
        self._open_bytes += size

    @property
    def room(self) -> int:
        """How many messages fit before something is due, at least 1."""
        open_room = self._options.max_messages - self._open_messages
        return max(1, min(self._batch_rows - len(self._messages), open_room))

    def due(self) -> bool:
        """Tell whether to `take` now: enough for a batch, or time to commit."""
        return self._commit_due() or len(self._messages) >= self._batch_rows or self._bytes >= BATCH_BYTES

    def take(self, *, end: bool = False) -> tuple[list[M], bool]:
        """Return the messages gathered, and whether to commit behind them; `end`: they are the last of the run.

        The list may be empty when it is time to commit what has been taken before.
        """
        commit = end or self._commit_due()
        taken, self._messages, self._bytes = self._messages, [], 0
        if commit:
            self._opened, self._open_messages, self._open_bytes = None, 0, 0
        self._heard = None  # the time that the lake takes is not silence
        return taken, commit

    def pending(self) -> bool:
        """Tell whether there is anything that was not committed."""
        return self._opened is not None

    def wait(self, longest: float = 1.0) -> float:
        """Return for how many seconds to wait for a message at most, until something is due or over."""
        now = self._clock()
        limits = [longest]
        if self._opened is not None:
            limits.append(self._opened + self._options.max_seconds - now)
        if self._options.idle_seconds is not None:
            limits.append(self._options.idle_seconds - self.silence())
        if self._options.run_seconds is not None:
            limits.append(self._began + self._options.run_seconds - now)
        return max(0.0, min(limits))

    def silence(self) -> float:
        """Return the seconds since the last message, or since reading began or went on after a batch."""
        now = self._clock()
        if self._heard is None:
            self._heard = now
        return now - self._heard

    def over(self) -> bool:
        """Tell whether the run ends by `idle_seconds` or `run_seconds`."""
        idle, run = self._options.idle_seconds, self._options.run_seconds
        if run is not None and self._clock() - self._began >= run:
            return True
        return idle is not None and self.silence() >= idle

    def _commit_due(self) -> bool:
        if self._opened is None:
            return False
        return (
            self._open_messages >= self._options.max_messages
            or self._open_bytes >= self._options.max_bytes
            or self._clock() - self._opened >= self._options.max_seconds
        )


@dataclass(frozen=True)
class Decoded:
    """The columns of the bodies that could be decoded, in their order; and what could not be."""

    data: pa.Table
    rows: int
    """Rows of `data`, also where it has no column."""
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Index of a body, and why it could not be decoded; ascending."""

    def beside(
        self, others: Mapping[str, pa.Array], bodies: Sequence[bytes | None], origins: Any, lines: Any = None
    ) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
        """Return the records with the source's `others` columns (one value per body) behind the payload's, and the
        unreadable ones in `unreadable_schema()`.

        `origins` (string) and `lines` (int64, e.g. an offset; None: unknown) are arrays with one value per body.
        """
        import pyarrow as pa

        arrays = {name: self.data.column(name).combine_chunks() for name in self.data.column_names}
        kept = self._kept(len(bodies))
        for name, array in others.items():
            arrays[name] = array if kept is None else array.take(kept)
        schema = pa.schema([(name, array.type) for name, array in arrays.items()])
        batch = pa.RecordBatch.from_arrays([_flat(a) for a in arrays.values()], schema=schema)
        if not self.bad:
            return batch, None
        at = pa.array([n for n, _ in self.bad], pa.int64())
        unreadable = pa.RecordBatch.from_arrays(
            [
                pa.array([reason for _, reason in self.bad], pa.string()),
                pa.array([bodies[n] for n, _ in self.bad], pa.binary()),
                origins.take(at),
                lines.take(at) if lines is not None else pa.nulls(len(at), pa.int64()),
            ],
            schema=unreadable_schema(),
        )
        return batch, unreadable

    def _kept(self, bodies: int) -> pa.Array | None:
        if not self.bad:
            return None
        import numpy as np
        import pyarrow as pa

        kept = np.ones(bodies, np.bool_)
        kept[[n for n, _ in self.bad]] = False
        return pa.array(np.flatnonzero(kept))


def _flat(array: Any) -> Any:
    import pyarrow as pa

    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


class Decoder(ABC):
    """Turns bodies into columns. Its types are set by what is declared, was landed, and comes first, in this order."""

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """Return the columns that are known by now."""

    @abstractmethod
    def decode(self, bodies: Sequence[bytes | None]) -> Decoded:
        """Return the columns of the bodies; None is a message without a body, and becomes a row of nulls."""

    @abstractmethod
    def dump(self) -> dict[str, Any]:
        """Return what a position keeps of it, as JSON, so that the next run finds the same types."""


class PlainDecoder(Decoder):
    """One column `payload`: the body as it came, or as text."""

    def __init__(self, kind: Literal["text", "bytes"]) -> None:
        self._kind = kind

    @property
    def schema(self) -> pa.Schema:
        """Return the columns that are known by now."""
        import pyarrow as pa

        return pa.schema([("payload", pa.string() if self._kind == "text" else pa.binary())])

    def decode(self, bodies: Sequence[bytes | None]) -> Decoded:
        """Return the columns of the bodies."""
        import pyarrow as pa

        raw = pa.array(bodies, pa.binary())
        if self._kind == "bytes":
            return Decoded(pa.table([raw], schema=self.schema), len(raw))
        try:
            return Decoded(pa.table([raw.cast(pa.string())], schema=self.schema), len(raw))
        except pa.ArrowInvalid:
            bad = [(n, "not UTF-8") for n, body in enumerate(bodies) if body is not None and not _is_utf8(body)]
        wrong = {n for n, _ in bad}
        good = pa.array([b for n, b in enumerate(bodies) if n not in wrong], pa.binary())
        return Decoded(pa.table([good.cast(pa.string())], schema=self.schema), len(good), bad)

    def dump(self) -> dict[str, Any]:
        """Return what a position keeps."""
        return {}


def payload_decoder(
    options: PayloadOptions, landed: Mapping[str, Any] | None, *, taken: frozenset[str] = frozenset()
) -> Decoder:
    """Return the decoder for `options.format`; `landed` is what `dump` gave, from the position.

    `taken` are the names of the source's own columns: a message whose payload has one of them is unreadable.

    Raises:
        ConfigurationError: a type in `columns` is none, or is given for a format that has no columns.
    """
    from etl_resources.messages_json import JsonDecoder

    if options.format == "json":
        return JsonDecoder(options.columns, landed or {}, RESERVED | taken)
    if options.columns:
        raise ConfigurationError(f"format {options.format} has no columns but `payload`", fix="leave `columns` out")
    return PlainDecoder("text" if options.format == "text" else "bytes")


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
