"""Whether the changes of some tables can be captured, found out before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from etl_resources.change_log import Finding
from etl_resources.changes.postgres_publication import Publication
from etl_resources.changes.postgres_slot import Status, writers
from etl_resources.changes.postgres_slot_findings import has_standbys, holdings, slot_as_told, slot_findings
from etl_resources.changes.postgres_tables import TableFacts
from etl_resources.postgres_sql import quote

if TYPE_CHECKING:
    from etl_resources.changes.postgres_link import Link

_SETTINGS = """
SELECT current_setting('wal_level'), current_setting('max_replication_slots')::int,
  (SELECT count(*) FROM pg_replication_slots),
  (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user)
    OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'MEMBER')),
  has_database_privilege(current_database(), 'CREATE'), current_setting('max_slot_wal_keep_size'),
  current_setting('idle_replication_slot_timeout', true)
"""
_LONG = 300.0
"""Seconds after which a transaction that writes is worth a word."""


def findings(
    link: Link, now: Status, slot: str, publication: Publication | None, name: str, tables: Mapping[str, TableFacts]
) -> list[Finding]:
    """Return what was found: errors stand in the way of `read`.

    `slot` is the name of the slot, `publication` the publication called `name`, if there is one.
    """
    found = [*_server(link, now, slot)]
    for table in tables.values():
        found += _table(table)
    return found + list(_publication(publication, name, tables.values(), link))


def _server(link: Link, now: Status, name: str) -> Iterator[Finding]:
    if now.version < 130000:
        yield Finding("error", f"the server is of version {now.version // 10000}", "PostgreSQL 13 or later is needed")
        return
    if now.in_recovery:
        yield Finding("error", "this server is a standby: a slot cannot be made here", "connect to the primary")
    level, slots, used, may_replicate, _, kept, idle = link.ask(_SETTINGS)[0]
    if level != "logical":
        yield Finding("error", f"wal_level is {level}", "set wal_level = logical, and restart the server")
    else:
        yield Finding("ok", "wal_level is logical")
    if now.slot is None and used >= slots:
        fix = "raise max_replication_slots and restart the server, or drop a slot that nobody uses"
        yield Finding("error", f"all {slots} replication slots are taken", fix)
    if not may_replicate:
        yield Finding("error", "the user may not use replication slots", "ALTER ROLE ... REPLICATION")
    if kept == "-1":
        fix = "set max_slot_wal_keep_size on the server, or `max_retained` with `drop_beyond_cap` here"
        yield Finding("warning", "a slot that nobody reads may fill the disk of the server", fix)
    else:
        yield Finding("ok", f"the slot is given up once it holds back {kept} (max_slot_wal_keep_size)")
    if idle not in {None, "0"}:
        fix = f"look at the log more often than every {idle}, or set idle_replication_slot_timeout = 0"
        yield Finding("warning", f"the slot is given up after {idle} without a reader", fix)
    if long := writers(link, _LONG):
        what = f"transactions write for more than five minutes, slot and snapshots wait for them: {'; '.join(long)}"
        yield Finding("warning", what, "end them: SELECT pg_terminate_backend(<process>), or ROLLBACK PREPARED")
    yield from holdings(link)
    yield from slot_findings(name, now, slot_as_told(link, name), standbys=has_standbys(link))


def _table(table: TableFacts) -> Iterator[Finding]:
    name, stream = f"{table.schema}.{table.name}", table.stream
    if table.kind not in {"r", "p"} or table.persistence != "p":
        kind = {"v": "a view", "m": "a materialised view", "f": "a foreign table"}.get(table.kind)
        kind = kind or {"u": "unlogged", "t": "temporary"}.get(table.persistence, "no table")
        yield Finding("error", f"{name} is {kind}: the log does not have it", "capture the table behind it", stream)
        return
    if not table.readable:
        yield Finding(
            "error", f"the user may not read {name}", f"GRANT SELECT ON {quote(table.schema, table.name)}", stream
        )
    if table.row_security:
        fix = "ALTER ROLE ... BYPASSRLS"
        yield Finding("error", f"row security hides rows of {name} from the user, and not from the log", fix, stream)
    if table.has_children:
        what = f"tables inherit from {name}: their rows are not captured with it"
        yield Finding("warning", what, "make streams of them", stream)
    yield from _identities(table)
    if hidden := [c.name for c in table.all_columns if c.generated]:
        what = f"generated columns are not in the log: {', '.join(hidden)}"
        yield Finding("warning", what, "compute them in a step", stream)
    if table.index is None:
        yield from _without_index(table)


def _identities(table: TableFacts) -> Iterator[Finding]:
    stream = table.stream
    for identity in table.identities:
        if not identity.usable:
            yield Finding(
                "error",
                f"{identity.table} has no replica identity: once it is published, the server refuses the application's"
                " updates and deletes of it",
                f"give it a primary key that is not deferrable, or ALTER TABLE {identity.table} REPLICA IDENTITY FULL",
                stream,
            )  # fmt: skip
        elif identity.mode != "f" and (missing := set(table.key) - set(identity.columns or ())):
            yield Finding(
                "error",
                f"deletes from {identity.table} are known by {', '.join(identity.columns or ())}, which lacks"
                f" {', '.join(sorted(missing))} of the key",
                "take the replica identity as key, or ALTER TABLE ... REPLICA IDENTITY FULL", stream,
            )  # fmt: skip
        elif identity.mode == "f":
            yield Finding("ok", f"{identity.table} logs whole rows (REPLICA IDENTITY FULL)", stream=stream)
        else:
            large = [c.name for c in table.all_columns if c.large and c.name not in (identity.columns or ())]
            note = f"; large values of {', '.join(large)} come only when they change" if large else ""
            columns = ", ".join(identity.columns or ())
            yield Finding("ok", f"rows of {identity.table} are known by {columns}{note}", stream=stream)


def _without_index(table: TableFacts) -> Iterator[Finding]:
    nullable = [c.name for c in table.all_columns if c.name in table.key and not c.not_null]
    if nullable:
        what = f"{', '.join(nullable)} of the key may be null, and no unique index gives {table.name} an order"
        yield Finding("error", what, "declare NOT NULL, or a primary key", table.stream)
    else:
        what = f"no unique index of {table.name} is usable: every piece of its snapshot sorts the whole table"
        yield Finding("warning", what, "create a unique index on the key", table.stream)


def _publication(
    publication: Publication | None, name: str, tables: Iterable[TableFacts], link: Link
) -> Iterator[Finding]:
    wanted = list(tables)
    if publication is not None and not publication.ours:
        faults = [*publication.faults(wanted), *(f"it lacks {t.schema}.{t.name}" for t in publication.without(wanted))]
        if faults:
            what = f"publication {name} was made by somebody else and cannot be used: {'; '.join(faults)}"
            yield Finding("error", what, "have it changed, or give another `publication`")
        else:
            yield Finding("ok", f"publication {name} gives what is needed")
        return
    missing = wanted if publication is None else publication.without(wanted)
    if not missing:
        yield Finding("ok", f"publication {name} gives what is needed")
        return
    may_create = link.ask("SELECT has_database_privilege(current_database(), 'CREATE')")[0][0]
    fix = f"have an administrator make publication {name} for these tables"
    if publication is None and not may_create:
        yield Finding("error", f"there is no publication {name}, and the user may not make one", fix)
    if foreign := [f"{t.schema}.{t.name}" for t in missing if not t.owned]:
        what = f"only the owner can add {', '.join(foreign)} to a publication"
        yield Finding("error", what, fix)
