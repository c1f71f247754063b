"""What has to be there before a PostgreSQL change log is read: checked first, made then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etl_resources.changes import postgres_guard, postgres_history, postgres_publication, postgres_slot
from etl_resources.changes.postgres_link import RESNAPSHOT, Link
from etl_resources.changes.postgres_position import Cursor, Progress, text_of
from etl_resources.changes.postgres_preflight import findings
from etl_resources.changes.postgres_publication import Publication
from etl_resources.changes.postgres_slot import Slot, Status
from etl_resources.changes.postgres_tables import TableFacts, facts
from etl_resources.exceptions import ConfigurationError, LogLostError

if TYPE_CHECKING:
    from etl_resources.change_log import Finding
    from etl_resources.changes.postgres import PostgresLog
    from etl_resources.source import Position


@dataclass(frozen=True)
class Setup:
    """What a read begins with."""

    tables: Mapping[str, TableFacts]
    cursors: dict[str, Cursor]


def inspected(link: Link, log: PostgresLog) -> tuple[Status, dict[str, TableFacts], list[Finding]]:
    """Look, without changing anything."""
    now = postgres_slot.status(link, log.slot)
    publication = postgres_publication.find(link, log.publication, now.version)
    tables = facts(link, log.tables)
    return now, tables, findings(link, now, log.slot, publication, log.publication, tables)


def set_up(link: Link, log: PostgresLog, since: Mapping[str, Position | None]) -> Setup:
    """Make publication and slot, if they are not there, and return where each stream of `since` is.

    Raises:
        ConfigurationError: a finding of the preflight stands in the way; nothing was changed.
        LogLostError: changes since a position are not to be had any more.
    """
    now, tables, found = inspected(link, log)
    if errors := [finding for finding in found if finding.level == "error"]:
        raise ConfigurationError(
            "\n".join(finding.what for finding in errors), where=link.where,
            fix="; ".join(dict.fromkeys(finding.fix for finding in errors if finding.fix)),
        )  # fmt: skip
    given = {name: None if position is None else Cursor.from_position(position) for name, position in since.items()}
    kept = {name: cursor for name, cursor in given.items() if cursor is not None and not cursor.renewed}
    slot = _slot_for(link, log, now, kept)
    if slot is not None and (dropped := postgres_guard.spared(link, log.slot, now, log.capture)):
        if kept:
            raise LogLostError(dropped, where=link.where, fix=RESNAPSHOT)
        slot = None
    _check_all(link, log, now, slot, tables, kept)
    postgres_publication.ensure(link, log.publication, list(tables.values()), now.version)
    if slot is not None and not kept and set(given) >= set(tables) and any(given.values()):
        # All are read anew: a slot of its own time has no part of the log in which something was missing.
        postgres_slot.drop(link, log.slot)
        slot = None
    if slot is None:
        postgres_slot.create(link, log.slot, log.connection.resilience.silence)
    now = postgres_slot.status(link, log.slot)
    slot = postgres_slot.check(now, log.slot, link.where)
    assert slot is not None and slot.confirmed is not None  # noqa: S101, PT018 - it was made above
    begun = {
        name: _begun(log, now, slot.confirmed, tables[name], cursor)
        for name, cursor in given.items()
        if name not in kept
    }
    return Setup(tables, {name: kept.get(name) or begun[name] for name in given})


def _slot_for(link: Link, log: PostgresLog, now: Status, kept: Mapping[str, Cursor]) -> Slot | None:
    """Return the slot; None: one has to be made, and nothing is lost by that."""
    try:
        slot = postgres_slot.check(now, log.slot, link.where)
    except LogLostError:
        if kept:
            raise
        postgres_slot.drop(link, log.slot)
        return None
    if slot is None and kept:
        after = text_of(min(c.end for c in kept.values()))
        before = {c.server.timeline for c in kept.values() if c.server.system == now.server.system}
        promoted = before and now.server.timeline not in before
        why = f" (the server was promoted or restored: timeline {max(before)}, now {now.server.timeline})"
        raise LogLostError(
            f"slot {log.slot} is gone{why if promoted else ''}: what has changed since {after} is not to be had any"
            " more",
            where=link.where, fix=RESNAPSHOT,
        )  # fmt: skip
    return slot


def _check_all(
    link: Link, log: PostgresLog, now: Status, slot: Slot | None, tables: Mapping[str, TableFacts],
    kept: Mapping[str, Cursor],
) -> None:  # fmt: skip
    """Make sure that nothing is missing since the cursors.

    Raises:
        LogLostError: something is; names all streams of which that is so.
    """
    publication = postgres_publication.find(link, log.publication, now.version)
    lost: dict[str, LogLostError] = {}
    for name, cursor in kept.items():
        try:
            postgres_history.check(cursor, now.server, log.connection, name)
            _check_continuity(link, log, slot, tables[name], cursor, publication)
        except LogLostError as error:
            lost[name] = error
    if lost:
        what = dict.fromkeys(error.what for error in lost.values())
        raise LogLostError("\n".join(what), where=link.where, fix=RESNAPSHOT, streams=tuple(lost))


def _check_continuity(
    link: Link, log: PostgresLog, slot: Slot | None, table: TableFacts, cursor: Cursor,
    publication: Publication | None,
) -> None:  # fmt: skip
    """Make sure that slot and publication have had the table, without a break, since the position."""
    what = ""
    if slot is not None and (slot.confirmed or 0) > cursor.end:
        what = (
            f"slot {log.slot} is at {text_of(slot.confirmed or 0)}, and the lake at {text_of(cursor.end)}: the slot was"
            " made anew, or somebody else has read from it, or the stream was not captured for a while"
        )
    elif cursor.table != table.oid:
        what = f"{table.schema}.{table.name} was dropped and made anew"
    elif publication is None or publication.without([table]):
        what = f"{table.schema}.{table.name} was taken out of publication {log.publication}"
    if what:
        raise LogLostError(
            f"stream {table.stream}: {what}; changes are missing", where=link.where, fix=RESNAPSHOT,
            streams=[table.stream],
        )  # fmt: skip


def _begun(log: PostgresLog, now: Status, confirmed: int, table: TableFacts, before: Cursor | None) -> Cursor:
    """Return where a stream begins that is read for the first time, or anew.

    A transaction whose commit record stands at the very place where the slot begins is still given.
    """
    fresh = Cursor(
        now.server, log.slot, table.oid, confirmed - 1, confirmed, snapshot=Progress(waits=now.view.xmax)
    )  # fmt: skip
    if before is None:
        return fresh
    try:
        postgres_history.check(before, now.server, log.connection, table.stream)
    except LogLostError:
        return replace(fresh, shift=max(0, before.lsn + before.shift + 1 - fresh.lsn))
    # The same history: what the lake holds is not taken twice.
    return replace(fresh, lsn=before.lsn, end=max(before.end, confirmed), shift=before.shift)
