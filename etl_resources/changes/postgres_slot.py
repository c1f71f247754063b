"""The replication slot: what makes the server keep the log that we have not read."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.changes.postgres_link import RESNAPSHOT, slot_errors
from etl_resources.changes.postgres_position import Server, lsn, text_of
from etl_resources.changes.postgres_visibility import View
from etl_resources.exceptions import ConfigurationError, LogLostError, UnavailableError

if TYPE_CHECKING:
    from etl_resources.changes.postgres_link import Link

_STATUS = """
SELECT current_setting('server_version_num')::int, (pg_control_system()).system_identifier::text, current_database(),
  pg_is_in_recovery(), pg_current_snapshot()::text,
  CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn()::text END,
  CASE WHEN NOT pg_is_in_recovery() THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
  s.slot_name IS NOT NULL, s.plugin, s.database, s.active_pid, s.wal_status, s.safe_wal_size,
  s.restart_lsn::text, s.confirmed_flush_lsn::text, coalesce((to_jsonb(s) ->> 'failover')::boolean, false)
FROM (VALUES (%s)) wanted(name) LEFT JOIN pg_replication_slots s ON s.slot_name = wanted.name
"""


def default_name(pipeline: str) -> str:
    """Return `etl_<pipeline>` in the letters that a slot's name may have; what differs stays different."""
    plain = re.sub(r"[^a-z0-9_]", "_", pipeline.lower())
    name = f"etl_{plain}"
    if plain == pipeline and len(name) <= 63:
        return name
    return f"{name[:54]}_{hashlib.sha256(pipeline.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot as the server describes it; places in the log as numbers."""

    plugin: str | None
    database: str | None
    active_pid: int | None
    wal_status: str | None
    safe_size: int | None
    restart: int | None
    confirmed: int | None
    failover: bool = False
    """Kept on the standbys as well: it gives nothing that they have not got (PostgreSQL 17 and later)."""


@dataclass(frozen=True, slots=True)
class Status:
    """The server, and the slot if it exists."""

    version: int
    server: Server
    in_recovery: bool
    view: View
    insert: int
    """Where the log ends."""
    slot: Slot | None

    @property
    def retained(self) -> int | None:
        """Bytes that the server keeps because of the slot."""
        if self.slot is None or self.slot.restart is None:
            return None
        return max(0, self.insert - self.slot.restart)


def status(link: Link, name: str) -> Status:
    """Return the state of server and slot, in one question."""
    row = link.ask(_STATUS, [name])[0]
    version, system, database, in_recovery, view, insert, timeline, exists, plugin, its_database, pid = row[:11]
    wal_status, safe_size, restart, confirmed, failover = row[11:]
    slot = None
    if exists:
        slot = Slot(
            plugin, its_database, pid, wal_status, safe_size, lsn(restart) if restart else None,
            lsn(confirmed) if confirmed else None, failover,
        )  # fmt: skip
    server = Server(system, timeline or 0, database)
    return Status(version, server, in_recovery, View.parse(view), lsn(insert) if insert else 0, slot)


def create(link: Link, name: str, patience: float) -> None:
    """Make the slot; the server waits for the transactions that write at the moment, for at most `patience` seconds.

    Raises:
        UnavailableError: they have not ended; names the oldest.
    """
    try:
        with link.limit("statement_timeout", patience):
            link.ask("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    except UnavailableError as error:
        if getattr(error.__cause__, "sqlstate", None) != "57014":
            raise
        raise UnavailableError(
            f"slot {name} could not be made within {patience:g} s: a slot begins when the transactions have ended that"
            f" were writing before ({waited_for(link)})",
            where=link.where, fix="end them, and run again",
        ) from error  # fmt: skip


def writers(link: Link, seconds: float = 0.0) -> list[str]:
    """Return who has been writing for longest, and for more than so many seconds; for messages."""
    rows = link.ask(
        "SELECT who || ', for ' || date_trunc('second', now() - began) FROM ("
        " SELECT 'process ' || pid || ' of ' || coalesce(usename, '?') || ', ' || coalesce(state, '?'), xact_start"
        " FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
        " UNION ALL SELECT 'prepared transaction ' || gid, prepared FROM pg_prepared_xacts) found(who, began)"
        " WHERE began <= now() - make_interval(secs => %s) ORDER BY began LIMIT 3",
        [seconds],
    )
    return [who for (who,) in rows]


def waited_for(link: Link) -> str:
    """Return `writers` as one text."""
    return "; ".join(writers(link)) or "none that this user may see"


def advance(link: Link, name: str, end: int) -> None:
    """Let the server forget what is before `end`, the end of a transaction that the lake holds; never goes back."""
    with slot_errors(name, link.where):
        confirmed = link.ask("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", [name])
        if confirmed and confirmed[0][0] and lsn(confirmed[0][0]) < end:
            link.ask("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", [name, text_of(end)])


def drop(link: Link, name: str) -> None:
    """Remove the slot, if it is there."""
    with slot_errors(name, link.where):
        link.ask(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
            " WHERE slot_name = %s AND database = current_database()",
            [name],
        )


def check(now: Status, name: str, where: str) -> Slot | None:
    """Return the slot, if it is there and ours.

    Raises:
        ConfigurationError: the name belongs to something else.
        LogLostError: the server has given up on it.
    """
    slot = now.slot
    if slot is None:
        return None
    if slot.database != now.server.database or slot.plugin != "pgoutput":
        raise ConfigurationError(
            f"slot {name} belongs to database {slot.database} and plugin {slot.plugin}", where=where,
            fix="give the log another name: capture: {log: {slot: ...}}",
        )  # fmt: skip
    if slot.wal_status == "lost" or slot.confirmed is None:
        raise LogLostError(
            f"slot {name} is lost: it held back more log than the server may keep (max_slot_wal_keep_size)",
            where=where, fix=RESNAPSHOT,
        )  # fmt: skip
    return slot
