"""Decodes PostgreSQL's own change log (pgoutput, first protocol version) in columns: no step is taken per row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.changes.pgoutput_transactions import Committed, Ongoing, Transactions
from etl_resources.changes.pgoutput_tuples import misread
from etl_resources.changes.pgoutput_wire import (
    DELETE,
    INSERT,
    KNOWN,
    RELATION,
    TRUNCATE,
    UPDATE,
    Relation,
    RelationColumn,
    Wire,
    relation,
    truncated,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.changes.pgoutput_rows import Entries, Version
    from etl_resources.changes.pgoutput_wire import Places
    from etl_resources.sources.postgres_columns import Column

__all__ = ["Committed", "Decoded", "Decoder", "Relation", "RelationColumn"]


@dataclass(frozen=True)
class Decoded:
    """Some events of one stream, in the order of the log, all of one version of its table."""

    stream: str
    data: pa.RecordBatch
    """The columns of the row and `change_log.event_fields`."""
    read: int
    """Events that the messages are, counted from the messages; a change of the key is two."""
    repeated: int = 0
    """Those whose transaction was committed at or before the cursor of the stream: left out."""
    unreadable: pa.RecordBatch | None = None
    apart: pa.RecordBatch | None = None
    """The events of `unreadable` in the columns of `data`, null where they cannot be read."""


class Decoder:
    """Turns messages into events. A transaction may come in pieces: what is not finished is kept between calls.

    `streams` says which tables are wanted, as (schema, table) -> stream, `cursors` the last commit of each stream that
    the lake holds, `keys` what identifies its rows. `describe` is asked for the columns of each new version of a
    table (`postgres_columns.describe_types`); it may leave columns out.
    """

    def __init__(
        self,
        streams: Mapping[tuple[str, str], str],
        cursors: Mapping[str, int],
        keys: Mapping[str, tuple[str, ...]],
        describe: Callable[[Relation], Sequence[Column]],
    ) -> None:
        self._streams, self._cursors, self._keys, self._describe = streams, cursors, keys, describe
        self._versions: dict[int, tuple[bytes, Version | None]] = {}
        self._ongoing: Ongoing | None = None
        self._committed: Committed | None = None

    @property
    def committed(self) -> Committed | None:
        """The newest commit decoded; None: none yet."""
        return self._committed

    @property
    def open(self) -> bool:
        """In the middle of a transaction."""
        return self._ongoing is not None

    def decode(self, messages: pa.Array) -> list[Decoded]:
        """Return the events of some messages (binary or large binary, one message each).

        Raises:
            EngineError: these are not messages of pgoutput's first protocol version.
            NotFoundError: a table has no longer a column that is part of the key.
        """
        import numpy as np

        if not len(messages):
            return []
        wire = Wire(messages)
        if not set(np.flatnonzero(np.bincount(wire.tags)).tolist()).issubset(KNOWN):
            raise misread("a message of another version of the protocol")
        transactions = Transactions(wire, self._ongoing)
        before = max(0 if self._committed is None else self._committed.pos, int(transactions.pos[0]))
        if (np.diff(transactions.pos[1:], prepend=before) <= 0).any():
            raise misread("transactions that are not in the order of their commits")
        rows = _Rows(wire, transactions)
        if self._ongoing is None and len(rows.index) and transactions.number[rows.index[0]] == 0:
            raise misread("a row outside of a transaction")
        found: list[Decoded] = []
        done = 0
        for at in wire.tagged(RELATION).tolist():
            message = wire.message(at)
            told = relation(message)
            known = self._versions.get(told.oid)
            if known is not None and known[0] == message:
                continue
            if known is not None:  # what came before it is of the version before
                found += self._events(wire, transactions, rows, done, at)
                done = at
            self._versions[told.oid] = message, self._version(told)
        found += self._events(wire, transactions, rows, done, len(wire.tags))
        self._ongoing, self._committed = transactions.ongoing, transactions.committed or self._committed
        return found

    def _version(self, told: Relation) -> Version | None:
        from etl_resources.changes.pgoutput_rows import Version

        stream = self._streams.get((told.schema, told.name))
        return None if stream is None else Version(told, stream, self._keys[stream], self._describe(told))

    def _events(self, wire: Wire, transactions: Transactions, rows: _Rows, first: int, end: int) -> Iterator[Decoded]:
        """Yield the events of the messages from `first` on to `end`, in which no table changes its version."""
        for oid, entries in rows.by_relation(first, end):
            if oid not in self._versions:
                raise misread(f"rows of a table (oid {oid}) that was not told before")
            version = self._versions[oid][1]
            if version is not None:
                yield self._piece(wire, transactions, version, entries)

    def _piece(self, wire: Wire, transactions: Transactions, version: Version, entries: Entries) -> Decoded:
        from etl_resources.changes.pgoutput_events import Events
        from etl_resources.changes.pgoutput_rows import Rows

        cursor = self._cursors.get(version.stream, 0)
        fresh = transactions.pos[transactions.number[entries.index]] > cursor
        repeated = 0
        if not fresh.all():
            repeated = Rows(wire, version, entries[~fresh]).count
            entries = entries[fresh]
        made = Rows(wire, version, entries)
        data, unreadable, apart = Events(made, transactions).decoded()
        return Decoded(version.stream, data, made.count + repeated, repeated, unreadable, apart)


class _Rows:
    """The messages that are events, and the relation of each; a truncate is there once for each of its relations."""

    def __init__(self, wire: Wire, transactions: Transactions) -> None:
        import numpy as np

        index = np.flatnonzero((wire.tags == INSERT) | (wire.tags == UPDATE) | (wire.tags == DELETE))
        oids = wire.int32[wire.starts[index] + 1].astype(np.uint32)
        seq = transactions.seq[index]
        for at in wire.tagged(TRUNCATE).tolist():
            emptied = truncated(wire.message(at))
            where = int(np.searchsorted(index, at))
            places = int(transactions.seq[at]) - len(emptied) + 1 + np.arange(len(emptied))
            index = np.insert(index, where, np.full(len(emptied), at))
            oids = np.insert(oids, where, np.array(emptied, np.uint32))
            seq = np.insert(seq, where, places)
        self.index, self._oids, self._seq, self._tags = index, oids, seq, wire.tags[index]

    def by_relation(self, first: int, end: int) -> Iterator[tuple[int, Entries]]:
        """Yield what there is of each relation in the messages from `first` on to `end`, by its first event."""
        import numpy as np

        from etl_resources.changes.pgoutput_rows import Entries

        a, b = (int(place) for place in np.searchsorted(self.index, (first, end)))
        every: Places = np.arange(a, b)
        oids = self._oids[a:b]
        if not len(oids):
            return
        if (oids == oids[0]).all():
            groups = [every]
        else:
            order = np.argsort(oids, kind="stable")
            cuts = np.flatnonzero(np.diff(oids[order])) + 1
            groups = sorted((every[group] for group in np.split(order, cuts)), key=lambda group: int(group[0]))
        for group in groups:
            yield int(self._oids[group[0]]), Entries(self.index[group], self._tags[group], self._seq[group])
