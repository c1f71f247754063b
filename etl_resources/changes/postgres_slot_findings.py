"""What a preflight says about the slot: memory of its decoding, standbys that lack it, how long it has rested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etl_resources.change_log import Finding
from etl_resources.postgres_sql import literal

if TYPE_CHECKING:
    from etl_resources.changes.postgres_link import Link
    from etl_resources.changes.postgres_slot import Status

_MEMORY = "SELECT setting::int8, pg_size_pretty(setting::int8 * 1024) FROM pg_settings WHERE name = %s"
_USUAL_KB = 64 << 10
_STANDBYS = """
SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_type = 'physical') OR EXISTS (
  SELECT FROM pg_stat_replication r
  WHERE NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical'))
"""
_REST_HOURS = 24.0
SYNCHRONISED_SINCE = 170000
"""Servers of this version and later can keep logical slots on their standbys."""


def holdings(link: Link) -> Iterator[Finding]:
    """Say how much memory the server decodes in: what a transaction has beyond that goes to its disk, at every look."""
    kilobytes, size = link.ask(_MEMORY, ["logical_decoding_work_mem"])[0]
    what = f"transactions of more than {size} are decoded by way of the server's disk (logical_decoding_work_mem)"
    if kilobytes < _USUAL_KB:
        yield Finding("warning", what, "set logical_decoding_work_mem to 64MB or more; no restart is needed")
    else:
        yield Finding("ok", what)


def has_standbys(link: Link) -> bool:
    """Return whether another server follows this one."""
    return bool(link.ask(_STANDBYS)[0][0])


def slot_as_told(link: Link, name: str) -> Mapping[str, Any]:
    """Return what the server says about the slot, in the columns that its version has; nothing if it is not there."""
    rows = link.ask("SELECT to_jsonb(s) FROM pg_replication_slots s WHERE slot_name = %s", [name])
    return dict(rows[0][0]) if rows else {}


def slot_findings(
    name: str, now: Status, told: Mapping[str, Any], *, standbys: bool, clock: datetime | None = None
) -> Iterator[Finding]:
    """Say what follows from what the server tells about the slot, as `slot_as_told`."""
    if told and told.get("failover"):
        yield Finding("ok", f"slot {name} is kept on the standbys as well (failover)")
    elif standbys:
        what = f"there are standbys, and slot {name} is not on them: after a failover all streams have to be read anew"
        if now.version < SYNCHRONISED_SINCE:
            fix = "nothing helps before PostgreSQL 17; `on_lost: resnapshot` does it by itself"
        else:
            command = f"ALTER_REPLICATION_SLOT {name} (FAILOVER true)"
            fix = (
                f"once the slot is there: psql 'replication=database ...' -c {literal(command)}; on the standby"
                " sync_replication_slots = on"
            )
        yield Finding("warning", what, fix)
    if since := told.get("inactive_since"):
        hours = ((clock or datetime.now(UTC)) - datetime.fromisoformat(since)).total_seconds() / 3600
        if hours > _REST_HOURS:
            what = f"nobody has read from slot {name} for {hours:.0f} hours: it holds back {now.retained or 0:,} bytes"
            yield Finding("warning", what, "run the capture, or `etl capture remove` it")
        else:
            yield Finding("ok", f"slot {name} was last read at {since}")
