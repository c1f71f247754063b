"""A long stretch of the log is read from two places at once: the server decodes its end beside its beginning.

One process of the server decodes a slot, and gives its first message when it has come to the end. So the slot is copied
for the time of a session, and the copy advanced to a place between, which is quick as nothing is decoded on the way. A
transaction belongs to the part in which its commit record begins: the peek at the first part ends with the last record
that begins before that place, and the server gives nothing of the copy that was committed before it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.changes.postgres_peek import peek
from etl_resources.changes.postgres_position import text_of
from etl_resources.exceptions import EtlError
from etl_resources.postgres_sql import literal

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.changes.postgres_slot import Status
    from etl_resources.postgres import PostgresConnection
    from etl_resources.postgres_session import Session

_log = logging.getLogger(__name__)

LONG = 32 << 20
"""Bytes of log below which the first part would be done before the second has begun."""
OF_A_CHANGE = 128.0
"""Bytes of log that a change takes, as long as nothing is known about these."""
_FIRST = 0.4
"""Of the log is the first part: it is worked on while the server is still busy with the second."""
_PAGE, _WITHIN = 1024, 512


@dataclass(frozen=True, slots=True)
class Split:
    """Places in the log: transactions whose commit is before `middle`, and those from there up to about `end` (None: to
    the end of the log). Each part ends behind `most` messages."""

    middle: int
    end: int | None
    most: int


def split(now: Status, most: int, of_a_change: float) -> Split | None:
    """Return how to read what the slot has not been advanced over, about `most` changes of so many bytes; None: in one
    piece."""
    if now.slot is None or now.slot.confirmed is None or now.slot.restart is None:
        return None
    new, again = now.insert - now.slot.confirmed, now.slot.confirmed - now.slot.restart
    # What is before the slot's place is read for both parts. A copy would not wait for the standbys.
    if new < LONG or again > new or now.slot.failover:
        return None
    length = min(new, round(most * of_a_change))
    # No record begins in the head of a page: so there are no two records between which both parts could end and begin.
    middle = (now.slot.confirmed + round(length * _FIRST)) // _PAGE * _PAGE + _WITHIN
    return Split(middle, now.slot.confirmed + length if length < new else None, most)


def peek_split(
    connection: PostgresConnection, session: Session, slot: str, publication: str, parts: Split, *, server: int
) -> Generator[pa.Array]:
    """Yield the messages as `peek` does, of both parts; of the first alone if it has more than its share, or if the
    server does not let us have another connection and slot.

    Raises:
        UnavailableError, NotFoundError, EngineError: as the server said.
    """
    second = _second(connection, slot, publication, parts, server=server)
    # Only what the server does is done beside: messages are fetched when it is their turn.
    with closing(second), ThreadPoolExecutor(1, "etl-part") as pool:
        beside = pool.submit(next, second, None)
        upto, count = text_of(parts.middle), 0
        for messages in peek(session, slot, publication, upto_lsn=upto, upto_nchanges=parts.most, server=server):
            count += len(messages)
            yield messages
        if count < parts.most and (first := beside.result()) is not None:
            yield first
            yield from second


def _second(
    connection: PostgresConnection, slot: str, publication: str, parts: Split, *, server: int
) -> Generator[pa.Array]:
    with ExitStack() as stack:
        try:
            session = stack.enter_context(connection.session())
            copy = _copied(session, slot)
        except EtlError as error:
            # No room, or no right; if it is more than that, the peek at the first part finds out as well.
            _log.info("the change log is read from one place and not from two: %s", error.what)
            return
        place = f"{literal(copy)}, {literal(text_of(parts.middle))}::pg_lsn"
        session.rows(f"SELECT end_lsn FROM pg_catalog.pg_replication_slot_advance({place})")  # noqa: S608 - quoted
        end = None if parts.end is None else text_of(parts.end)
        yield from peek(session, copy, publication, upto_lsn=end, upto_nchanges=parts.most, server=server)


def _copied(session: Session, slot: str) -> str:
    """Return the name of a copy of the slot that is gone with the session."""
    arguments = f"{literal(slot)}, 'etl_part_' || pg_catalog.pg_backend_pid(), true"
    return str(session.value(f"SELECT slot_name FROM pg_catalog.pg_copy_logical_replication_slot({arguments})"))  # noqa: S608 - quoted
