"""What a slot may hold back: alarms about it, and its end where the user says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etl_resources.changes.postgres_link import RESNAPSHOT
from etl_resources.changes.postgres_slot import drop

if TYPE_CHECKING:
    from etl_resources.changes.postgres_link import Link
    from etl_resources.changes.postgres_position import Cursor
    from etl_resources.changes.postgres_settings import PostgresLogCapture
    from etl_resources.changes.postgres_slot import Status


def spared(link: Link, slot: str, now: Status, settings: PostgresLogCapture) -> str | None:
    """Drop the slot where it holds back more than it may, if the user wants that; return what was done, if anything.

    Raises:
        UnavailableError: somebody reads from it at this moment.
    """
    most, retained = settings.max_retained, now.retained
    if not settings.drop_beyond_cap or most is None or retained is None or retained <= most:
        return None
    drop(link, slot)
    return f"slot {slot} was dropped: it held back {retained:,} bytes, more than `max_retained` ({most:,})"


def alarms(slot: str, now: Status, cursors: Sequence[Cursor], settings: PostgresLogCapture) -> tuple[bool, list[str]]:
    """Return whether what comes after the cursors is lost, and what is to be said about the slot, which is there."""
    its = now.slot
    assert its is not None  # noqa: S101 - the caller has looked
    notes = []
    lost = its.wal_status == "lost"
    if lost:
        notes.append(f"slot {slot} is lost: it held back more log than the server may keep; {RESNAPSHOT}")
    elif its.wal_status == "unreserved":
        notes.append(
            f"slot {slot} is about to be lost, at the next checkpoint of the server: this is the last warning; run the"
            " capture now"
        )
    elif its.wal_status == "extended":
        left = "" if its.safe_size is None else f", {its.safe_size:,} bytes before it is lost"
        notes.append(f"slot {slot} holds back {now.retained or 0:,} bytes of log{left}: run the capture")
    if settings.max_retained is not None and (now.retained or 0) > settings.max_retained:
        notes.append(f"slot {slot} holds back {now.retained:,} bytes, more than `max_retained`")
    for cursor in cursors:
        other = (cursor.server.system, cursor.server.database) != (now.server.system, now.server.database)
        if not cursor.renewed and (other or (its.confirmed or 0) > cursor.end):
            lost = True
            notes.append(f"slot {slot} is not where the lake is: it was made anew, or read by others")
            break
    return lost, notes
