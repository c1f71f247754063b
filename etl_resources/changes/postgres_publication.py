"""The publication: which tables the change log of PostgreSQL tells about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError, CredentialsRejectedError
from etl_resources.postgres_sql import literal, quote

if TYPE_CHECKING:
    from etl_resources.changes.postgres_link import Link
    from etl_resources.changes.postgres_tables import TableFacts

_OURS = "made by etl"
_OPERATIONS = ("insert", "update", "delete", "truncate")
_LOCK_SECONDS = 10.0
_MEMBERS_BEFORE_15 = "SELECT prrelid::int8, false FROM pg_publication_rel WHERE prpubid = %(oid)s"
_MEMBERS = """
SELECT prrelid::int8, prqual IS NOT NULL OR prattrs IS NOT NULL FROM pg_publication_rel WHERE prpubid = %(oid)s
UNION ALL SELECT c.oid::int8, false FROM pg_publication_namespace n JOIN pg_class c ON c.relnamespace = n.pnnspid
WHERE n.pnpubid = %(oid)s
"""


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication that exists."""

    name: str
    ours: bool
    """Made by us, and therefore ours to change and to remove."""
    owned: bool
    everything: bool
    """FOR ALL TABLES."""
    operations: tuple[str, ...]
    via_root: bool
    members: frozenset[int]
    """Tables that it has, as `oid`; also those it has through a schema (server 15 and later)."""
    restricted: frozenset[int]
    """Those of which it gives only some rows or columns."""

    def without(self, tables: Iterable[TableFacts]) -> list[TableFacts]:
        """Return the tables that it does not have."""
        return [t for t in tables if not self.everything and t.oid not in self.members]

    def faults(self, tables: Iterable[TableFacts]) -> list[str]:
        """Return what is wrong with it, for these tables."""
        wanted = list(tables)
        faults = [f"it does not publish {name}" for name in _OPERATIONS if name not in self.operations]
        if not self.via_root and any(t.kind == "p" for t in wanted):
            faults.append("publish_via_partition_root is not set, and there are partitioned tables")
        faults += [f"it gives only some rows or columns of {t.stream}" for t in wanted if t.oid in self.restricted]
        return faults


def find(link: Link, name: str, version: int) -> Publication | None:
    """Return the publication of that name, or None."""
    rows = link.ask(
        "SELECT oid::int8, coalesce(obj_description(oid, 'pg_publication'), ''), pg_has_role(pubowner, 'USAGE'),"
        " puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot"
        " FROM pg_publication WHERE pubname = %s",
        [name],
    )
    if not rows:
        return None
    oid, comment, owned, everything, *operations, via_root = rows[0]
    found = link.ask(_MEMBERS if version >= 150000 else _MEMBERS_BEFORE_15, {"oid": oid})
    return Publication(
        name, comment == _OURS, owned, everything,
        tuple(o for o, on in zip(_OPERATIONS, operations, strict=True) if on), via_root,
        frozenset(member for member, _ in found), frozenset(member for member, restricted in found if restricted),
    )  # fmt: skip


def ensure(link: Link, name: str, tables: list[TableFacts], version: int) -> Publication:
    """Make the publication tell about exactly these tables; one that we did not make is only looked at.

    Raises:
        CredentialsRejectedError: the user may not make or change it.
        ConfigurationError: one that somebody else has made does not give what is needed.
    """
    found = find(link, name, version)
    if found is None:
        _change(
            link, name, tables, [_create(name, tables), f"COMMENT ON PUBLICATION {quote(name)} IS {literal(_OURS)}"]
        )
    elif not found.ours:
        faults = [*found.faults(tables), *(f"it does not have {t.schema}.{t.name}" for t in found.without(tables))]
        if faults:
            raise ConfigurationError(
                f"publication {name} was made by somebody else and cannot be used: {'; '.join(faults)}",
                where=link.where, fix=f"have it changed, or another name in `publication`: {_create(name, tables)}",
            )  # fmt: skip
        return found
    elif found.members != {t.oid for t in tables}:
        _change(link, name, tables, [f"ALTER PUBLICATION {quote(name)} SET TABLE {_listed(tables)}"])
    else:
        return found
    made = find(link, name, version)
    assert made is not None  # noqa: S101 - it has just been made
    return made


def drop(link: Link, name: str) -> None:
    """Remove the publication, if there is one and we made it."""
    found = find(link, name, 130000)
    if found is not None and found.ours:
        with link.limit("lock_timeout", _LOCK_SECONDS):
            link.ask(f"DROP PUBLICATION IF EXISTS {quote(name)}")


def _change(link: Link, name: str, tables: list[TableFacts], statements: list[str]) -> None:
    try:
        with link.limit("lock_timeout", _LOCK_SECONDS):
            # Sent as one, they are one transaction: a publication that was not marked as ours would not be touched.
            link.ask("; ".join(statements))
    except CredentialsRejectedError as error:
        raise CredentialsRejectedError(
            f"the user may not make or change publication {name}: {error.what}", where=link.where,
            fix=f"have the owner of the tables run: {_create(name, tables)}",
        ) from error  # fmt: skip


def _create(name: str, tables: list[TableFacts]) -> str:
    options = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
    return f"CREATE PUBLICATION {quote(name)} FOR TABLE {_listed(tables)} WITH ({options})"


def _listed(tables: list[TableFacts]) -> str:
    return ", ".join(t.relation for t in sorted(tables, key=lambda t: t.oid))
