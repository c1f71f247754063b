"""One read of a PostgreSQL change log: looks at the log, each closed by a boundary."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etl_resources.change_log import Boundary, Changes, Lag
from etl_resources.changes import postgres_guard, postgres_slot
from etl_resources.changes.pgoutput import Decoded, Decoder
from etl_resources.changes.postgres_beside import Beside
from etl_resources.changes.postgres_link import RESNAPSHOT, slot_errors
from etl_resources.changes.postgres_peek import peek
from etl_resources.changes.postgres_position import Cursor, lsn
from etl_resources.changes.postgres_rows import shifted, shifted_unreadable
from etl_resources.changes.postgres_setup import Setup, set_up
from etl_resources.changes.postgres_slot import Status
from etl_resources.changes.postgres_snapshot import Piece, pieces
from etl_resources.changes.postgres_split import OF_A_CHANGE, peek_split, split
from etl_resources.changes.postgres_tables import relations
from etl_resources.exceptions import EngineError, LogLostError, UnavailableError
from etl_resources.read_ahead import read_ahead
from etl_resources.source import Batch
from etl_resources.sources.postgres_columns import Column, describe_types

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.changes.pgoutput import Committed, Relation
    from etl_resources.changes.postgres import PostgresLog
    from etl_resources.changes.postgres_link import Link
    from etl_resources.source import Position


AHEAD = 1
"""Pieces of the log that are fetched while earlier ones are decoded."""


@dataclass
class Look:
    """What one look at the log begins with."""

    now: Status
    """Of the moment before it."""
    pieces: Sequence[Piece]
    beat: tuple[int, int] | None
    """Number and place of our own message; the look has to come as far."""
    messages: Generator[pa.Array]


def _after(first: Sequence[pa.Array], messages: Generator[pa.Array]) -> Generator[pa.Array]:
    with closing(messages):
        yield from first
        yield from messages


class Reading:
    """The state of one `PostgresLog.read`."""

    def __init__(self, log: PostgresLog, since: Mapping[str, Position | None]) -> None:
        self.log, self.settings = log, log.capture
        setup: Setup = log.connection.resilience.call(self._begin, since)
        self.tables, self.cursors = setup.tables, setup.cursors
        self.read = dict.fromkeys(self.cursors, 0)
        self.caught_up = False
        self.target: int | None = None
        """Our message of the first look: what was there at the beginning is before it."""
        self.begin_reached = False
        self.progressed = time.monotonic()
        self.of_a_change = OF_A_CHANGE
        """Bytes of log for each message of the last look."""

    def _begin(self, since: Mapping[str, Position | None]) -> Setup:
        with self.log.linked() as link:
            return set_up(link, self.log, since)

    def ticks(self) -> Generator[Changes | Boundary]:
        """Yield until everything has been read that was there at the beginning, or until the time is up."""
        ends = time.monotonic() + self.settings.lasts
        if self.settings.mode == "batch":
            yield from self._tick()
            while not self._complete():
                yield from self._tick()
            return
        looked = time.monotonic()
        yield from self._tick()
        while time.monotonic() < ends:
            idle = self.caught_up and self._complete()
            if idle:
                # What was done with the last look, a merge above all, took its time as well.
                time.sleep(max(0.0, min(looked + self.settings.every, ends) - time.monotonic()))
            looked = time.monotonic()
            if not idle or has_news(self._status(), self.cursors.values()):
                yield from self._tick()

    def _complete(self) -> bool:
        """Whether all has been read that was there at the beginning."""
        if not self.begin_reached:
            return False
        if all(cursor.snapshot is None for cursor in self.cursors.values()):
            return True
        patience = self.log.connection.resilience.silence
        if time.monotonic() - self.progressed > patience:
            with self.log.linked() as link:
                who = postgres_slot.waited_for(link)
            raise UnavailableError(
                f"a snapshot could not go on for {patience:g} s: it waits for transactions to end ({who})",
                where=self.log.connection.address, fix="end them; what was read so far is kept",
            )  # fmt: skip
        return False

    def _status(self) -> Status:
        def ask() -> Status:
            with self.log.linked() as link:
                return postgres_slot.status(link, self.log.slot)

        return self.log.connection.resilience.call(ask)

    def _tick(self) -> Generator[Changes | Boundary]:
        """Look at the log once: nothing has been yielded of it before `_look` has returned, so that may be repeated."""
        look = self.log.connection.resilience.call(self._look)
        read = {piece.stream: piece for piece in look.pieces}
        beside = {
            name: Beside(cursor, self.tables[name].key, read.get(name))
            for name, cursor in self.cursors.items()
            if cursor.snapshot is not None
        }
        decoder = Decoder(
            relations(self.tables, list(self.cursors)), {name: c.lsn for name, c in self.cursors.items()},
            {name: self.tables[name].key for name in self.cursors}, self._describe,
        )  # fmt: skip
        count = 0
        with slot_errors(self.log.slot, self.log.connection.address):
            # The server sends on while what has come is decoded.
            for messages in read_ahead(look.messages, AHEAD):
                count += len(messages)
                for decoded in decoder.decode(messages):
                    if decoded.stream in beside:
                        beside[decoded.stream].note(decoded)
                    yield self._changes(decoded)
        self._check(look, decoder, count)
        for name, snapshot in beside.items():
            for rows, unreadable in snapshot.rows():
                count = rows.num_rows + (0 if unreadable is None else unreadable.num_rows)
                yield self._changes(Decoded(name, rows, count, unreadable=unreadable))
        yield self._boundary(look, decoder.committed, beside)

    def _look(self) -> Look:
        with self.log.linked() as link:
            now = postgres_slot.status(link, self.log.slot)
            postgres_slot.check(now, self.log.slot, link.where)
            if dropped := postgres_guard.spared(link, self.log.slot, now, self.settings):
                raise LogLostError(dropped, where=link.where, fix=RESNAPSHOT)
            # Pieces need a look that comes to the end; only one that follows another can be expected to be short.
            found = pieces(link, self.tables, self.cursors, self.settings.chunk_rows) if self.caught_up else []
            beat = None
            if self.settings.heartbeat or found:
                xid, place = link.ask(
                    "SELECT pg_current_xact_id()::text, pg_logical_emit_message(true, 'etl', '')::text"
                )[0]
                beat = int(xid), lsn(place)
            messages = self._messages(link, now, whole=bool(found), told=beat is not None)
            with slot_errors(self.log.slot, link.where):
                first = list(itertools.islice(messages, 1))
            return Look(now, found, beat, _after(first, messages))

    def _messages(self, link: Link, now: Status, *, whole: bool, told: bool) -> Generator[pa.Array]:
        """Peek at the log, at all of it if `whole`; in two parts only where a message of ours tells its end."""
        most = self.settings.max_changes
        where, server = (self.log.slot, self.log.publication), now.version
        if told and not whole and (parts := split(now, most, self.of_a_change)) is not None:
            return peek_split(self.log.connection, link.session, *where, parts, server=server)
        return peek(link.session, *where, upto_nchanges=None if whole else most, server=server)

    def _describe(self, relation: Relation) -> Sequence[Column]:
        stream = relations(self.tables, list(self.cursors))[relation.schema, relation.name]
        chosen = self.tables[stream].chosen
        wanted = [(c.name, c.type_oid, c.typmod) for c in relation.columns if chosen is None or c.name in chosen]
        with self.log.linked() as link, link.asking():
            return describe_types(link.client, wanted)

    def _check(self, look: Look, decoder: Decoder, count: int) -> None:
        if look.beat is not None:
            reached = decoder.committed is not None and decoder.committed.pos >= look.beat[1]
        else:
            reached = count < self.settings.max_changes
        if decoder.open or (look.pieces and not reached):
            raise EngineError(
                "the log ended before the place that it has to come to", where=self.log.connection.address
            )
        self.caught_up = reached
        if decoder.committed is not None and look.now.slot is not None and look.now.slot.confirmed is not None:
            self.of_a_change = max(1.0, (decoder.committed.end - look.now.slot.confirmed) / count)
        if self.target is None and look.beat is not None:
            self.target = look.beat[1]
        come = decoder.committed is not None and self.target is not None and decoder.committed.pos >= self.target
        self.begin_reached = self.begin_reached or reached or come

    def _changes(self, decoded: Decoded) -> Changes:
        name, data = decoded.stream, decoded.data
        self.read[name] += decoded.read
        unreadable = decoded.unreadable
        if shift := self.cursors[name].shift:
            data = shifted(data, shift)
            unreadable = unreadable and shifted_unreadable(unreadable, shift)
        batch = Batch(data, self.read[name], unreadable=unreadable, repeated=decoded.repeated)
        return Changes(name, batch)

    def _boundary(self, look: Look, committed: Committed | None, beside: Mapping[str, Beside]) -> Boundary:
        after = self._status()
        if look.pieces:
            self.progressed = time.monotonic()
        swept: dict[str, int] = {}
        for name, before in self.cursors.items():
            cursor = beside[name].advanced(after.view) if name in beside else before
            if name in beside and cursor.snapshot is None:
                swept[name] = beside[name].began
            self.cursors[name] = replace(
                cursor, server=look.now.server, renewed=False,
                view=str(look.now.view) if look.beat is not None else None, own=look.beat and look.beat[0],
                lsn=max(cursor.lsn, committed.pos) if committed else cursor.lsn,
                end=max(cursor.end, committed.end) if committed else cursor.end,
            )  # fmt: skip
        positions = {name: cursor.to_position() for name, cursor in self.cursors.items()}
        done = self.caught_up and not any(cursor.snapshot for cursor in self.cursors.values())
        return Boundary(positions, swept, self._lag(after, committed), caught_up=done)

    def _lag(self, after: Status, committed: Committed | None) -> Lag:
        behind = max(0, after.insert - min(cursor.end for cursor in self.cursors.values()))
        seconds = 0.0 if self.caught_up else None
        if committed is not None and not self.caught_up:
            seconds = max(0.0, time.time() - committed.at.timestamp())
        return Lag(behind, seconds, after.retained)


def has_news(now: Status, cursors: Iterable[Cursor]) -> bool:
    """Whether a transaction has ended that writes, apart from our own, since the last look of one of the streams."""
    from etl_resources.changes.postgres_visibility import View

    return any(
        c.view is None or c.snapshot is not None or now.view.ended_since(View.parse(c.view), c.own) for c in cursors
    )
